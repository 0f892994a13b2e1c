"""Coordination: who trains what when, on a Ray cluster or in a plain loop."""
