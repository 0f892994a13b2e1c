"""The plan of a run: schedules of layer groups, participants, deadlines and delays; without PyTorch."""
