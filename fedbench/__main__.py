"""`python -m fedbench` is the `fedbench` command."""

import os
import sys

# `python -m` puts the working directory before all libraries, for which a file of the directory could then stand in.
# It stays on the path, as the last folder, where fedbench itself is found there: in a checkout that is not installed.
if not sys.flags.safe_path and os.path.abspath(sys.path[0]) == os.getcwd():
    del sys.path[0]
    if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == os.getcwd():
        sys.path.append(os.getcwd())

from fedbench.cli.app import main

main()
