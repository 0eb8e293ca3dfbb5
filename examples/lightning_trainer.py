"""What a training with a Lightning `Trainer` costs: `python examples/lightning_trainer.py`.

The only line that measures is `WattCallback(...)`. Its table is printed at the end of the training.
"""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_watt import WattCallback, read_record


class Classifier(pl.LightningModule):
    """Predicts whether the sum of eight numbers is above zero."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of one batch."""
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy under one of the usual names, between 0 and 1: `WattCallback` finds it."""
        x, y = batch
        self.log("val_acc", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def loader(count: int, seed: int) -> DataLoader:
    """Batches of 32 rows of random numbers with their label."""
    x = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=32)


def main() -> None:
    """Train for three epochs, then read the run's record."""
    # A training this small uses far less than 1 kWh, so the metric takes its energy in joules.
    # By itself a run of less than a second prints one line and no table.
    watt = WattCallback(sam_unit="J", summary="table")
    trainer = pl.Trainer(max_epochs=3, accelerator="auto", devices=1, callbacks=[watt])
    trainer.fit(Classifier(), loader(2048, seed=0), loader(512, seed=1))

    record = read_record(trainer.log_dir)
    energy = record.energy
    print(f"{energy.total_j:.3g} J ± {energy.uncertainty_j:.2g} J, {energy.provenance}, for accuracy {record.accuracy.last}")


if __name__ == "__main__":
    main()
