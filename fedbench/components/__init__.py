"""Parts of an experiment that are chosen by name."""
