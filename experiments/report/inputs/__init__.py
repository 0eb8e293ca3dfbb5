"""What the report reads: run records, their lineage, and a CSV of trainings that others measured."""
