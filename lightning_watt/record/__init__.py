"""A run's files: the record, its journal, and reading both."""
