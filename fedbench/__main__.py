"""`python -m fedbench` is the `fedbench` command."""

from fedbench.cli import main

main()
