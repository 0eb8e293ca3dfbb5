"""What a phase trains or tests: the task's model, and the module that learns it."""

import pytorch_lightning as pl
from hydra.utils import instantiate
from torch import nn

from experiments.data.base import ImageData
from experiments.job import Job
from experiments.models import build_model
from experiments.modules.classifier import Classifier
from experiments.modules.recipe import Recipe
from experiments.phases.start import published
from experiments.tasks import CLASSIFY
from experiments.weights import Weights, WeightsError, load_weights


def build(job: Job, data: ImageData, recipe: Recipe | None = None) -> nn.Module:
    """Build the task's model with random weights, for the data's classes."""
    # Imported here: the extra `tasks` is not needed to classify.
    options = {"in_chans": data.in_chans, "num_classes": data.num_classes, "recipe": recipe}
    if job.cfg.task.name == "segment":
        from experiments.tasks.segmentation import build_segmenter

        return build_segmenter(job.cfg, **options)
    if job.cfg.task.name == "action":
        from experiments.tasks.video import build_video

        return build_video(job.cfg, num_classes=data.num_classes)
    return build_model(job.cfg, **options)


def build_from(
    job: Job, data: ImageData, recipe: Recipe | None, weights: Weights | None, *, match: str = "names"
) -> nn.Module:
    """Build the task's model from what the job starts from; its head keeps its fresh values.

    Args:
        job: the config; `pretrained` asks for timm's published weights.
        data: says how many classes the head has.
        recipe: the stochastic depth and further arguments for training.
        weights: what `read_start` gave.
        match: as for `load_weights`.

    Raises:
        WeightsError: if the weights do not fit, or timm's are not to be had.
    """
    if job.cfg.task.name == CLASSIFY and job.cfg.pretrained:
        with published():
            return build_model(job.cfg, in_chans=data.in_chans, num_classes=data.num_classes, recipe=recipe, pretrained=True)
    if job.cfg.task.name == "action" and job.cfg.pretrained:
        raise WeightsError(
            "pretrained=true is for timm's models, and a video model is torchvision's: get its file of weights, whose "
            "address is in torchvision.models.video, and give it as checkpoint=FILE."
        )
    model = build(job, data, recipe)
    if job.cfg.task.name == "segment" and (weights is None or weights.info.get("task", CLASSIFY) == CLASSIFY):
        from experiments.tasks.segmentation import load_encoder

        if weights is not None or job.cfg.pretrained:
            with published():
                load_encoder(job.cfg, model, weights, in_chans=data.in_chans, match=match)
    elif weights is not None:
        load_weights(model, weights, head=False, match=match)
    return model


def learner(
    job: Job, model: nn.Module, recipe: Recipe, data: ImageData, *, linear_probe: bool = False, untrained: bool = False
) -> pl.LightningModule:
    """The module that trains or tests the task's model.

    Args:
        job: the config.
        model: what `build` or `build_from` made.
        recipe: how it is trained.
        data: says how many classes there are, and which label counts for nothing.
        linear_probe: train the classifier only, or of a segmentation model the decoder.
        untrained: its weights are random, so that a test logs no accuracy.
    """
    if job.cfg.task.name == "segment":
        from experiments.modules.segmenter import Segmenter

        loss = instantiate(job.cfg.task.loss, ignore_index=data.ignore_index)
        return Segmenter(
            model,
            recipe,
            data.num_classes,
            loss=loss,
            ignore_index=data.ignore_index,
            freeze_encoder=linear_probe,
            untrained=untrained,
        )
    return Classifier(model, recipe, data.num_classes, linear_probe=linear_probe, untrained=untrained)


def need_task(job: Job, weights: Weights) -> None:
    """Refuse weights of another task, before their names are compared.

    Raises:
        WeightsError: if they are.
    """
    made_for = weights.info.get("task", CLASSIFY if weights.info else job.cfg.task.name)
    if made_for != job.cfg.task.name:
        raise WeightsError(
            f"{weights.file} was made with task={made_for}, and this is task={job.cfg.task.name}. Finetune it first "
            f"(task={job.cfg.task.name} phase=finetune checkpoint={weights.file}), and give that run as the checkpoint."
        )
