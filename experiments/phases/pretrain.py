"""Pretraining from random weights, supervised or not, as the family's paper has it."""

import dataclasses

import pytorch_lightning as pl
import torch
from torch import nn

from experiments.data.base import ImageData, need_classes
from experiments.job import Job, Outcome
from experiments.models import build_model, compile_model, model_info
from experiments.modules.classifier import Classifier
from experiments.modules.recipe import Recipe
from experiments.phases.build import build
from experiments.phases.own import is_own, train_own
from experiments.settings import options_of, recipe_of, settings_of
from experiments.tasks.base import of_pretraining
from experiments.weights import CarryWeights
from experiments.zoo import pretraining_of


def pretrain(job: Job) -> Outcome:
    """Train the family from scratch; for a task whose pretraining is another one, on that one's data.

    BEiT trains its tokenizer first, in the subdirectory `tokenizer`, with a record of its own that this run inherits.

    Args:
        job: the config and the directory.

    Returns:
        Where it all is, and the metrics of the held-out test set.
    """
    if is_own(job.cfg):
        return train_own(job, "pretrain")
    job = dataclasses.replace(job, cfg=of_pretraining(job.cfg))
    recipe = recipe_of(job.cfg, "pretrain")
    pretraining = pretraining_of(job.cfg.model.family)
    supervised = pretraining == "supervised"
    data = job.data(recipe, "pretrain", captions=pretraining == "image and text")
    if supervised:
        need_classes(data)
    model = (
        build(job, data, recipe)
        if supervised
        else build_model(job.cfg, in_chans=data.in_chans, num_classes=0, recipe=recipe)
    )
    info = model_info(job.cfg, model, data, "pretrain") | settings_of(job.cfg, "pretrain")
    tokenizer = None if supervised else _tokenizer(job, model)
    module = (
        Classifier(model, recipe, data.num_classes)
        if supervised
        else self_supervised(job, model, recipe, data, tokenizer and tokenizer[0])
    )
    compile_model(model, job.cfg)
    module.watt_model_info = info
    module.watt_inherits = [str(tokenizer[1].directory)] if tokenizer else []
    outcome = job.fit(module, data, recipe, [CarryWeights(info)])
    if tokenizer is None:
        return outcome
    return dataclasses.replace(outcome, parts={"tokenizer": tokenizer[1]})


def self_supervised(
    job: Job, backbone: nn.Module, recipe: Recipe, data: ImageData, tokenizer: pl.LightningModule | None = None
) -> pl.LightningModule:
    """Build the module that pretrains a backbone without labels.

    Args:
        job: the config.
        backbone: a timm model without a classifier.
        recipe: how it is trained.
        data: the data, for the names of its classes.
        tokenizer: BEiT's trained tokenizer.
    """
    # Imported here: lightly and open_clip take seconds to import, which a supervised run need not spend.
    options = options_of(job.cfg, "pretraining")
    pretraining = pretraining_of(job.cfg.model.family)
    if pretraining == "masked pixels":
        from experiments.modules.mae import MAEPretrain

        return MAEPretrain(backbone, recipe, **options)
    if pretraining == "masked tokens":
        from experiments.modules.beit import BEiTPretrain

        return BEiTPretrain(backbone, recipe, tokenizer=tokenizer, **options)
    from experiments.modules.clip import CLIPPretrain

    return CLIPPretrain(backbone, recipe, class_names=data.class_names, **options)


def _tokenizer(job: Job, backbone: nn.Module) -> tuple[pl.LightningModule, Outcome] | None:
    """Train the tokenizer that BEiT's targets come from; None for families without one."""
    if pretraining_of(job.cfg.model.family) != "masked tokens":
        return None
    from experiments.modules.visual_tokenizer import VisualTokenizer

    own = job.at("tokenizer")
    recipe = recipe_of(job.cfg, "tokenizer")
    tokenizer = VisualTokenizer.for_backbone(backbone, recipe, **options_of(job.cfg, "tokenizer"))
    done = job.finished("tokenizer")
    if done is not None:
        tokenizer.load_state_dict(torch.load(done.checkpoint, "cpu", weights_only=True)["state_dict"])
        return tokenizer, done
    data = own.data(recipe, "pretrain")
    tokenizer.watt_model_info = model_info(job.cfg, tokenizer, data, "tokenizer") | settings_of(job.cfg, "tokenizer")
    return tokenizer, own.fit(tokenizer, data, recipe)
