"""The federated methods, one file for each, and the base classes to write further ones."""
