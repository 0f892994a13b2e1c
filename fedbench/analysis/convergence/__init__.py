"""The quantities of the convergence theorems, on problems whose constants are known and on recorded runs."""
