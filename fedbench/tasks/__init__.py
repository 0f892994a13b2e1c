"""What is learned: the kinds of task, their losses and the metrics by which they are judged."""
