"""`python -m fedbench` is the `fedbench` command."""

from fedbench.cli.app import main

main()
