"""Supervised image classification with a timm model: from scratch, finetuned whole, or a linear probe."""

from typing import Any

import pytorch_lightning as pl
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from experiments.modules.recipe import Recipe
from experiments.weights import head_of

TOP = 5  # a second accuracy: whether the true class is among so many


class Classifier(pl.LightningModule):
    """A timm model with a classifier, trained by cross entropy.

    Args:
        model: a timm model that gives (batch, num_classes) logits.
        recipe: how it is trained.
        num_classes: how many classes there are.
        linear_probe: train the classifier only; the rest stays as it is, in eval mode.
        untrained: its weights are random, so that a test logs no accuracy: it would be that of chance.

    It logs `train_loss`, `val_loss`, `val_acc` and `test_acc`, which are top-1, and `test_top5` if there are more than five
    classes; accuracies are in [0, 1].
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, num_classes: int, *, linear_probe: bool = False, untrained: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.linear_probe = linear_probe
        self.untrained = untrained
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_top5 = MulticlassAccuracy(num_classes, top_k=TOP, average="micro") if num_classes > TOP else None
        self.mixup = self._mixup(num_classes)
        if linear_probe:
            self.model.requires_grad_(False)
            head_of(self.model).requires_grad_(True)

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)

    @override
    def on_train_epoch_start(self) -> None:
        if self.linear_probe:
            self.model.eval()  # frozen batch norms keep their statistics

    @override
    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        if self.mixup is not None:
            images, targets = self.mixup(images, labels)
            loss = SoftTargetCrossEntropy()(self.model(images), targets)
        else:
            loss = F.cross_entropy(self.model(images), labels, label_smoothing=self.recipe.label_smoothing)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    @override
    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.model(images)
        self.val_accuracy(logits, labels)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.log("val_acc", self.val_accuracy, prog_bar=True)

    @override
    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.model(images)
        if self.untrained:
            return
        self.test_accuracy(logits, labels)
        self.log("test_acc", self.test_accuracy)
        if self.test_top5 is not None:
            self.test_top5(logits, labels)
            self.log("test_top5", self.test_top5)

    @override
    def configure_optimizers(self) -> dict[str, Any]:
        return self.recipe.configure(self.model, self.trainer)

    def _mixup(self, num_classes: int) -> Mixup | None:
        """Timm's mixup and CutMix if the recipe has either."""
        if not (self.recipe.mixup or self.recipe.cutmix):
            return None
        return Mixup(
            mixup_alpha=self.recipe.mixup,
            cutmix_alpha=self.recipe.cutmix,
            label_smoothing=self.recipe.label_smoothing,
            num_classes=num_classes,
        )
