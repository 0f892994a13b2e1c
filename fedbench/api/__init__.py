"""What `fedbench` offers to Python: runs, suites, studies and reports as functions that return values.

Nothing is printed unless `progress` asks for it. A first Ctrl-C, or SIGTERM, ends a run at the end of its round, with a
checkpoint, and is then delivered as always, so that a loop over runs ends, too.
"""
