"""Pictures that the README shows, and the scripts that take them from real runs."""
