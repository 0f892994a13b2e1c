"""A paper's table as a grid of runs."""
