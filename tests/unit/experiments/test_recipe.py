"""The recipe: its schedule against closed forms, its parameter groups, what it refuses."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.scheduler import create_scheduler_v2

from experiments.modules.recipe import Recipe


def trainer(steps: int = 100, epochs: int = 10, accumulate: int = 1, ranks: int = 1) -> SimpleNamespace:
    """What a recipe reads of a Trainer."""
    return SimpleNamespace(
        estimated_stepping_batches=steps, max_epochs=epochs, accumulate_grad_batches=accumulate, world_size=ranks
    )


def rates(recipe: Recipe, steps: int = 100, epochs: int = 10) -> list[float]:
    """The learning rate of each step of a run."""
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    made = recipe.configure([parameter], trainer(steps, epochs))
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_cosine_after_warmup_is_the_closed_form() -> None:
    seen = rates(Recipe(lr=0.5, min_lr=0.1, warmup_epochs=2))
    assert seen[:20] == pytest.approx([0.5 * max(1e-3, step / 20) for step in range(20)])
    assert seen[20:] == pytest.approx([0.1 + 0.4 * 0.5 * (1 + math.cos(math.pi * i / 80)) for i in range(80)])


def test_step_schedule_falls_by_ten_twice() -> None:
    seen = rates(Recipe(lr=1.0, schedule="step"), steps=90)
    assert seen == pytest.approx([1.0] * 30 + [0.1] * 30 + [0.01] * 30)


def test_the_cosine_is_timms() -> None:
    """Which needs Lightning's hook for foreign schedulers in every module, the user's own too, so it is not taken."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.5)
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=8, warmup_epochs=2, warmup_prefix=True, warmup_lr=0.0, min_lr=0.1,
        step_on_epochs=False, updates_per_epoch=10,
    )  # fmt: skip
    seen = []
    for step in range(100):
        scheduler.step_update(step)
        seen.append(optimizer.param_groups[0]["lr"])
    assert rates(Recipe(lr=0.5, min_lr=0.1, warmup_epochs=2)) == pytest.approx(seen, abs=1e-3 * 0.5)


def test_exponential_schedule_falls_by_its_rate() -> None:
    seen = rates(Recipe(lr=1.0, schedule="exponential", decay_rate=0.97, decay_epochs=2.4))
    assert seen[24] == pytest.approx(0.97)
    assert seen[48] == pytest.approx(0.97**2)


def test_rate_grows_with_the_batch_and_not_with_the_devices() -> None:
    recipe = Recipe(optimizer="sgd", lr=0.1, lr_batch=256, batch_size=512)
    made = recipe.configure([torch.nn.Parameter(torch.zeros(2))], trainer(accumulate=2, ranks=4))
    assert made["optimizer"].param_groups[0]["initial_lr"] == pytest.approx(0.2)


def test_layer_decay_slows_the_lower_layers() -> None:
    model = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=3)
    optimizer = Recipe(lr=1.0, layer_decay=0.5).configure(model, trainer())["optimizer"]
    rate = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(model.head.weight)] == pytest.approx(1.0)
    blocks = [rate[id(block.attn.qkv.weight)] for block in model.blocks]
    assert [below / above for below, above in itertools.pairwise(blocks)] == pytest.approx([0.5] * 5)


def test_biases_and_norms_are_not_decayed() -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    optimizer = Recipe(optimizer="sgd", weight_decay=0.1).configure(model, trainer())["optimizer"]
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert all((id(p) in decayed) == (p.ndim > 1) for p in model.parameters())


def test_betas_and_epsilon_reach_the_optimiser() -> None:
    made = Recipe(betas=[0.9, 0.95], eps=1e-6).configure([torch.nn.Parameter(torch.zeros(2))], trainer())
    assert made["optimizer"].defaults["betas"] == (0.9, 0.95)
    assert made["optimizer"].defaults["eps"] == 1e-6


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", True), ("momentum", False)])
def test_sgd_is_nesterovs_and_momentum_the_classical(name: str, nesterov: bool) -> None:
    made = Recipe(optimizer=name, momentum=0.9).configure([torch.nn.Parameter(torch.zeros(2))], trainer())
    assert type(made["optimizer"]) is torch.optim.SGD
    assert made["optimizer"].defaults["nesterov"] is nesterov
    assert made["optimizer"].defaults["momentum"] == 0.9


@pytest.mark.parametrize("wrong", [{"schedule": "polynomial"}, {"lr": 0.0}, {"epochs": 0}, {"batch_size": 0}])
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)
