"""Inference: accuracy on the test set, and what an image costs, measured until the measurement's edges weigh little."""

import pytorch_lightning as pl
from torch import nn

from experiments.data.base import ImageData, need_classes
from experiments.job import Job, Outcome
from experiments.models import build_model, compile_model, model_info, size_of
from experiments.modules.recipe import Recipe
from experiments.modules.zero_shot import ZeroShotClassifier
from experiments.phases.build import build, build_from, learner, need_task
from experiments.phases.measure import Goal, Repeated, Stopwatch, meter_for, repeat, test_once
from experiments.phases.own import is_own, own_module
from experiments.phases.pretrain import self_supervised
from experiments.phases.start import BUILT, read_start, seen_by, start_name
from experiments.report.inputs.run import SCRATCH
from experiments.settings import settings_of
from experiments.tasks import CLASSIFY
from experiments.tasks.base import task_of
from experiments.weights import Weights, WeightsError, load_weights, load_whole
from experiments.zoo import pretraining_of, published_config
from lightning_watt.units import wh


def inference(
    job: Job, *, boundary_share: float = 0.02, min_seconds: float = 5.0, max_seconds: float = 60.0, match: str = "names"
) -> Outcome:
    """Test a model with a classifier, or CLIP's towers by the names of the classes, and measure joules per image.

    The test set is gone through again, more often, until the energy at the two edges of the measurement, which may belong to
    what came before or after, is a small share of the whole, or the time is up.

    Args:
        job: the config and the directory; `checkpoint` is a run with a classifier, a file of weights, or "scratch" for
            random ones, which tell no classes apart but cost the same; or `pretrained` asks for timm's published weights.
        boundary_share: the edges' largest share of the measured energy.
        min_seconds: the shortest that a measurement may be: power sensors show only part of what happens, and 5 s is what
            Yang et al. (arXiv 2312.02741) found to bring errors from 39 % down to 5 %.
        max_seconds: the longest that all repetitions may take together; the first pass is always made.
        match: "names", or "order" for files with other names for the same layers.

    Returns:
        `test_acc` and, with more than five classes, `test_top5`, or `test_miou` of a segmentation, all in [0, 1], unless the
        weights are random; `joules_per_image`, `wh_per_1000_images`, `images_per_second` (of action recognition: `clip` in
        place of `image`), `joules_per_gflop`, `boundary_share` and `passes`. Its note says what ended the repetitions.
        Without energy (watt=none) only what needs none.

    Raises:
        WeightsError: if there are no weights, they have no classifier or one for other classes, or they do not fit.
    """
    weights = read_start(job, "Inference needs a trained model")
    module, data = (_own if is_own(job.cfg) else _module)(job, weights, match)
    info = module.watt_model_info
    start = info["start"] = BUILT if is_own(job.cfg) and weights is None else start_name(job, weights)
    module.watt_inherits = [str(weights.run)] if weights is not None and weights.run else []
    stopwatch = Stopwatch()
    trainer = job.trainer(callbacks=[stopwatch])
    job.log_config(trainer, module)
    loader, sample = data.test_dataloader(), task_of(job.cfg).sample
    if not job.cfg.watt:
        metrics = test_once(trainer, module, Repeated(loader, 1))
        metrics |= {f"{sample}s_per_second": stopwatch.images / stopwatch.seconds}
        return Outcome(job.directory, None, metrics, model=info.get("timm_name", ""), start=start)
    with meter_for(job) as meter:
        stopwatch.meter = meter
        goal = Goal(boundary_share, min_seconds, max_seconds)
        metrics, passes, note = repeat(trainer, module, loader, stopwatch, goal)
        metrics |= _per_sample(stopwatch, sample, info.get("gflops_per_sample")) | {"passes": passes}
    return Outcome(job.directory, None, metrics, note=note, model=info.get("timm_name", ""), start=start)


def _module(job: Job, weights: Weights | None, match: str) -> tuple[pl.LightningModule, ImageData]:
    """Build what is tested, and the data as its weights see it."""
    data = job.data(**seen_by(job, weights))
    need_classes(data)
    model = _classifier(job, weights, data, match)
    info = model_info(job.cfg, model, data, "inference") | settings_of(job.cfg, "inference")
    compile_model(model, job.cfg)
    module = learner(job, model, Recipe(), data, untrained=job.start == SCRATCH)
    module.watt_model_info = info
    return module, data


def _own(job: Job, weights: Weights | None, match: str) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """Build a module of the user's own, and its data."""
    data = job.data()
    module = own_module(job, data, "inference")
    if weights is not None:
        load_whole(module, weights)
    return module, data


def _classifier(job: Job, weights: Weights | None, data: ImageData, match: str) -> nn.Module:
    """Build what the weights are of: a model with its classifier, or CLIP's towers with the classes' names as classifier."""
    if weights is None:
        return _without_checkpoint(job, data)
    need_task(job, weights)
    if job.cfg.task.name != CLASSIFY:
        model = build(job, data)
        load_weights(model, weights, head=True, match=match)
        return model
    pretraining = pretraining_of(job.cfg.model.family)
    zero_shot = weights.has_head is False and pretraining == "image and text"
    model = build_model(job.cfg, in_chans=data.in_chans, num_classes=0 if zero_shot else data.num_classes)
    load_weights(model, weights, head=not zero_shot, match=match)
    if not zero_shot:
        return model
    clip = self_supervised(job, model, Recipe(), data)
    clip.load_state_dict(weights.module)
    return ZeroShotClassifier(clip, data.class_names)


def _without_checkpoint(job: Job, data: ImageData) -> nn.Module:
    """Build a model with timm's published weights, or with random ones."""
    if not job.cfg.pretrained:
        return build(job, data)
    if job.cfg.task.name != CLASSIFY:
        raise WeightsError(
            f"timm has no published weights for task={job.cfg.task.name}. Finetune its classifier's first (phase=finetune "
            f"pretrained=true), or measure the energy alone (checkpoint={SCRATCH})."
        )
    name = size_of(job.cfg).timm_name
    known = published_config(name).num_classes
    if known != data.num_classes:
        raise WeightsError(
            f"timm's weights for {name} tell {known} classes apart, and data={data.name} has {data.num_classes}, so their "
            "accuracy would say nothing. Give the data they were trained for (data=image_folder data.root=IMAGENET), "
            f"finetune them first (phase=finetune pretrained=true), or measure the energy alone (checkpoint={SCRATCH})."
        )
    return build_from(job, data, None, None)


def _per_sample(stopwatch: Stopwatch, sample: str, gflops: float | None) -> dict[str, float]:
    """The last measurement per image, or whatever a sample is."""
    joules = stopwatch.joules / stopwatch.images
    per_gflop = {"joules_per_gflop": joules / gflops} if gflops else {}
    return {
        f"joules_per_{sample}": joules,
        f"wh_per_1000_{sample}s": wh(1000 * joules),
        f"{sample}s_per_second": stopwatch.images / stopwatch.seconds,
        **per_gflop,
        "boundary_share": stopwatch.share,
    }
