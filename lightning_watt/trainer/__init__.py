"""Everything that knows a Trainer: its facts, loggers, metrics, monitors and budget."""
