"""A program that does nothing until the process that has started it ends: stands in for an agent of a local Ray.

A node of Ray starts its agents itself, demands that there is a command for each, and ends when one of them ends. It is
run by the file's path and without `site`, so that it takes a hundredth of a second to start.
"""

import os
import time

LOOK_EVERY = 0.5
"""Seconds between two looks at whether the starting process is still there."""


def idle() -> None:
    """Return when this process has got another parent."""
    parent = os.getppid()
    while os.getppid() == parent != 1:  # 1: the other had ended before this process looked
        time.sleep(LOOK_EVERY)


if __name__ == "__main__":
    idle()
