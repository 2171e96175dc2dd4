"""What watches a run and writes it down: JSON lines, pictures, TensorBoard, Weights & Biases."""
