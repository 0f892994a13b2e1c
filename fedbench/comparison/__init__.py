"""Comparing recorded runs: spreads over seeds, methods side by side, tables and charts."""
