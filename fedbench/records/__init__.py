"""What a run leaves: schemas, the run directory, reading it again."""
