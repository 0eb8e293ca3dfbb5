"""Data modules of the study: one base, one module per data set, each with deterministic splits."""
