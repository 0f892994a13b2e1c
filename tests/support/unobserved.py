"""Settings of a Ray whose nodes nobody looks at: collecting figures of them takes a tenth of a core."""

UNOBSERVED = {"REPORTER_UPDATE_INTERVAL_MS": "600000", "RAY_enable_metrics_collection": "false"}
"""Environment variables of the processes that start Ray."""
