"""The `fedbench` command whose runs draw no figures at their end: `python without_figures.py ARGUMENTS`."""

from fedbench.cli.app import main
from fedbench.records import plots

if __name__ == "__main__":
    plots.save_figures = lambda *arguments: None
    main()
