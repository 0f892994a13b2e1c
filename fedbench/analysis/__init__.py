"""Why a method works: what recorded runs have learnt, and what their messages tell."""
