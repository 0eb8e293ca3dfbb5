"""What people read of a record: the table and the line at the end of a run, how much of them is printed, and a statement."""
