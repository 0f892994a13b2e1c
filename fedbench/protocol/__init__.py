"""The messages between clients and server: their layout, compression, privacy and exact sums."""
