"""What a measured training does to the world outside: it writes its files and its logs, and nothing else.

Hostile files are in tests/unit/test_hostile_files.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_watt import read_record
from lightning_watt.testing import Board, Lab, constant
from tests.integration.tiny import QUIET, ROOT, Steady, loader, module, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
LOCAL = ("127.0.0.1", "localhost", "::1")


@pytest.mark.parametrize("source", ["boards", "estimate"])
def test_no_connection_no_process_no_file_elsewhere(tmp_path, source):
    lab = Lab([Board(power=constant(100))])
    env = (lab.env() if source == "boards" else dict(os.environ)) | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.integration.audited", str(tmp_path), source]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "audit.json").read_text())
    assert "subprocess.Popen" in found["control"]  # what it watches for, it sees
    written = {path for event, path in found["seen"] if event == "open"}
    names = {Path(path).name for path in written}
    assert {"watt.jsonl", "watt_batches.csv"} <= names
    assert all(Path(path).is_relative_to(tmp_path) or path == "/dev/null" for path in written if not path.isdigit()), written
    loaded = {path for event, path in found["seen"] if event == "ctypes.dlopen"}
    assert all("libnvidia-ml" in path for path in loaded), loaded
    others = [entry for entry in found["seen"] if entry[0] not in ("open", "ctypes.dlopen")]
    assert others == []


def test_a_resume_from_a_checkpoint_whose_energy_is_hostile_goes_on(ptl, tmp_path, words):
    """Lightning reads the checkpoint; what it says of the energy is told to be none, and is not added."""
    trained = trainer(ptl, tmp_path / "1", watt(gpus="auto", sources=[Steady()]), max_epochs=1)
    trained.fit(module(ptl), loader(3), loader(1))
    path = tmp_path / "one.ckpt"
    trained.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["WattCallback"]["session"]["ledger"] = [["train", 0, {"gpu0": -(10**15)}, 0, 0, 0, 0.0]]
    torch.save(checkpoint, path)
    again = trainer(ptl, tmp_path / "2", watt(gpus="auto", sources=[Steady()]), max_epochs=2)
    again.fit(module(ptl), loader(3), loader(1), ckpt_path=path, weights_only=True)
    assert again.state.finished
    sentence = words.take("not a ledger's state.*missing from its total")
    record = read_record(tmp_path / "2")
    assert sentence in record.missing
    assert (record.status, record.resumed_j) == ("completed", 0.0)
    assert record.energy.total_j > 0


@pytest.mark.timeout(60)
def test_pipes_where_the_files_go_hold_nothing_up(ptl, tmp_path):
    """A pipe that nobody reads would block whoever opens it to write."""
    for name in ("watt.json", "watt.jsonl", "watt_batches.csv", ".watt.json.room"):
        os.mkfifo(tmp_path / name)
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[Steady()], batches=True), max_epochs=1)
    trained.fit(module(ptl), loader(3), loader(1))
    assert read_record(tmp_path / "watt-v1.json").status == "completed"
    assert (tmp_path / "watt_batches-v1.csv").read_text().count("train") == 3
    assert (tmp_path / "watt.json").is_fifo()


def test_links_where_the_files_go_are_not_followed(ptl, tmp_path):
    victims = {}
    (tmp_path / "run").mkdir()
    for name in ("watt.json", "watt.jsonl", "watt_batches.csv", ".watt.json.room"):
        victims[name] = tmp_path / f"precious {name}"
        victims[name].write_text("precious, and no newline at its end")
        (tmp_path / "run" / name).symlink_to(victims[name])
    trained = trainer(ptl, tmp_path / "run", watt(gpus="auto", sources=[Steady()], batches=True), max_epochs=1)
    trained.fit(module(ptl), loader(3), loader(1))
    assert read_record(tmp_path / "run" / "watt-v1.json").status == "completed"
    assert read_record(tmp_path / "run").status == "completed"
    assert {victim.read_text() for victim in victims.values()} == {"precious, and no newline at its end"}


def test_every_checkpoint_is_read_without_running_code():
    """Over the source: each `torch.load` says `weights_only=True`, and nothing unpickles by itself."""
    loads = 0
    for file in [*(ROOT / "lightning_watt").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        text = file.read_text()
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", text):
            assert "weights_only=True" in call, f"{file}: {call}"
            loads += 1
        for banned in (
            "import pickle",
            "pickle.load",
            "import dill",
            "yaml.load(",
            "yaml.unsafe_load",
            "eval(",
            "joblib.load",
        ):
            code = re.sub(r"\.eval\(\)|literal_eval\(", "", text)
            assert banned not in code, f"{file}: {banned}"
    assert loads >= 2


def test_every_server_listens_on_loopback():
    """Whatever binds, or is told a host to bind to, names this machine."""
    bound = 0
    for file in [*(ROOT / "lightning_watt").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        text = file.read_text()
        assert "0.0.0.0" not in text, file
        assert "bind_all" not in text, file
        for host in re.findall(r"\.bind\(\(\s*\"([^\"]*)\"", text) + re.findall(r"\"--host\",\s*\"([^\"]*)\"", text):
            assert host in LOCAL, f"{file}: {host}"
            bound += 1
    assert bound >= 2
