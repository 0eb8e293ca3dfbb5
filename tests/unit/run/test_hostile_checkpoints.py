"""Checkpoints that somebody prepared: each is a clear error, at once, and nothing in it runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_watt import energy_of
from lightning_watt.accounts.ledger import Ledger
from lightning_watt.errors import RecordError


class Evil:
    """Makes a directory where it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = str(sign)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.sign,)


def zipped(path: Path, data: bytes) -> Path:
    """A torch archive with that pickle in it."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)
    return path


def pickles(sign: Path) -> dict[str, bytes]:
    """Ways to run something out of a pickle."""
    command = f"os.mkdir({str(sign)!r})".encode()
    return {
        "reduce": pickle.dumps(Evil(sign), protocol=2),
        "within the state": pickle.dumps({"callbacks": {"WattCallback": {"session": Evil(sign)}}}, protocol=2),
        "as a key": pickle.dumps({"callbacks": {"WattCallback": 1}, Evil: Evil(sign)}, protocol=2),
        "eval": b"cbuiltins\neval\n(V__import__('os').mkdir('" + str(sign).encode() + b"')\ntR.",
        "global": b"cposix\nmkdir\n(V" + str(sign).encode() + b"\ntR.",
        "allow-listed, then more": b"ctorch.storage\n_load_from_bytes\n(B" + pickle.dumps(Evil(sign)) + b"tR.",
        "cut off": b"cposix\nmkdir\n(V" + str(sign).encode(),
        "command": command,
    }


@pytest.mark.parametrize("kind", pickles(Path("x")))
@pytest.mark.parametrize("container", ["zip", "bare"])
def test_no_pickle_runs_anything(tmp_path, kind, container):
    sign = tmp_path / "it ran"
    raw = pickles(sign)[kind]
    path = tmp_path / "evil.ckpt"
    if container == "zip":
        zipped(path, raw)
    else:
        path.write_bytes(raw)
    with pytest.raises(RecordError, match="without running code"):
        energy_of(path)
    assert not sign.exists()


@pytest.mark.parametrize(
    "entry",
    [
        ["train", 0, {"gpu0": -5_000_000}, 0, 0, 0, 0.0],
        ["train", 0, {"gpu0": 10**400}, 0, 0, 0, 0.0],
        ["train", 0, {"gpu0": float("nan")}, 0, 0, 0, 0.0],
        ["train", 0, {"gpu0": 5}, -(10**12), 0, 0, 0.0],
        ["train", 0, {"gpu0": 5}, 0, -1, 0, 0.0],
        ["train", 0, {"gpu0": 5}, 0, 0, 0, float("nan")],
        ["train", 0, {"gpu0": 5}, 0, 0, 0, -1.0],
        ["mining", 0, {"gpu0": 5}, 0, 0, 0, 0.0],
        ["train", 0, {"gpu0": "much"}, 0, 0, 0, 0.0],
        ["train"],
        "train",
        None,
    ],
)
def test_an_account_that_cannot_be_is_refused_whole(tmp_path, entry):
    ledger = Ledger()
    good = ["validate", 0, {"gpu0": 5}, 0, 0, 0, 0.0]
    with pytest.raises(ValueError, match="not a ledger's state"):
        ledger.absorb([good, entry])
    assert ledger.total_uj == 0
    state = {"session": {"ledger": [good, entry]}, "inherited": []}
    torch.save({"callbacks": {"WattCallback": state}}, tmp_path / "last.ckpt")
    with pytest.raises(RecordError, match="broken"):
        energy_of(tmp_path / "last.ckpt")


@pytest.mark.parametrize("total_j", [-1.0, float("nan"), float("inf"), 10**400])
def test_an_inherited_energy_that_cannot_be_is_refused(tmp_path, total_j):
    state = {"session": {"ledger": []}, "inherited": [{"path": "a", "total_j": total_j}]}
    torch.save({"callbacks": {"WattCallback": state}}, tmp_path / "last.ckpt")
    with pytest.raises(RecordError, match="broken"):
        energy_of(tmp_path / "last.ckpt")
