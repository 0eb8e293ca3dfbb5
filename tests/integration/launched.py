"""A training of several ranks that knows nothing of WattCallback: `python -m tests.integration.launched '{...}'`.

Lightning's launchers start the ranks (spawn, fork, notebook), or the tests do, as torchrun would. Keys: `directory`,
`devices`, `strategy`, `limit_s` (then each process prints where it stands, and ends), `fails` (rank 0 fails at the end of a
validation), `ranks_limit_s` (how long this rank's callback waits for the others). Each rank leaves `rank<N>.json`.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

from tests.integration.child import nvml_calls


class Model(BoringModel):
    """Synchronises what it logs over the ranks, in training and validation, as real ones do."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options

    def setup(self, stage: str) -> None:
        faulthandler.dump_traceback_later(self.options["limit_s"], exit=True)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.02)  # so that there is some energy
        self.log("train_acc", (self.global_rank + 1) / 8, on_step=False, on_epoch=True, sync_dist=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_acc", (self.global_rank + 1) / 8, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        if self.options.get("fails") and self.trainer.is_global_zero and not self.trainer.sanity_checking:
            raise ValueError("rank 0 has failed")

    def on_fit_end(self) -> None:
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        answer = {
            "rank": self.global_rank,
            "callbacks": [type(one).__name__ for one in self.trainer.callbacks],
            "step": self.trainer.global_step,
            "metrics": {name: value for name, value in metrics.items() if not name.startswith("watt")},
            "nvml_calls": nvml_calls("nvmlDeviceGetTotalEnergyConsumption"),
        }
        Path(self.options["directory"], f"rank{self.global_rank}.json").write_text(json.dumps(answer))

    def teardown(self, stage: str) -> None:
        faulthandler.cancel_dump_traceback_later()


def main(options: dict[str, Any]) -> None:
    if "ranks_limit_s" in options:
        from lightning_watt.zero_code import EnvironmentCallback

        EnvironmentCallback.ranks_limit_s = options["ranks_limit_s"]
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=options["devices"],
        strategy=options["strategy"],
        max_epochs=2,
        limit_train_batches=6,
        limit_val_batches=2,
        default_root_dir=options["directory"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(options))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
