"""Bytes, FLOPs and memory: as measured, and as the papers count."""
