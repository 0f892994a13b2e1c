"""One table of figures over seeds, in any format."""
