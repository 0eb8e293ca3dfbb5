"""`python -m lightning_watt`: the command line; without a command, what can be measured on this machine."""

from __future__ import annotations

import sys

from lightning_watt.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
