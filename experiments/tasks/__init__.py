"""The study's tasks: what each is measured by, who serves it, and what segmentation and video have of their own."""

CLASSIFY = "classify"
"""The first task, and that of records from before there were others."""
