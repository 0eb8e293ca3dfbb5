"""The environment variable that measures a script which does not know of it: its name, and the words for yes and no."""

from __future__ import annotations

VARIABLE = "LIGHTNING_WATT"
ON = ("1", "true", "yes", "on")
OFF = ("", "0", "false", "no", "off")
