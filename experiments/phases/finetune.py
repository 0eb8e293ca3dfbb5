"""Finetuning: from weights to a classifier, the whole model or a linear probe."""

from experiments.data.base import need_classes
from experiments.job import Job, Outcome
from experiments.models import build_model, compile_model, model_info
from experiments.modules.classifier import Classifier
from experiments.phases.own import is_own, train_own
from experiments.phases.start import build_published, read_start, seen_by, start_name
from experiments.settings import recipe_of, settings_of
from experiments.weights import CarryWeights, load_weights


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
    weights = read_start(job, "Finetuning needs weights to start from")
    if is_own(job.cfg):
        return train_own(job, "finetune", weights)
    recipe = recipe_of(job.cfg, "finetune")
    data = job.data(recipe, "finetune", **seen_by(job, weights))
    need_classes(data)
    build = build_published if job.cfg.pretrained else lambda job, **options: build_model(job.cfg, **options)
    model = build(job, in_chans=data.in_chans, num_classes=data.num_classes, recipe=recipe)
    if weights is not None:
        load_weights(model, weights, head=False, match=match)
    module = Classifier(model, recipe, data.num_classes, linear_probe=linear_probe)
    info = model_info(job.cfg, model, data, "finetune") | settings_of(job.cfg, "finetune")
    info["start"] = start_name(job, weights)
    compile_model(model, job.cfg)
    module.watt_model_info = info
    module.watt_inherits = [str(weights.run)] if weights is not None and weights.run else []
    return job.fit(module, data, recipe, [CarryWeights(info)])
