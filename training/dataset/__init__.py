"""From events and recordings to something a trainer can draw from: splits, store, samplers."""
