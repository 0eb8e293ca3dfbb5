"""What a phase starts from: a run of this project, a file of weights, timm's published ones, or random ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from experiments.data.held_out import VALIDATION
from experiments.job import Job
from experiments.models import input_of
from experiments.report.inputs.run import SCRATCH
from experiments.weights import Weights, WeightsError, read_weights

BUILT = "what its constructor makes"
"""What a module of the user's own starts from if from nothing else: its constructor may load weights, and may not."""


def read_start(job: Job, purpose: str) -> Weights | None:
    """Read what the job starts from.

    Args:
        job: the config; `checkpoint` or `pretrained` says what it starts from.
        purpose: what the weights are needed for, as the error says it.

    Returns:
        The weights of the checkpoint; None if timm brings them, or nothing is wanted.

    Raises:
        WeightsError: if nothing is named, or two things are, or what is named cannot be read; or it has been trained on what
            is to be tested on.
    """
    if job.start is not None and job.cfg.pretrained:
        raise WeightsError("checkpoint= and pretrained=true name two starts; give one of them.")
    if job.start is None and not job.cfg.pretrained:
        raise WeightsError(
            f"{purpose}: checkpoint=RUN_DIRECTORY (or a .ckpt, or a file of weights), pretrained=true for timm's published "
            f"ones, or checkpoint={SCRATCH} for random weights."
        )
    if job.start in (None, SCRATCH):
        return None
    weights = read_weights(job.start)
    seed = weights.info.get("seed", job.cfg.seed)
    if job.cfg.test_on == VALIDATION and seed != job.cfg.seed:
        raise WeightsError(
            f"The weights in {weights.file} were trained with seed={seed}, whose validation part is not that of "
            f"seed={job.cfg.seed}: they have seen pictures that test_on={VALIDATION} would test on. Give seed={seed}."
        )
    return weights


def start_name(job: Job, weights: Weights | None) -> str:
    """Say what the job starts from; where that is a run of this project, its lineage says more."""
    if weights is None:
        return "timm's weights" if job.cfg.pretrained else SCRATCH
    return "another run" if weights.run else f"the file {weights.file.name}"


def seen_by(job: Job, weights: Weights | None) -> Mapping[str, Any]:
    """How the weights see an image, as arguments of the data module: as they were trained.

    Weights of this project say it themselves. Timm says it for its own, and for a file of the same model.
    """
    if weights is None:
        return input_of(job.cfg) if job.cfg.pretrained else {}
    if weights.info:
        return weights.info.get("input", {})
    return input_of(job.cfg)


@contextmanager
def published() -> Iterator[None]:
    """While a model is built with timm's published weights: say it in a sentence if there are none, or they cannot be had.

    Raises:
        WeightsError: if so.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"timm's published weights could not be had ({type(error).__name__}: {error}). They come over the network, "
            "exist for most of timm's models but not for the study's tiny ones, and are kept in the Hugging Face cache; "
            "offline, give a file as checkpoint=FILE."
        ) from error
