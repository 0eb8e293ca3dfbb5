"""The command line, `lightning-watt` and `python -m lightning_watt`.

- `main`: the words and options, and which command they call.
- `doctor`: what can be measured here. `program`: measures any program. `runs`: shows, compares and adds up runs.
- `export`: runs as CSV.
"""
