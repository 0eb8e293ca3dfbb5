"""A module and data of your own in the study: `python -m experiments.run model=own ...`, from the project's directory.

PYTHONPATH=examples python -m experiments.run model=own model._target_=study_module.Net data._target_=study_module.Rows \
    phase=lifecycle +model.width=32
"""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Net(pl.LightningModule):
    """Predicts whether the sum of eight numbers is above zero. It has no optimizer: it gets the recipe's."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of one batch."""
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy as `test_acc`, which the study's tables show."""
        x, y = batch
        self.log("test_acc", (self.net(x).argmax(1) == y).float().mean())


class Rows(pl.LightningDataModule):
    """Random numbers with their label. The study gives it the recipe's batch size, because it takes one."""

    def __init__(self, batch_size: int, count: int = 2048) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.count = count

    def train_dataloader(self) -> DataLoader:
        """Shuffled rows to train on."""
        return DataLoader(rows(self.count, seed=0), self.batch_size, shuffle=True, drop_last=True)

    def test_dataloader(self) -> DataLoader:
        """Other rows to test on."""
        return DataLoader(rows(512, seed=1), self.batch_size)


def rows(count: int, seed: int) -> TensorDataset:
    """Rows of eight random numbers."""
    x = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x.sum(1) > 0).long())
