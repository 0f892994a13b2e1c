"""Configurations of experiments: sections, presets, merging and checking."""
