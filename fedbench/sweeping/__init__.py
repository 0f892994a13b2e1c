"""Studies: Optuna chooses configurations, Ray runs them beside each other. Optuna is imported here alone."""
