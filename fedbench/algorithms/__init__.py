"""Federated methods: one file for each."""
