"""Faulty pictures with anomalib: its Engine fits a GANomaly and tests it."""

from pathlib import Path

import lightning
import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Ganomaly
from PIL import Image

torch.set_num_threads(1)
lightning.seed_everything(0)
generator = np.random.default_rng(0)
for kind, count in (("train/good", 6), ("test/good", 4), ("test/bad", 4)):
    folder = Path("pictures", kind)
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
pictures = Folder(
    name="pictures",
    root="pictures",
    normal_dir="train/good",
    abnormal_dir="test/bad",
    normal_test_dir="test/good",
    train_batch_size=2,
    eval_batch_size=2,
    num_workers=0,
)
engine = Engine(max_epochs=1, accelerator="cpu", devices=1, default_root_dir="results")
model = Ganomaly(batch_size=2, n_features=8, latent_vec_size=8)
engine.fit(model, datamodule=pictures)
print("RESULT", engine.test(model, datamodule=pictures))
