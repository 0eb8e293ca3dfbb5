"""What `rapl.py` is made of: which zones of Linux's powercap tree count, and a job's share of them."""
