"""Finetuning: from weights to the task's model, the whole of it or a linear probe."""

from experiments.data.base import need_classes
from experiments.job import Job, Outcome
from experiments.models import compile_model, model_info
from experiments.phases.build import build_from, learner
from experiments.phases.own import is_own, train_own
from experiments.phases.start import read_start, seen_by, start_name
from experiments.settings import recipe_of, settings_of
from experiments.weights import CarryWeights


def finetune(job: Job, *, linear_probe: bool = False, match: str = "names") -> Outcome:
    """Train the task's model on top of weights that are there already: a classifier, or a decoder with its encoder.

    Args:
        job: the config and the directory; `checkpoint` is a run directory, a checkpoint, a file of weights, or
            "scratch" for the same training from random weights, to compare with.
        linear_probe: train the classifier only, or of a segmentation model the decoder.
        match: "names", or "order" for files with other names for the same layers.

    Returns:
        Where it all is, and the metrics of the held-out test set.

    Raises:
        WeightsError: if there are no weights to start from, or they do not fit.
    """
    weights = read_start(job, "Finetuning needs weights to start from")
    if is_own(job.cfg):
        return train_own(job, "finetune", weights)
    recipe = recipe_of(job.cfg, "finetune")
    data = job.data(recipe, "finetune", **seen_by(job, weights))
    need_classes(data)
    model = build_from(job, data, recipe, weights, match=match)
    module = learner(job, model, recipe, data, linear_probe=linear_probe)
    info = model_info(job.cfg, model, data, "finetune") | settings_of(job.cfg, "finetune")
    info["start"] = start_name(job, weights)
    compile_model(model, job.cfg)
    module.watt_model_info = info
    module.watt_inherits = [str(weights.run)] if weights is not None and weights.run else []
    return job.fit(module, data, recipe, [CarryWeights(info)])
