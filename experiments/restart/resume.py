"""Which fit of a job goes on from a checkpoint, and which ones before it are taken as they are."""

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from experiments.weights import KEY, WeightsError
from lightning_watt import read_record
from lightning_watt.errors import RecordError

FIT = "fit"  # where a checkpoint says which fit it is of
FITS = ("tokenizer", "pretrain", "finetune")  # in the order in which a job runs them
BEFORE = {"pretrain": Path("tokenizer"), "finetune": Path("../pretrain")}  # where a fit's directory has the fit before it
LAST = Path("checkpoints/last.ckpt")
DONE = "fit.json"  # what a fit that is complete measured
log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint in one step, so that a process that is killed while it saves leaves the one before.

    Lightning writes to the temporary directory, which may be on another disk, and copies from there.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        part = f"{path}.part"
        super().save_checkpoint(checkpoint, part, storage_options)
        os.replace(part, path)


class NameFit(Callback):
    """Says in every checkpoint which fit it is of, so that a resume goes into no other.

    Args:
        fit: one of `FITS`.
    """

    def __init__(self, fit: str) -> None:
        self.fit = fit

    @override
    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[FIT] = self.fit


@dataclass(frozen=True)
class Resume:
    """An interrupted job, as another one goes on with it.

    Args:
        fit: the fit that goes on; empty if all are complete.
        checkpoint: what it goes on from; None: from its beginning.
        finished: the directories of the fits before it, which are taken as they are.
    """

    fit: str = ""
    checkpoint: Path | None = None
    finished: Mapping[str, Path] = field(default_factory=dict)

    def checkpoint_of(self, fit: str) -> Path | None:
        """What this fit goes on from; None if it begins at its beginning."""
        return self.checkpoint if fit == self.fit else None

    def check(self, fits: list[str]) -> None:
        """Refuse a checkpoint of a fit that the job does not have.

        Raises:
            WeightsError: it has none of that name.
        """
        if self.fit not in fits:
            raise WeightsError(
                f"resume={self.checkpoint} is a checkpoint of a {self.fit} fit, and this job has "
                f"{' and '.join(fits) or 'no fit'}. Give a checkpoint of one of its own, or phase={self.fit}."
            )


def read_resume(path: str | Path | None) -> Resume | None:
    """Find out what a checkpoint, or the directory of an interrupted job, is to be gone on with.

    Args:
        path: a checkpoint; or the directory of a run or of a lifecycle, whose first fit that did not complete goes on from
            its `last.ckpt`; None: nothing is resumed.

    Raises:
        WeightsError: there is nothing to go on from, or what came before is missing.
    """
    if path is None:
        return None
    checkpoint = Path(path) if Path(path).is_file() else _unfinished(Path(path))
    fit = _fit_of(checkpoint)
    finished: dict[str, Path] = {}
    directory, later = checkpoint.parent.parent, fit
    while later in BEFORE:
        directory = directory / BEFORE[later]
        earlier = "tokenizer" if later == "pretrain" else "pretrain"
        if (directory / LAST).is_file():
            _check_complete(directory, checkpoint)
            finished[earlier] = directory.resolve()
        later = earlier
    return Resume(fit, checkpoint, finished)


def resume_in(directory: Path, fits: list[str], given: Resume | None = None) -> Resume | None:
    """Find out how far an earlier start of this very job came.

    Args:
        directory: the job's directory.
        fits: the fits that the job consists of, in order.
        given: what `resume=` says; fits that are complete there need not be here.

    Returns:
        What is to be gone on with; `given` if the earlier start left nothing.
    """
    finished = dict(given.finished) if given else {}
    for fit in fits:
        place = _place(directory, fit, fits)
        if fit in finished:
            continue
        if (place / LAST).is_file() and is_done(place):
            finished[fit] = place.resolve()
            continue
        checkpoint = place / LAST
        try:
            if checkpoint.is_file() and _fit_of(checkpoint) == fit:
                return Resume(fit, checkpoint, finished)
        except WeightsError as error:
            log.warning("%s The %s fit begins anew.", error, fit)
        return given if given and given.fit == fit else Resume(fit, None, finished)
    return Resume(finished=finished)


def note_done(directory: Path, fit: str, metrics: Mapping[str, float]) -> None:
    """Note that a fit is complete, and what it measured."""
    part = directory / f"{DONE}.part"
    part.write_text(json.dumps({"fit": fit, "metrics": {name: float(value) for name, value in metrics.items()}}) + "\n")
    os.replace(part, directory / DONE)


def is_done(directory: Path) -> bool:
    """Whether the fit of a directory is complete, its test included."""
    return (directory / DONE).is_file() or _status(directory) == "completed"


def metrics_of(directory: Path) -> dict[str, float]:
    """What a complete fit measured; nothing if that was not noted."""
    with suppress(OSError, ValueError):
        return dict(json.loads((directory / DONE).read_text())["metrics"])
    return {}


def _place(directory: Path, fit: str, fits: list[str]) -> Path:
    """The directory of a fit within its job's."""
    of_phase = directory if fits[-1] != "finetune" or len(fits) == 1 else directory / fit
    if fit == "tokenizer":
        of_phase = directory / "pretrain" if fits[-1] == "finetune" else directory
        return of_phase / fit
    return of_phase


def _unfinished(job: Path) -> Path:
    """The checkpoint of the first fit of a job that did not complete."""
    places = [job / "pretrain" / "tokenizer", job / "tokenizer", job / "pretrain", job / "finetune", job]
    fits = [place for place in places if (place / LAST).is_file()]
    for place in fits:
        if not is_done(place):
            return place / LAST
    if not fits:
        raise WeightsError(f"resume={job}: there is no {LAST} there to go on from. Give a checkpoint, or a job's directory.")
    raise WeightsError(
        f"resume={job}: all its trainings are complete. To train one for longer, name its checkpoint: "
        f"resume={fits[-1] / LAST} recipe.epochs=N."
    )


def _fit_of(checkpoint: Path) -> str:
    """Which fit a checkpoint is of."""
    try:
        content = torch.load(checkpoint, "cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise WeightsError(
            f"resume={checkpoint} cannot be read as a checkpoint ({type(error).__name__}: {error})."
        ) from error
    info = content.get(KEY, {}).get("info", {})  # of checkpoints that do not name their fit
    fit = content.get(FIT) or info.get("phase")
    if fit not in FITS:
        raise WeightsError(f"resume={checkpoint} does not say which phase it is of, so it was not made by this study.")
    return fit


def _check_complete(directory: Path, checkpoint: Path) -> None:
    status = _status(directory)
    if status not in ("completed", None):
        raise WeightsError(
            f"resume={checkpoint} comes after {directory.resolve()}, whose training is {status}. Go on with that first: "
            f"resume={directory.resolve() / LAST}."
        )


def _status(directory: Path) -> str | None:
    """How a fit ended; None if it has no record (watt=none)."""
    try:
        return read_record(directory).status
    except RecordError:
        return None
