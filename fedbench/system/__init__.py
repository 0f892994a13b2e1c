"""What fedbench asks of the operating system: whole and regular files, the home directory, processes."""
