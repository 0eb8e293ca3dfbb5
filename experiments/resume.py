"""`resume=`: which fit of a job goes on from a checkpoint, and which ones before it are taken as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from experiments.weights import KEY, WeightsError
from lightning_watt import read_record
from lightning_watt.errors import RecordError

FIT = "fit"  # where a checkpoint says which fit it is of
FITS = ("tokenizer", "pretrain", "finetune")  # in the order in which a job runs them
BEFORE = {"pretrain": Path("tokenizer"), "finetune": Path("../pretrain")}  # where a fit's directory has the fit before it
LAST = Path("checkpoints/last.ckpt")


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
        fit: the fit that goes on.
        checkpoint: what it goes on from.
        finished: the directories of the fits before it, which are taken as they are.
    """

    fit: str
    checkpoint: Path
    finished: Mapping[str, Path]

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


def _unfinished(job: Path) -> Path:
    """The checkpoint of the first fit of a job that did not complete."""
    places = [job / "pretrain" / "tokenizer", job / "tokenizer", job / "pretrain", job / "finetune", job]
    fits = [place for place in places if (place / LAST).is_file()]
    for place in fits:
        if _status(place) != "completed":
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
