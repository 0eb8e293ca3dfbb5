"""WattCallback: its arguments, and Lightning's hooks. What they do is in `trainer/`: setup, measured_run, ending.

No hook raises into the training, waits for a driver, or talks to one. The only place that waits, with a limit, is the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_watt.distributed.rendezvous import PRESENCE_LIMIT_S
from lightning_watt.errors import ArgumentError, WattError, shown
from lightning_watt.record.record import Record
from lightning_watt.run import step_parts
from lightning_watt.run.lineage import STATE_KEY
from lightning_watt.run.tally import Tally, counted
from lightning_watt.settings import LOOKED_FOR, NAMES, Argument, Elsewhere, Settings, Summary
from lightning_watt.sources.base import EnergySource
from lightning_watt.sources.masks import GPU
from lightning_watt.trainer import facts
from lightning_watt.trainer.base import Callback, join_loaded_packages
from lightning_watt.trainer.ending import end_leftover, finish, status_after
from lightning_watt.trainer.measured_run import FABRIC, MeasuredRun
from lightning_watt.trainer.setup import Setup
from lightning_watt.units import EnergyUnit, human_energy
from lightning_watt.warn_once import never_raise


def _report(callback: WattCallback, name: str, given: tuple[Any, ...], error: Exception) -> None:
    if not isinstance(callback, WattCallback):
        raise ArgumentError("The Trainer was given the class WattCallback: write callbacks=[WattCallback()].") from error
    if given and facts.is_a(given[0], "Trainer"):
        callback._run.state.warn_once.failed(name, error)
    else:
        callback.on_after_setup()


hook = never_raise(_report)
"""A hook of ours that fails is reported once, and the training goes on."""


class WattCallback(Callback):
    """Measures what a training costs in electricity, and logs it beside its accuracy.

    Args:
        accuracy: the logged metric that SAM uses, in [0, 1]; `"auto"` finds the usual names.
        gpus: `"auto"`: the devices that the Trainer uses; `"visible"`: the boards that `CUDA_VISIBLE_DEVICES` leaves;
            `"all"`: every board that NVML shows, whatever the mask, also beside a CPU Trainer; or NVML indices and UUIDs,
            none of them for the CPU alone.
        sources: `"auto"`: NVML and RAPL, or a labelled estimate if there is neither; `"cpu-share"`: the same, and of the CPU
            this job's share by processor time, an estimate; or a list of `EnergySource`.
        alpha: how much accuracy counts in SAM.
        beta: SAM's scale.
        sam_unit: the unit of E in SAM: `"kWh"` (the paper's), `"Wh"` or `"J"`.
        interval: seconds between two reads of the counters.
        log_every_n_steps: training batches between two log rows; None is the Trainer's own.
        budget_kwh: stop the training before it passes this energy, what earlier parts of a resumed run used included.
        pue: power usage effectiveness of the building; it enters CO2e and cost only.
        carbon_intensity: grams of CO2e a kWh; or a country (`"DE"`, `"Germany"`), for its mean of a year, whose source the
            record names. With it `watt/co2e_g` is logged.
        record: write `watt.json` and `watt.jsonl` into the run's log directory; over several nodes each other node's reader
            writes its own beside them (`watt.rank2.json`).
        batches: write each batch's energy to `watt_batches.csv`.
        electricity_price: what a kWh costs; with it the cost stands in the record and in the table at the end.
        idle_s: wait this long before the run and measure what the devices draw meanwhile; it stands beside the run's energy.
        summary: what is printed at the end of a run: `"table"`; `"line"`; `"none"`; or `"auto"`: the table at the end of
            the first run, and one line if that took less than a second, for another run of the same Trainer, and for each
            later Trainer of the process. Then a table over all of them comes at the end of the process. Nothing is printed
            of a run that had no batch. Who turned Lightning's own output off (`enable_progress_bar=False`,
            `enable_model_summary=False`) or its information messages (`logging.getLogger("lightning.pytorch")` or
            `"pytorch_lightning"` above INFO) gets one line at the end of the first run and one for the whole process; who
            did both gets nothing.

    Attributes:
        settings: these arguments, checked. Each is an attribute of the callback too: `callback.sam_unit`.

    Raises:
        ValueError: a value that means nothing, in a sentence. Boards that are not there raise it in `setup`.

    Example:
        >>> from lightning_watt import WattCallback
        >>> WattCallback(accuracy="val_acc", sam_unit="Wh").sam_unit
        'Wh'
    """

    ranks_limit_s = PRESENCE_LIMIT_S
    """Seconds that the ranks of a run wait for each other at its setup; only once in a process, if a rank never comes."""

    def __init__(
        self,
        accuracy: str = "auto",
        *,
        gpus: str | Sequence[GPU] = "auto",
        sources: str | Sequence[EnergySource] = "auto",
        alpha: float = 5.0,
        beta: float = 5.0,
        sam_unit: EnergyUnit = "kWh",
        interval: float = 1.0,
        log_every_n_steps: int | None = None,
        budget_kwh: float | None = None,
        pue: float = 1.0,
        carbon_intensity: float | str | None = None,
        record: bool = True,
        batches: bool = False,
        electricity_price: float | None = None,
        idle_s: float = 0.0,
        summary: Summary = "auto",
    ) -> None:
        join_loaded_packages()
        super().__init__()
        self.settings = Settings.of(locals())
        self._begin_anew()

    if TYPE_CHECKING:  # the arguments, which are set below the class

        def __getattr__(self, name: str) -> Any: ...

    def _begin_anew(self) -> None:
        self._run = MeasuredRun(self.settings)
        self._note_new_session()
        step_parts.begin(self, Callback)

    def _note_new_session(self) -> None:
        """Take what the hooks of a batch touch; here, because each look further away costs them something."""
        session = self._run.session
        self._tally = session.tally if session is not None else Tally()
        crowd = session.crowd if session is not None and self._run.settings.batches else None
        step_parts.hang_hooks(self, Callback, crowd, self._run.state.warn_once)

    def __getstate__(self) -> dict[str, Any]:
        """Only the arguments travel to another process: sources, files and threads stay where they are."""
        # `log` and `log_dict` are the module's, which Lightning hangs on every callback.
        not_ours = {"log", "log_dict", *step_parts.PART_HOOKS}
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_") and name not in not_ours}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_anew()

    @property
    @override
    def state_key(self) -> str:
        """Where the energy stands in a checkpoint; the same for subclasses, so that `energy_of` finds it."""
        return STATE_KEY

    @property
    def result(self) -> Record | None:
        """The record so far; None before anything was measured."""
        return self._run.to_record()

    def __repr__(self) -> str:
        try:
            arguments = ", ".join(f"{name}={shown(value)}" for name, value in self.settings.changed().items())
            session = self._run.session
            used = f": {human_energy(session.energy_j)} so far" if session is not None and session.devices else ""
        except Exception as error:  # noqa: BLE001 - a debugger or a logger asks for it at any moment
            return f"<{type(self).__name__}: {type(error).__name__} when it was asked for its text>"
        return f"{type(self).__name__}({arguments}){used}"

    def _repr_html_(self) -> str:
        """What a notebook shows of it: what the run has used so far."""
        record = self.result
        return "<p>WattCallback: nothing has been measured yet.</p>" if record is None else record._repr_html_()

    # -- a run begins and ends ----------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Open the sources. Wrong `gpus` raise here; anything else that fails is reported, and the training goes on."""
        run = self._run
        try:
            if run.trains and stage != "fit":  # `trainer.validate` from inside its own `fit`, which goes on to be measured
                run.nested += 1
                return
            end_leftover(run)
            run.settings = self.settings
            Setup(run, trainer, pl_module, self.ranks_limit_s, self._settings_instead).begin(self)
        except ArgumentError:
            raise
        except WattError as error:
            run.state.warn_once.warn(str(error), "setup")
            run.state.missing.append(str(error))
        except Exception as error:  # noqa: BLE001 - nothing of ours may stop a training
            run.state.warn_once.failed("setup", error)
            run.state.missing.append(run.state.warn_once.said["setup"])
        finally:
            self._note_new_session()

    def _settings_instead(self, error: ArgumentError) -> Settings:
        """What to measure if `gpus` names a board that is not there: nothing, because the user named it."""
        raise error

    @override
    @hook
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Settle everything, log it, write the record, print the table."""
        if self._run.nested:
            self._run.nested -= 1
            return
        finish(self._run, trainer, "completed")

    @override
    @hook
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The same, for a run that was stopped."""
        finish(self._run, trainer, status_after(exception))

    # -- the hooks that note where the training is --------------------------------------------------------------------

    @override
    @hook
    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        self._run.enter("sanity_check", trainer)

    @override
    @hook
    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        self._run.enter("other", trainer)

    @override
    @hook
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._run.take_restored(trainer)
        self._run.is_set_up = True

    @override
    @hook
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # Two steps: whatever fails in the first, every rank comes to the second, in which they exchange values.
        self._run.start_training(trainer)
        if self._run.publisher.budget is not None:  # over several ranks it is the same on all of them
            self._run.publish(trainer)

    @override
    @hook
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._run.close_train_epoch(trainer)
        self._run.enter("train", trainer)

    @override
    @hook
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._run.end_epoch(trainer, "train", then="train")

    @override
    @hook
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._run.trains = False
        self._run.close_train_epoch(trainer)
        self._run.enter("other", trainer)

    @override
    @hook
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._run.enter("validate", trainer)

    @override
    @hook
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._run.end_epoch(trainer, "validate", then="train" if trainer.state.fn == "fit" else "other")

    @override
    @hook
    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._run.enter("test", trainer)

    @override
    @hook
    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._run.end_epoch(trainer, "test", then="other")

    @override
    @hook
    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self._run.enter("predict", trainer)

    @override
    @hook
    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._run.end_epoch(trainer, "predict", then="other")

    # -- the hooks of every batch -------------------------------------------------------------------------------------

    @override
    @counted(_report, trains=True)
    @hook
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._run.end_batch(trainer, batch, batch_idx, trains=True)

    @override
    @counted(_report, trains=False)
    @hook
    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._run.end_batch(trainer, batch, batch_idx)

    on_test_batch_end = on_validation_batch_end
    on_predict_batch_end = on_validation_batch_end

    # -- Fabric, which calls methods by their names with whatever the script gives ---------------------------------------

    def on_after_setup(self, *_: Any, **__: Any) -> None:
        """Fabric calls this, a Trainer never does: say that nothing is measured, and how it could be."""
        self._run.state.warn_once.warn(
            "WattCallback measures what a Trainer does. Fabric has no Trainer, so nothing is measured. Measure the loop "
            "itself: `with EnergyMeter() as meter:` around it, and `meter.window(...)` around its parts.",
            FABRIC,
        )

    on_after_optimizer_step = on_after_setup

    # -- checkpoints --------------------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        """The energy so far and what was inherited, in plain values that load without running code."""
        return self._run.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a resumed run has used before; it is added when the training starts."""
        self._run.restored = state_dict or None


for _name in NAMES:
    setattr(WattCallback, _name, Argument(_name))
for _name in LOOKED_FOR:  # not a `__getattr__`, which would slow down every look at the callback
    setattr(WattCallback, _name, Elsewhere(_name))
