"""Suites: a paper's table as a grid of runs, run once each and shown beside the published figures."""
