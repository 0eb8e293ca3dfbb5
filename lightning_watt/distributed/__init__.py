"""Several processes of one run: which of them reads what, and how their energies meet."""
