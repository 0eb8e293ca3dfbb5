"""A search with optuna, as its example for Lightning does it: a Trainer for each trial, and a callback that prunes."""

import lightning.pytorch as pl
import optuna
import torch
from optuna_integration import PyTorchLightningPruningCallback

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(200, 8, generator=generator)
dataset = torch.utils.data.TensorDataset(inputs, (inputs[:, 0] > 0).long())
loader = torch.utils.data.DataLoader(dataset, batch_size=20)


class Classifier(pl.LightningModule):
    def __init__(self, width):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def objective(trial):
    torch.manual_seed(trial.number)
    trainer = pl.Trainer(
        logger=True,
        enable_checkpointing=False,
        max_epochs=3,
        accelerator="cpu",
        devices=1,
        callbacks=[PyTorchLightningPruningCallback(trial, monitor="val_acc")],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(trial.suggest_int("width", 2, 16)), loader, loader)
    return trainer.callback_metrics["val_acc"].item()


study = optuna.create_study(
    direction="maximize",
    sampler=optuna.samplers.RandomSampler(0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
)
study.optimize(objective, n_trials=5)
print("RESULT", [(trial.state.name, trial.value, trial.params) for trial in study.trials])
