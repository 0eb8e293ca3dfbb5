"""The callback from the command line, with a LightningCLI (`pip install "jsonargparse[signatures]"`).

    python examples/lightning_cli.py fit --trainer.max_epochs 2 \
        --trainer.callbacks+=lightning_watt.WattCallback --trainer.callbacks.sam_unit=J \
        --trainer.callbacks.summary=table

In a YAML file the same is:

    trainer:
      callbacks:
        - class_path: lightning_watt.WattCallback
          init_args: {sam_unit: J}
"""

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset


class Classifier(pl.LightningModule):
    """Predicts whether the sum of eight numbers is above zero.

    Args:
        lr: the learning rate.
    """

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.lr = lr
        self.net = torch.nn.Linear(8, 2)

    def train_dataloader(self) -> DataLoader:
        """Sixteen batches of 64 rows."""
        x = torch.randn(1024, 8, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=64)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of one batch; the logged accuracy is what SAM uses."""
        x, y = batch
        logits = self.net(x)
        self.log("train_acc", (logits.argmax(1) == y).float().mean())
        return torch.nn.functional.cross_entropy(logits, y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


if __name__ == "__main__":
    LightningCLI(Classifier, seed_everything_default=0)
