"""A property of molecules with chemprop: fit, predict and test with one Trainer."""

import numpy as np
import torch
from chemprop import data, featurizers, models, nn
from lightning import pytorch as pl

torch.set_num_threads(1)
pl.seed_everything(0)
molecules = ["C" * (i % 7 + 1) + "O" * (i % 2) + "N" * (i % 3) for i in range(60)]
points = [data.MoleculeDatapoint.from_smi(molecule, np.array([len(molecule) * 0.1])) for molecule in molecules]
dataset = data.MoleculeDataset(points, featurizers.SimpleMoleculeMolGraphFeaturizer())
train = data.build_dataloader(dataset, batch_size=20, num_workers=0, shuffle=True)
validate = data.build_dataloader(dataset, batch_size=20, num_workers=0, shuffle=False)
model = models.MPNN(nn.BondMessagePassing(d_h=32), nn.MeanAggregation(), nn.RegressionFFN(input_dim=32))
trainer = pl.Trainer(max_epochs=3, accelerator="cpu", enable_progress_bar=False)
trainer.fit(model, train, validate)
loss = float(trainer.callback_metrics["val_loss"])
predicted = torch.cat(trainer.predict(model, validate))
tested = trainer.test(model, validate)
print("RESULT", loss, predicted.ravel().tolist(), tested)
