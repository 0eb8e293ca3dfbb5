"""Measuring: one thread reads the sources; a mark is filled in when the devices' curves have passed it."""
