"""What the callback costs a ResNet-50: the same batches with it and without, in turn, again and again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from experiments.bench.gpu_evidence.bench import Bench
from experiments.bench.gpu_evidence.figures import number, spread, table
from experiments.bench.gpu_evidence.load import image_model
from experiments.bench.gpu_evidence.training import TimedBatches, loader, quiet, trainer, workplace
from lightning_watt import WattCallback

TITLE = "Overhead on ResNet-50"
LIMIT_S = 130.0
IMAGES = 128
TIMED_S, WARM_UP_S = 2.0, 0.8
ROUNDS = 9
PROBE = 8
PLAIN, AGAIN = "no callback", "no callback, again"


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Rounds of one fit each, in an order that turns; every ratio is to the same round's fit without a callback."""
    network, pictures, labels, what = image_model(bench.load, IMAGES)
    module, batch = Images(network), (pictures, labels)
    kinds, missing = contestants(bench)
    found |= {"what": what, "missing": missing}
    with quiet():
        step_s = fit(bench, module, batch, [], 4, PROBE)["seconds"] / PROBE
        warm_up, timed = (max(least, round(bench.seconds(s) / step_s)) for s, least in ((WARM_UP_S, 3), (TIMED_S, 10)))
        found |= {"step_s": step_s, "warm_up_batches": warm_up, "timed_batches": timed, "rounds": []}
        for turn in range(bench.times(ROUNDS, least=2)):
            if bench.left_s < len(kinds) * (timed + warm_up) * step_s * 1.5 + 2:
                break
            names = [*kinds][turn % len(kinds) :] + [*kinds][: turn % len(kinds)]
            done = {name: fit(bench, module, batch, kinds[name](), warm_up, timed) for name in names}
            found["rounds"].append(done)
            found["ratios"] = ratios(found["rounds"])


def summarise(found: dict[str, Any]) -> list[str]:
    """A table of ratios."""
    lines = [
        f"{found.get('what', '')}; {found.get('timed_batches')} batches of {1000 * found['step_s']:.3g} ms in each fit."
    ]
    rows = []
    for name, row in found.get("ratios", {}).items():
        ratios = [f"{row[key]:.4f}" for key in ("median", "min", "max")]
        hook = row["hook_us"]
        rows.append([name, *ratios, row["n"], number(hook.get("median")), number(hook.get("p99")), f"{row['around_s']:.2f}"])
    headers = [
        "callback", "throughput to none: median", "least", "most", "pairs", "its hooks a batch, µs: median", "p99",
        "s around the batches",
    ]  # fmt: skip
    return [*lines, "", *table(headers, rows), *(f"\n{why}" for why in found.get("missing", []))]


def ratios(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Throughput relative to the same round's plain fit: below 1 is slower. By contestant."""
    rows = {}
    for name in rounds[0]:
        if name != PLAIN:
            pairs = [one[PLAIN]["seconds"] / one[name]["seconds"] for one in rounds]
            hooks = [us for one in rounds for us in one[name].get("hook_us", [])]
            rows[name] = {
                "n": len(pairs),
                "median": statistics.median(pairs),
                "min": min(pairs),
                "max": max(pairs),
                "hook_us": spread(hooks, 2),
                "around_s": statistics.median(one[name]["whole_s"] - one[name]["seconds"] for one in rounds),
            }
    return rows


class Images(pl.LightningModule):
    """A classifier of images, trained on one batch over and over."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Cross entropy."""
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), 1e-4, momentum=0.9)


class Same(torch.utils.data.IterableDataset[Any]):
    """The same batch, which is on the device already, so many times.

    Args:
        batch: images and labels.
        length: how many times.
    """

    def __init__(self, batch: Any, length: int) -> None:
        self.batch, self.length = batch, length

    def __iter__(self) -> Any:
        return (self.batch for _ in range(self.length))


class Timed:
    """Times a callback's own hooks of a batch; for any callback, put before its class."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.hook_us: list[float] = []
        self._spent_ns = 0

    def on_train_batch_start(self, *args: Any) -> None:
        """The first of the batch."""
        self._spent_ns = self._took(super().on_train_batch_start, *args)  # type: ignore[misc]

    def on_before_backward(self, *args: Any) -> None:
        """The second."""
        self._spent_ns += self._took(super().on_before_backward, *args)  # type: ignore[misc]

    def on_before_optimizer_step(self, *args: Any) -> None:
        """The third."""
        self._spent_ns += self._took(super().on_before_optimizer_step, *args)  # type: ignore[misc]

    def on_train_batch_end(self, *args: Any) -> None:
        """The last."""
        self._spent_ns += self._took(super().on_train_batch_end, *args)  # type: ignore[misc]
        self.hook_us.append(self._spent_ns / 1000)

    def _took(self, hook: Callable[..., None], *args: Any) -> int:
        start = time.perf_counter_ns()
        hook(*args)
        return time.perf_counter_ns() - start


def contestants(bench: Bench) -> tuple[dict[str, Callable[[], list[pl.Callback]]], list[str]]:
    """What takes part, by name, and what is missing. The fit without a callback runs twice, which is the noise."""

    class TimedWatt(Timed, WattCallback):
        """WattCallback, its hooks timed."""

    options = bench.watt_options()
    kinds: dict[str, Callable[[], list[pl.Callback]]] = {
        PLAIN: list,
        AGAIN: list,
        "WattCallback()": lambda: [TimedWatt(**options)],
        "WattCallback(batches=True)": lambda: [TimedWatt(batches=True, **options)],
    }
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError as error:
        return kinds, [f"Zeus did not take part: it cannot be imported ({error})."]

    class Zeus(pl.Callback):
        """A Zeus window a batch, with the synchronise that is its default if there is a GPU."""

        def __init__(self) -> None:
            self.monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[])

        def on_train_batch_start(self, *args: Any) -> None:
            self.monitor.begin_window("batch", sync_execution=bench.load.on_gpu)

        def on_train_batch_end(self, *args: Any) -> None:
            self.monitor.end_window("batch", sync_execution=bench.load.on_gpu)

    class TimedZeus(Timed, Zeus):
        """Zeus, its windows timed."""

    try:
        ZeusMonitor(gpu_indices=[0], cpu_indices=[])
    except Exception as error:  # noqa: BLE001 - another package may raise anything; it is only reported
        return kinds, [f"Zeus did not take part: its monitor does not start ({error!r})."]
    return kinds | {"Zeus, a window a batch": lambda: [TimedZeus()]}, []


def fit(bench: Bench, module: Images, batch: Any, callbacks: list[pl.Callback], warm_up: int, timed: int) -> dict[str, Any]:
    """One fit: `seconds` of the timed batches, `whole_s` of all, and the callback's microseconds a batch."""
    clock = TimedBatches(bench.load, warm_up, warm_up + timed - 1)
    precision = "bf16-mixed" if bench.load.on_gpu else "32-true"
    with workplace() as directory:
        fitting = trainer(bench.load, directory, [*callbacks, clock], precision=precision)
        start = time.perf_counter()
        fitting.fit(module, loader(Same(batch, warm_up + timed)))
        whole_s = time.perf_counter() - start
    hooks = callbacks[0].hook_us[warm_up:] if callbacks else []  # type: ignore[attr-defined]
    return {"seconds": clock.seconds, "whole_s": whole_s, "hook_us": [round(us, 2) for us in hooks]}
