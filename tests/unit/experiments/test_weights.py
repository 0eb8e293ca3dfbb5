"""Weights: read back safely, loaded strictly, and what differs is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from experiments.weights import KEY, Weights, WeightsError, head_names, load_weights, read_weights


def vit(**options: int) -> torch.nn.Module:
    return timm.create_model("test_vit", **({"img_size": 32, "patch_size": 8, "num_classes": 3} | options))


def same(a: torch.nn.Module, b: torch.nn.Module, names: set[str]) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in names)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_head_names_are_what_a_headless_model_lacks(name: str) -> None:
    whole = set(timm.create_model(name, num_classes=3).state_dict())
    assert head_names(timm.create_model(name, num_classes=3)) == whole - set(
        timm.create_model(name, num_classes=0).state_dict()
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_is_read_and_loaded(suffix: str, tmp_path: Path) -> None:
    source, target = vit(num_classes=7), vit()
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{name}": value for name, value in source.state_dict().items()}}, file)
    else:
        save_file(source.state_dict(), file)
    load_weights(target, read_weights(file), head=False)
    assert same(source, target, set(target.state_dict()) - head_names(target))


def test_foreign_names_are_matched_by_order() -> None:
    source, target = vit(), vit()
    foreign = {f"layer{index}": value for index, value in enumerate(source.state_dict().values())}
    with pytest.raises(WeightsError, match=r"phase\.match=order"):
        load_weights(target, Weights(foreign, Path("foreign.pth")), head=True)
    load_weights(target, Weights(foreign, Path("foreign.pth")), head=True, match="order")
    assert same(source, target, set(target.state_dict()))
    with pytest.raises(WeightsError, match="holds 2 tensors"):
        load_weights(target, Weights(dict(list(foreign.items())[:2]), Path("foreign.pth")), head=True, match="order")


def test_what_differs_is_named() -> None:
    state = vit(patch_size=4).state_dict()
    state["extra"] = state.pop("norm.weight")
    info = {"model": "mae", "scale": "tiny", "data": "digits"}
    with pytest.raises(WeightsError) as raised:
        load_weights(vit(), Weights(state, Path("last.ckpt"), info=info), head=False)
    said = str(raised.value)
    assert "1 missing (norm.weight)" in said
    assert "1 not in the model (extra)" in said
    assert "patch_embed.proj.weight is (64, 3, 4, 4) in the file and (64, 3, 8, 8) in the model" in said
    assert "model=mae scale=tiny data=digits" in said


def test_nothing_is_executed_by_reading(tmp_path: Path) -> None:
    file = tmp_path / "bad.ckpt"
    file.write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(WeightsError, match="could not be read as weights"):
        read_weights(file)


def test_a_directory_of_several_runs_names_them(tmp_path: Path) -> None:
    run = tmp_path / "pretrain" / "checkpoints"
    run.mkdir(parents=True)
    torch.save({KEY: {"state": {}, "has_head": False, "info": {}}}, run / "last.ckpt")
    with pytest.raises(WeightsError, match=r"give one of them: pretrain/checkpoints/last\.ckpt"):
        read_weights(tmp_path)
    assert read_weights(tmp_path / "pretrain").has_head is False


def test_the_energy_is_where_the_record_is(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    content = {KEY: {"state": {}, "has_head": True, "info": {}}, "callbacks": {"WattCallback": {}}}
    torch.save(content, tmp_path / "checkpoints" / "last.ckpt")
    assert read_weights(tmp_path).run == tmp_path / "checkpoints" / "last.ckpt"
    (tmp_path / "watt.json").write_text("{}")
    assert read_weights(tmp_path / "checkpoints" / "last.ckpt").run == tmp_path


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(WeightsError, match="no tensors"):
        read_weights(tmp_path / "empty.pt")
