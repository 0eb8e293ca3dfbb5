"""How a run goes on from a checkpoint: its energy is added, and what was lost on the way, and each gap is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import time as unix_time
from typing import Any

from lightning_watt.record.files import place_of
from lightning_watt.record.schema import Accuracy, Inherited
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.run.wasted import Losses, find_losses

MAX_PATH = 4096


def go_on(session: Session, run: RunState, state: Mapping[str, Any], checkpoint: str | None, *, adds: bool) -> None:
    """Add what the run had used when the checkpoint was saved, and what was lost after it.

    Args:
        session: the run that goes on.
        run: what is known of it.
        state: what the callback saved.
        checkpoint: the checkpoint's path, beside which a journal may be.
        adds: whether this process is the one that adds; the readers of other nodes only note whose run they go on with.
    """
    earlier = state.get("session")
    try:
        if not isinstance(earlier, Mapping):
            raise ValueError("it holds no accounts")  # noqa: TRY004 - one kind of error for whatever is wrong in there
        if not adds:
            session.note_earlier(earlier)
            return
        if not session.resume(earlier):
            return
        run.inherit_known(Inherited(**known) for known in state.get("inherited", ()))
        if run.metric.metric is None:
            run.metric = Accuracy(**state.get("accuracy", {}))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        run.tell_missing(
            f"The energy in the checkpoint {checkpoint} cannot be read ({error}), so what this run used before is missing "
            "from its total. Did lightning_watt write it?"
        )
        return
    losses = _losses(session, run, state, checkpoint)
    session.waste(losses.found)
    for sentence in losses.unknown:
        run.tell_missing(sentence)


def _losses(session: Session, run: RunState, state: Mapping[str, Any], checkpoint: str | None) -> Losses:
    unfinished = state["session"].get("unfinished")
    if unfinished is None:
        return Losses(unknown=["This checkpoint is of an older lightning_watt: what was lost after it is not known."])
    said = state.get("directory")
    places = [run.directory] if run.directory is not None else []
    if isinstance(said, str) and 0 < len(said) < MAX_PATH and "\0" not in said:
        places.append(Path(said))
    if checkpoint is not None:  # a run directory that was moved, and its checkpoints with it
        places += [Path(checkpoint).parent, Path(checkpoint).parent.parent]
    known = [place for place in dict.fromkeys(place_of(place.absolute()) for place in places) if place.is_dir()]
    return find_losses(session.parts.taken, [str(one) for one in unfinished], known, {session.id}, unix_time())
