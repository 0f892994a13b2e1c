"""Synchronous rounds."""
