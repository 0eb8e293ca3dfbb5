"""What a real GPU says about the rules that the library measures by: one command, one JSON, one summary.

`python -m experiments.bench.gpu_evidence`; README.md in this folder lists what each part answers and what to take along.
"""
