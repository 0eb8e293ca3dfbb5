"""What a real GPU says about the rules that the library measures by: one command, one JSON, one summary.

`python -m experiments.bench.gpu_evidence`; README.md beside this file says what each part answers and what to take along.
"""
