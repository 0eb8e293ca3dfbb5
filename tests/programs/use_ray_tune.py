"""A search with Ray Tune: each trial is a Trainer in a process of Ray's."""

from pathlib import Path

import lightning.pytorch as pl
import ray
import torch
from ray import tune


def train(config):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    inputs = torch.randn(200, 8)
    dataset = torch.utils.data.TensorDataset(inputs, (inputs[:, 0] > 0).long())
    loader = torch.utils.data.DataLoader(dataset, batch_size=20)

    class Classifier(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 2)

        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_acc", (self.layer(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=config["lr"])

    trainer = pl.Trainer(
        logger=False, enable_checkpointing=False, max_epochs=2, accelerator="cpu", enable_progress_bar=False
    )
    trainer.fit(Classifier(), loader, loader)
    tune.report({"accuracy": trainer.callback_metrics["val_acc"].item()})


ray.init(num_cpus=1, include_dashboard=False)
tuner = tune.Tuner(
    train,
    param_space={"lr": tune.grid_search([0.01, 0.1, 1.0])},
    run_config=tune.RunConfig(name="search", storage_path=str(Path.cwd() / "trials"), verbose=0),
)
results = tuner.fit()
print("RESULT", sorted((result.config["lr"], result.metrics["accuracy"]) for result in results))
ray.shutdown()
