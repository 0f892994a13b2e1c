"""The end of the command's process: all that has to be done is done, and nothing is taken apart."""

import os
import subprocess
import sys

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""The environment of a process whose streams keep what is written until they are flushed."""

PROGRAM = """
import atexit, os, sys, threading, time
from fedbench.cli.entry import leave

class Library:
    def __del__(self, write=os.write):
        write(1, b"taken apart")

kept = Library()
atexit.register(lambda: sys.stdout.write("registered\\n"))
threading.Thread(target=lambda: (time.sleep(0.3), sys.stdout.write("waited for\\n"))).start()
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
sys.stdout.write("buffered\\n")
sys.stderr.write("of stderr")
leave(3)
"""


def test_threads_end_exit_functions_run_and_streams_are_flushed_and_nothing_is_taken_apart() -> None:
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, env=BUFFERED, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "buffered\nwaited for\nregistered\n", "of stderr")


def test_a_reader_that_has_gone_changes_no_status() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=BUFFERED
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (3, "of stderr")
