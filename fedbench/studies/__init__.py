"""Optuna studies: many experiments in search of the best configuration."""
