"""`Record`: one run's record, which a notebook shows as a table."""

from __future__ import annotations

from lightning_watt.record.schema import RecordFields
from lightning_watt.record.text.drawn import width_of
from lightning_watt.record.text.statement import Statement, statement
from lightning_watt.record.text.summary import line, summary, summary_html


class Record(RecordFields, kw_only=True):
    """One run, as its `watt.json` holds it; `RecordFields` explains the fields."""

    def __str__(self) -> str:
        """What `print(callback.result)` shows: the tables and sentences at the end of a run."""
        return summary(self, width=width_of())

    def __repr__(self) -> str:
        """What a console shows: one line."""
        return f"<Record: {line(self)}>"

    def statement(self, name: str = "") -> Statement:
        """The run in words for a paper: `.text`, `.latex`, `.bibtex`, `.model_card`.

        Args:
            name: what the run is called in the table; by default its model.
        """
        return statement(self, name)

    def _repr_html_(self) -> str:
        """What a notebook shows: the same, and a button that copies it as text."""
        return summary_html(self)
