"""Bytes, FLOPs and memory of clients and rounds, as measured and as the papers count them."""
