"""Finetuning: from weights to a classifier, the whole model or a linear probe."""

from typing import Any

from timm.data import resolve_model_data_config
from torch import nn

from experiments.job import Job, Outcome
from experiments.models import build_model, compile_model, model_info
from experiments.modules.classifier import Classifier
from experiments.settings import recipe_of, settings_of
from experiments.weights import CarryWeights, Weights, WeightsError, load_weights, read_weights

SCRATCH = "scratch"


def finetune(job: Job, *, linear_probe: bool = False, match: str = "names") -> Outcome:
    """Train a classifier on top of weights that are there already.

    Args:
        job: the config and the directory; `checkpoint` is a run directory, a checkpoint, a file of weights, or
            "scratch" for the same training from random weights, to compare with.
        linear_probe: train the classifier only.
        match: "names", or "order" for files with other names for the same layers.

    Returns:
        Where it all is, and the metrics of the held-out test set.

    Raises:
        WeightsError: if there are no weights to start from, or they do not fit.
    """
    recipe = recipe_of(job.cfg, "finetune")
    weights = _start(job)
    data = job.data(recipe, "finetune", **_normalisation(job))
    model = _build(job, data.in_chans, data.num_classes, recipe.drop_path)
    if weights is not None:
        load_weights(model, weights, head=False, match=match)
    module = Classifier(model, recipe, data.num_classes, linear_probe=linear_probe)
    info = model_info(job.cfg, model, data, "finetune") | settings_of(job.cfg, "finetune")
    info["start"] = _start_name(job, weights)
    compile_model(model, job.cfg)
    module.watt_model_info = info
    module.watt_inherits = [str(weights.run)] if weights is not None and weights.run else []
    return job.fit(module, data, recipe, [CarryWeights(info)])


def _start(job: Job) -> Weights | None:
    """Read what the job starts from; None if timm brings it, or nothing is wanted."""
    if job.start is not None and job.cfg.pretrained:
        raise WeightsError("checkpoint= and pretrained=true name two starts; give one of them.")
    if job.start is None and not job.cfg.pretrained:
        raise WeightsError(
            "Finetuning needs weights to start from: checkpoint=RUN_DIRECTORY (or a .ckpt, or a file of weights), "
            f"pretrained=true for timm's published ones, or checkpoint={SCRATCH} to train from random weights."
        )
    return None if job.start in (None, SCRATCH) else read_weights(job.start)


def _start_name(job: Job, weights: Weights | None) -> str:
    """Say what the training starts from; where that is a run of this project, its lineage says more."""
    if weights is None:
        return "timm's weights" if job.cfg.pretrained else SCRATCH
    return "another run" if weights.run else f"the file {weights.file.name}"


def _build(job: Job, in_chans: int, num_classes: int, drop_path: float) -> nn.Module:
    """Build the model, with timm's published weights if these are wanted."""
    options: dict[str, Any] = {"in_chans": in_chans, "num_classes": num_classes, "drop_path": drop_path}
    if not job.cfg.pretrained:
        return build_model(job.cfg, **options)
    try:
        return build_model(job.cfg, pretrained=True, **options)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"timm's published weights could not be had ({type(error).__name__}: {error}). They come over the network, "
            "exist only for published sizes (scale=paper), and are kept in the Hugging Face cache; offline, give a file "
            "as checkpoint=FILE."
        ) from error


def _normalisation(job: Job) -> dict[str, Any]:
    """The mean and deviation that timm's published weights were trained with."""
    if not job.cfg.pretrained:
        return {}
    config = resolve_model_data_config(build_model(job.cfg, in_chans=3, num_classes=0))
    return {"mean": config["mean"], "std": config["std"]}
