"""Action recognition: real video files, encoded and decoded, and torchvision's models over them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from experiments.command_line import users_error
from experiments.data.base import DataMissingError
from experiments.data.video.clips import Clip, VideoError, count_frames, read_clip
from experiments.data.video.motions import FRAMES, MOTIONS, RATE, make_motions
from experiments.data.video.video_folder import VideoFolders
from experiments.models import count_gflops, size_of
from experiments.run import run
from experiments.settings import options_of, recipe_of
from experiments.tasks.video import build_video
from experiments.tasks.video_families import VIDEO
from lightning_watt import energy_of, read_record
from tests.integration.conftest import Words
from tests.integration.study import composed

pytestmark = pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
CLIP = Clip(frames=8, stride=2)


@pytest.fixture(autouse=True)
def _few_words(words: Words) -> None:
    """What the callback says about a run of a second is its own tests' matter."""
    words.left = list  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of each motion to train on and one to test on, of digits."""
    folder = tmp_path_factory.mktemp("videos") / "motions"
    make_motions(folder, "digits", {"train": 3, "val": 1})
    return folder


def folder(root: Path, **options: object) -> VideoFolders:
    data = VideoFolders(root=root, frames=8, stride=2, image_size=32, batch_size=4, **{"val_share": 0.3, **options})
    data.setup()
    return data


def test_a_lifecycle_goes_over_videos(motions: Path, tmp_path: Path) -> None:
    outcome = run(
        composed(
            "task=action", "model=r3d", "phase=lifecycle", "device=cpu", "recipe.epochs=1", "recipe.batch_size=4",
            "eval_batch_size=4", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
            "trainer.limit_test_batches=1", "+trainer.enable_progress_bar=false", f"data.root={motions}",
            f"task.pretraining.data.root={motions}", "phase.inference.min_seconds=0.1", "phase.inference.max_seconds=1",
        ),
        tmp_path,
    )  # fmt: skip
    records = {name: read_record(part.directory) for name, part in outcome.parts.items()}
    assert {(record.model["task"], record.model["metric"]) for record in records.values()} == {("action", "clip top-1")}
    assert records["finetune"].model["clip"] == {"frames": 8, "stride": 2}
    assert records["finetune"].parts["data"].joules > 0  # decoding and augmentation, apart from the model's part
    assert records["finetune"].parts.keys() == {"data", "forward", "backward", "optimizer"}
    own = [record.energy.total_j for record in records.values()]
    assert energy_of(tmp_path / "inference").total_j == pytest.approx(sum(own), rel=1e-6)
    assert {"test_acc", "joules_per_clip", "clips_per_second"} <= outcome.metrics.keys()


@pytest.mark.parametrize("name", VIDEO)
def test_a_family_builds_and_learns_at_tiny(name: str) -> None:
    cfg = composed("task=action", f"model={name}")
    model, side, frames = build_video(cfg, num_classes=8), size_of(cfg).image_size, options_of(cfg, "clip")["frames"]
    logits = model(torch.randn(2, 3, frames, side, side))
    assert logits.shape == (2, 8)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    for phase in ("pretrain", "finetune"):
        recipe = recipe_of(cfg, phase)
        assert recipe.warmup_epochs < recipe.epochs


# torchvision's documentation: operations of one clip, in 10^9 multiply-adds, and parameters.
@pytest.mark.parametrize(
    ("name", "gmacs", "millions"),
    [("r3d", 40.70, 33.4), ("mc3", 43.34, 11.7), ("r2plus1d", 40.52, 31.5), ("s3d", 17.98, 8.3), ("mvit", 70.60, 36.6)],
)
def test_paper_scale_is_torchvisions(name: str, gmacs: float, millions: float) -> None:
    cfg = composed("task=action", f"model={name}", "scale=paper")
    with torch.device("meta"):
        model = build_video(cfg, num_classes=400)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
    if name in ("r3d", "s3d"):
        frames = options_of(cfg, "clip")["frames"]
        assert count_gflops(model, 3, size_of(cfg).image_size, frames) / 2 == pytest.approx(gmacs, rel=0.02)


def test_a_motions_file_shows_its_motion(motions: Path) -> None:
    """The thing is brighter or darker than what it leaves: where the picture changes moves with it."""
    assert sorted(folder.name for folder in (motions / "train").iterdir()) == sorted(MOTIONS)
    for motion, axis, sign in (("left", 2, -1), ("right", 2, 1), ("up", 1, -1), ("down", 1, 1)):
        file = motions / "train" / motion / "000.mp4"
        assert count_frames(file) == FRAMES
        frames = read_clip(file, Clip(FRAMES, 1), lambda places: 0).float().mean(1)
        changed = (frames[1:] - frames[:-1]).abs() > 12
        places = torch.arange(changed.shape[axis]).float().view(*([-1, 1] if axis == 1 else [1, -1]))
        middle = [(part * places).sum() / part.sum() for part in (changed[:4].float(), changed[-4:].float())]
        assert sign * (middle[1] - middle[0]) > 3, motion


def test_a_clip_is_the_frames_that_were_asked_for(motions: Path) -> None:
    file = motions / "train" / "left" / "000.mp4"
    every = read_clip(file, Clip(FRAMES, 1), lambda places: 0)
    assert every.shape[:2] == (FRAMES, 3)
    assert every.dtype == torch.uint8
    last = FRAMES - CLIP.span
    clip = read_clip(file, CLIP, lambda places: places - 1)
    assert torch.equal(clip, every[last::2][:8])  # after a seek too
    held = read_clip(file, Clip(12, 3), lambda places: places - 1)  # longer than the video
    assert torch.equal(held[:6], every[::3])
    assert torch.equal(held[6:], every[-1:].expand(6, -1, -1, -1))


def test_decoding_starts_no_threads_of_its_own(motions: Path) -> None:
    """The loader's workers are the threads; PyAV's default is a converter a frame, with a thread a core."""
    file = motions / "train" / "left" / "000.mp4"
    own, whole = time.thread_time(), time.process_time()
    for _ in range(50):
        read_clip(file, CLIP, lambda places: 0)
    own, whole = time.thread_time() - own, time.process_time() - whole
    assert whole < 1.05 * own


def test_a_training_takes_a_random_clip_and_a_test_even_ones(motions: Path) -> None:
    data = folder(motions, test_clips=3)
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [16, 24, 24]
    clip, label = data.test_set[4]
    assert clip.shape == (3, 8, 32, 32)
    assert label == 1
    assert torch.equal(clip, data.test_set[4][0])
    assert len({data.train_set[0][0].sum().item() for _ in range(12)}) > 1


def test_what_is_no_video_is_left_out_and_counted(tmp_path: Path) -> None:
    make_motions(tmp_path / "videos", "digits", {"train": 3, "val": 1})
    left = tmp_path / "videos" / "train" / "left"
    (left / "000.mp4").write_bytes(b"")
    (left / "001.mp4").write_bytes(b"no video")
    _write_one_frame(left / "003.mp4")
    with pytest.warns(UserWarning, match="train: 1 left out: ") as said:
        data = folder(tmp_path / "videos")
    assert data.left_out == {
        "the file is empty": 1,
        "it is no video that can be opened": 1,
        "it has one frame only, and nothing moves in one": 1,
    }
    assert "000.mp4" in str(said[0].message)
    with pytest.warns(UserWarning, match=r"1 left out|hold their last frame: shorter than a clip of 29 frames") as said:
        VideoFolders(root=tmp_path / "videos", frames=8, stride=4, image_size=32, batch_size=4, val_share=0.3).setup()
    assert "hold their last frame" in str(said[-1].message)


def _write_one_frame(file: Path) -> None:
    from experiments.data.video.motions import _write

    _write(file, torch.zeros(1, 36, 36, 3, dtype=torch.uint8))


def test_a_class_without_a_video_that_can_be_used_is_refused(tmp_path: Path) -> None:
    make_motions(tmp_path / "videos", "digits", {"train": 1, "val": 1})
    (tmp_path / "videos" / "train" / "left" / "000.mp4").unlink()
    with pytest.raises(ValueError, match="no video that can be used of 1 of the 8 classes: left") as refused:
        folder(tmp_path / "videos")
    assert users_error(refused.value)
    for number, file in enumerate(sorted((tmp_path / "videos" / "train").rglob("*.mp4"))):
        if number:
            _write_one_frame(file)
        else:
            file.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match=r"used \(the file is empty; it has one frame only.*\) of 8 of the 8 classes: anti"),
    ):
        folder(tmp_path / "videos")


def test_a_video_that_breaks_later_gives_its_place_to_the_next(tmp_path: Path) -> None:
    make_motions(tmp_path / "videos", "digits", {"train": 3, "val": 1})
    data = folder(tmp_path / "videos")
    (tmp_path / "videos" / "val" / "anticlockwise" / "000.mp4").write_bytes(b"broken since")
    with pytest.warns(UserWarning, match=r"000\.mp4 was skipped: it cannot be decoded"):
        clip, label = data.test_set[0]
    assert label == 1
    assert torch.equal(clip, data.test_set[1][0])
    for motion in MOTIONS:
        (tmp_path / "videos" / "val" / motion / "000.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match="None of the 8 videos can be read any more"):
        data.test_set[3]


def test_folders_that_differ_or_are_not_there_are_refused(motions: Path, tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="It needs root/train/CLASS/VIDEO") as refused:
        folder(tmp_path)
    assert users_error(refused.value)
    for part, label in (("train", "run"), ("val", "jump")):
        (tmp_path / part / label).mkdir(parents=True)
    with pytest.raises(ValueError, match="must hold the same classes; not in both: jump, run"):
        folder(tmp_path)


def test_the_videos_are_the_same_each_time(motions: Path, tmp_path: Path) -> None:
    make_motions(tmp_path / "again", "digits", {"train": 1, "val": 0})
    file = Path("train") / "left" / "000.mp4"
    first, second = (read_clip(root / file, CLIP, lambda places: 0) for root in (motions, tmp_path / "again"))
    assert torch.equal(first, second)
    assert RATE == 12
