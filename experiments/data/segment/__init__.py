"""Pictures with a class for each pixel."""
