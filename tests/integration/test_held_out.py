"""What is held out stays held out: no data set has a picture in two parts, and who chooses never reads the test part."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset

from experiments.choose import chosen
from experiments.data.base import BatchedTensors, DataMissingError, ImageData, RawImages
from experiments.data.digits import Digits
from experiments.data.held_out import HeldOutError
from experiments.data.held_out import test_on as let_test_on
from experiments.job import Job
from experiments.modules.recipe import Recipe
from experiments.report.metrics import Amount
from experiments.run import _result, run
from experiments.weights import WeightsError
from lightning_watt import read_record
from tests.integration.conftest import Words
from tests.integration.study import composed, write_ade20k, write_fashion, write_pairs, write_shards

pytestmark = pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
SHORT = (
    "device=cpu",
    "model.image_size=8",
    "recipe.epochs=1",
    "trainer.limit_train_batches=2",
    "+trainer.enable_progress_bar=false",
    "+trainer.num_sanity_val_steps=1",
)


@pytest.fixture(autouse=True)
def _few_words(words: Words) -> None:
    """What the callback says about a run of a second is its own tests' matter."""
    words.left = list  # type: ignore[method-assign]


def write_pictures(root: Path) -> None:
    """Pictures of two classes, each of a colour of its own, in ImageNet's layout."""
    for part, first, count in (("train", 0, 10), ("val", 100, 4)):
        for label in ("one", "two"):
            (root / part / label).mkdir(parents=True)
            for index in range(first, first + count):
                Image.new("RGB", (16, 16), (index, len(label), 0)).save(root / part / label / f"{index}.png")


def listed(part: Dataset) -> list[str]:
    """What tells each item of a data set from others: its file, or its pixels."""
    for name in ("samples", "pairs", "videos"):
        if hasattr(part, name):
            return [str(item) for item in getattr(part, name)]
    images = part.images if hasattr(part, "images") else part.scenes.pictures
    return [str(image.numpy().tobytes()) for image in images]


def items(part: Dataset) -> set[str]:
    """The items of one part."""
    if isinstance(part, Subset):
        of_all = listed(part.dataset)
        return {of_all[index] for index in part.indices}
    return set(listed(part))


OF_FILES: dict[str, tuple[Callable[[Path], None], Sequence[str]]] = {
    "image_folder": (write_pictures, ()),
    "fashion_mnist": (write_fashion, ()),
    "image_text": (write_pairs, ("model=clip",)),
    "webdataset": (write_shards, ("model=clip",)),
    "mask_folder": (write_ade20k, ("task=segment", "data.num_classes=2")),
}
OF_PACKAGES = {
    "digits": (),
    "emoji": (),
    "emoji_plain": (),
    "scenes": ("task=segment",),
    "motions": ("task=action", "model=r3d"),
    "motions_of_digits": ("task=action", "model=r3d"),
}


@pytest.fixture(params=[*OF_PACKAGES, *OF_FILES])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], ImageData]:
    """Reads one kind of data, testing on the part that is asked for."""
    option, root = request.param, tmp_path / request.param
    write, overrides = OF_FILES.get(option, (None, OF_PACKAGES.get(option, ())))
    given = [f"data={option}", *overrides]
    if write is not None:
        write(root)
        given.append(f"data.root={root}")

    def data(part: str) -> ImageData:
        job = Job(composed(*given, "recipe.batch_size=4", f"test_on={part}"), tmp_path)
        share = {} if option in OF_PACKAGES else {"val_share": 0.25}
        try:
            return job.data(Recipe(batch_size=4), "pretrain", **share)
        except DataMissingError as error:
            pytest.skip(str(error))

    return data


def test_the_parts_have_nothing_in_common(read: Callable[[str], ImageData]) -> None:
    data = read("test")
    train, validation, test = (items(part) for part in (data.train_set, data.val_set, data.test_set))
    assert train
    assert validation
    assert test
    assert not train & validation
    assert not (train | validation) & test


def test_who_chooses_is_given_no_test_picture(read: Callable[[str], ImageData]) -> None:
    test = items(read("test").test_set)
    data = read("validation")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert not items(loader.dataset) & test
    assert items(data.test_dataloader().dataset) == items(data.val_set)
    assert data.name.endswith("validation part")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which part of the digits each batch was of, in order; the test pictures are white."""
    load, seen = Digits.load, []

    def white(self: Digits) -> tuple[RawImages, RawImages]:
        train, test = load(self)
        return train, RawImages(torch.full_like(test.images, 255), test.labels)

    get = BatchedTensors.__getitems__

    def noted(self: BatchedTensors, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        white = bool((self.images[indices] == self.images.max()).all())
        seen.append("test" if white else "train" if self.augment else "validation")
        return get(self, indices)

    monkeypatch.setattr(Digits, "load", white)
    monkeypatch.setattr(BatchedTensors, "__getitems__", noted)
    return seen


def test_a_whole_lifecycle_chooses_without_the_test_part(reads: list[str], tmp_path: Path) -> None:
    outcome = run(composed("phase=lifecycle", "test_on=validation", "phase.inference.min_seconds=0", *SHORT), tmp_path)
    assert set(reads) == {"train", "validation"}
    info = read_record(outcome.parts["finetune"].directory).model
    assert info["data"] == "digits, validation part"


def test_the_test_part_is_read_when_the_training_is_over(reads: list[str], tmp_path: Path) -> None:
    run(composed("phase=finetune", "checkpoint=scratch", *SHORT), tmp_path)
    first = reads.index("test")
    assert "train" in reads[:first]
    assert "validation" in reads[:first]
    assert set(reads[first:]) == {"test"}


def test_a_sweeper_that_looks_for_the_best_sees_no_test_accuracy() -> None:
    metrics = {"test_acc": 0.75}
    assert math.isnan(_result(composed(), metrics))
    assert _result(composed("test_on=validation"), metrics) == 0.75


def test_weights_that_were_trained_on_the_validation_part_are_refused(tmp_path: Path) -> None:
    trained = run(composed("test_on=validation", "watt=none", *SHORT), tmp_path / "first")
    asked = ("phase=finetune", f"checkpoint={trained.directory}", "test_on=validation", "watt=none", *SHORT)
    with pytest.raises(WeightsError, match=r"trained with seed=0, .* Give seed=0"):
        run(composed(*asked, "seed=1"), tmp_path / "other")
    assert run(composed(*asked), tmp_path / "same").metrics["test_acc"] >= 0


def test_a_part_that_is_none_is_refused() -> None:
    with pytest.raises(HeldOutError, match="test_on=train is no part: test, or validation"):
        let_test_on(Digits(image_size=8, batch_size=4), "train")


def test_runs_on_the_validation_part_are_no_repetitions_of_the_others(tmp_path: Path) -> None:
    infos = []
    for part in ("test", "validation"):
        run(composed(f"test_on={part}", *SHORT), tmp_path / part)
        infos.append(read_record(tmp_path / part).model)
    assert infos[0]["settings"] != infos[1]["settings"]
    assert infos[0]["data"] == "digits"


def a_choice(directory: Path, seed: int, rate: str, accuracy: float) -> dict[str, object]:
    """What a job of `study=choose` leaves."""
    given = ["study=choose", "model=vit", f"seed={seed}", f"model.recipe.finetune.tiny.lr={rate}"]
    said = {"model": "vit", "task": "classify", "overrides": given, "status": "completed", "directory": str(directory)}
    return json.loads(json.dumps(said | {"metrics": {"test_acc": accuracy}}))


def test_recipes_are_compared_seed_by_seed(tmp_path: Path) -> None:
    accuracies = {"0.05": (0.5, 0.7, 0.9), "0.1": (0.6, 0.8, 1.0)}
    table = chosen(
        [a_choice(tmp_path, seed, rate, value) for rate, row in accuracies.items() for seed, value in enumerate(row)]
    )
    assert table.columns == ["model", "model.recipe.finetune.tiny.lr", "seeds", "accuracy", "behind", "training"]
    best, other = table.rows
    assert best[1:3] == ["0.1", 3]
    assert best[4] == "the best"
    assert other[3].value == pytest.approx(0.7)
    behind = other[4]
    assert isinstance(behind, Amount)
    assert (behind.value, behind.plus_minus) == pytest.approx((0.1, 0.0), abs=1e-6)  # the seeds' own spread is not in it
    assert other[3].plus_minus == pytest.approx(0.497, abs=1e-3)  # 4.303 * 0.2 / sqrt(3)
