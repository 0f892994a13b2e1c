"""The report on recorded runs: its content, and the files that it is written to."""
