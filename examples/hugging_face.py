"""Energy of a Hugging Face `Trainer`, epoch by epoch: pip install "transformers[torch]"; python examples/hugging_face.py.

The Trainer calls its callbacks when an epoch begins and ends. They call `begin` and `end` of an `EnergyMeter`'s window.
"""

import tempfile
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from lightning_watt import EnergyMeter


class EnergyCallback(TrainerCallback):
    """One window for the whole training, and one for each epoch; prints them at the end."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to measure."""
        self.meter = EnergyMeter().start()
        self.epochs: list[Any] = []

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the epoch's window."""
        self.epochs.append(self.meter.window(f"epoch {len(self.epochs)}"))
        self.epochs[-1].begin()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close it; this does not wait."""
        self.epochs[-1].end()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, and say what was used."""
        self.meter.stop()
        for window in self.epochs:
            print(f"{window.name}: {window.joules:.3g} J ± {window.uncertainty_j:.2g} J in {window.seconds:.2f} s")


class Classifier(torch.nn.Module):
    """A model in the form that the Trainer wants: it returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss and the logits of one batch."""
        logits = self.net(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


if __name__ == "__main__":
    rows = [{"x": x, "labels": int(x.sum() > 0)} for x in torch.randn(2048, 8)]
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(directory, num_train_epochs=3, report_to="none", disable_tqdm=True)
        Trainer(Classifier(), arguments, train_dataset=rows, callbacks=[EnergyCallback()]).train()
