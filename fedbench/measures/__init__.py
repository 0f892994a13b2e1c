"""What is measured of a model or of its training: pure functions on arrays and tensors."""
