"""The modules of the built-in models, which are built from what `fedbench.models` configures."""
