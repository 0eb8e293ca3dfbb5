"""Which runs are repetitions of each other."""

from __future__ import annotations

import pytest

from experiments.settings import settings_of
from tests.integration.study import composed

VIT = ("model=vit", "phase=pretrain")


def digest(*overrides: str, phase: str = "pretrain") -> str:
    return settings_of(composed(*VIT, *overrides), phase)["settings"]


@pytest.mark.parametrize(
    "same", ["seed=7", "num_workers=3", "device=cpu", "csv=true", "checkpoint=/elsewhere", "watt=batches"]
)
def test_seed_machine_and_paths_make_no_difference(same: str) -> None:
    assert digest(same) == digest()


@pytest.mark.parametrize(
    "other",
    [
        "recipe.lr=0.5",
        "recipe.epochs=3",
        "trainer.precision=bf16-mixed",
        "trainer.limit_train_batches=3",
        "compile=true",
        "device.count=2",
        "micro_batch=8",
        "scale=small",
        "data=fashion_mnist",
        "data.rgb=true",
        "model.image_size=48",
    ],
)
def test_whatever_the_result_depends_on_does(other: str) -> None:
    assert digest(other) != digest()


def test_a_lifecycles_phase_equals_the_phase_by_itself() -> None:
    alone = settings_of(composed("model=vit", "phase=finetune"), "finetune")
    assert settings_of(composed("model=vit", "phase=lifecycle"), "finetune") == alone
    probe = settings_of(composed("model=vit", "phase=finetune", "phase.linear_probe=true"), "finetune")
    assert probe["settings"] != alone["settings"]
    assert {key: alone[key] for key in ("epochs", "batch_size", "lr")} == {"epochs": 6, "batch_size": 32, "lr": 0.1}
