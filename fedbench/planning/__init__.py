"""Who takes part, when, and which layer groups: without PyTorch."""
