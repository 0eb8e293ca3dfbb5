"""One rank of a visual tokenizer's training, one step of it: `python -m tests.integration.tokenizer_ranks FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from experiments.modules.recipe import Recipe
from experiments.modules.visual_tokenizer import VisualTokenizer

IMAGES = 8
"""Of each rank; 16 cells each."""


def main(file: Path) -> None:
    pl.seed_everything(0)
    tokenizer = VisualTokenizer(Recipe(), patch_size=8, codes=4, width=8, code_width=4, memory=0.0)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(tokenizer, DataLoader(TensorDataset(torch.randn(2 * IMAGES, 3, 32, 32)), batch_size=IMAGES))
    file.write_text(json.dumps({"members": tokenizer.members.tolist()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
