"""Who asks a value for its text: the library, or pytest, which does so where a test fails."""

import sys


def asked_by_us() -> bool:
    """Whether the method that calls this was called by the library."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith("lightning_watt")
