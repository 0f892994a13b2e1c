"""One client's local work, and the scoring of a model."""
