"""Semantic segmentation with an encoder and a decoder: a class for each pixel."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torchmetrics.classification import MulticlassJaccardIndex
from typing_extensions import override

from experiments.modules.recipe import Recipe

Batch = tuple[torch.Tensor, torch.Tensor]


class Segmenter(pl.LightningModule):
    """A segmentation model of segmentation_models_pytorch.

    Args:
        model: gives logits (batch, num_classes, height, width); it has an `encoder`.
        recipe: how it is trained.
        num_classes: classes of a pixel, with the background if that is one.
        loss: of logits and masks (batch, height, width).
        ignore_index: the label of pixels that count for nothing.
        untrained: its weights are random, so that a test logs no accuracy: it would be that of chance.
        freeze_encoder: train the decoder only; the encoder stays as it is, in eval mode.

    It logs `train_loss`, `val_loss`, and `val_miou` and `test_miou`: the mean over the classes that are there or were found
    of their intersection over union, in [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        num_classes: int,
        *,
        loss: nn.Module,
        ignore_index: int,
        freeze_encoder: bool = False,
        untrained: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.loss = loss
        self.untrained = untrained
        self.freeze_encoder = freeze_encoder
        self.val_miou = MulticlassJaccardIndex(num_classes, ignore_index=ignore_index)
        self.test_miou = MulticlassJaccardIndex(num_classes, ignore_index=ignore_index)
        if freeze_encoder:
            self.model.encoder.requires_grad_(False)

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)

    @override
    def on_train_epoch_start(self) -> None:
        if self.freeze_encoder:
            self.model.encoder.eval()  # frozen batch norms keep their statistics

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        images, masks = batch
        loss = self.loss(self.model(images), masks)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, masks = batch
        logits = self.model(images)
        self.val_miou(logits, masks)
        self.log("val_loss", self.loss(logits, masks))
        self.log("val_miou", self.val_miou, prog_bar=True)

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        images, masks = batch
        logits = self.model(images)
        if not self.untrained:
            self.test_miou(logits, masks)
            self.log("test_miou", self.test_miou)

    @override
    def configure_optimizers(self) -> dict[str, Any]:
        return self.recipe.configure(self.model, self.trainer)
