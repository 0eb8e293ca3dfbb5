"""The record of every collective of this process, installed before Lightning and torchmetrics are imported."""

from __future__ import annotations

from tests.differential.collectives import Collectives

collectives = Collectives()
collectives.install()

from tests.integration import tiny as _  # noqa: E402, F401 - a process that is forked from here has all of it imported
