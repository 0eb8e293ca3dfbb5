"""The benchmark of decoding against the training step: it sees a step that waits for its clips, and one that does not."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from experiments.bench.decoding.__main__ import main
from experiments.data.video.motions import _write
from tests.integration.conftest import Words

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, of loaders and validation
SIDE = 320


@pytest.fixture(autouse=True)
def _few_words(words: Words) -> None:
    """What the callback says about a run of a second is its own tests' matter."""
    words.left = list  # type: ignore[method-assign]


def test_a_step_that_waits_for_large_videos_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 5), ("val", 1)):
        for label in ("one", "other"):
            folder = tmp_path / "videos" / part / label
            folder.mkdir(parents=True)
            for index in range(count):  # noise, which takes longest to decode
                frames = torch.randint(0, 255, (16, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
                _write(folder / f"{index}.mp4", frames)
    root, out = f"data.root={tmp_path / 'videos'}", tmp_path / "results"
    settings = ["data=video_folder", root, "device=cpu", "recipe.batch_size=2"]
    asked = ["--models", "r3d", "--workers", "0", "1", "--epochs", "2", "--clips", "2", "--out", str(out)]
    assert main([*asked, "--set", *settings]) == 0
    printed, text = capsys.readouterr().out, (out / "decoding.md").read_text()
    assert text in printed
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| r3d")]
    alone, own, worker = (dict(zip(("model", "workers", "decoding", "augmentation", "both", "step", "waiting", "waits"), row,
                                   strict=False)) for row in cells)  # fmt: skip
    assert [row["workers"] for row in (alone, own, worker)] == ["none", "0", "1"]
    assert alone["decoding"] == ""
    assert float(own["decoding"]) > float(own["augmentation"]) > 0
    assert own["waits"].startswith("yes")  # nobody else decodes
    assert float(alone["waiting"]) < float(own["waiting"]) / 2
    with (out / "decoding.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["workers"] for row in rows] == ["none"] * 8 + ["0"] * 8 + ["1"] * 8
    assert all(float(row["ms"]) > 0 and float(row["rss_mib"]) > 0 for row in rows)
