"""Reading audio, features on the device, and the built-in drum synthesiser."""
