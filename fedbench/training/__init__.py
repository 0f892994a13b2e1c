"""Local training of one client, and evaluation of a model."""
