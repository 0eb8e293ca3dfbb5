"""Videos: decoded with PyAV, clip by clip."""
