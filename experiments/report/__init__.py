"""The study's report: tables, figures and one page, from the run records alone (`python -m experiments.report RUNS_DIR`)."""
