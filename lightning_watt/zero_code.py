"""The callback that `LIGHTNING_WATT=1 python train.py` adds to a script that does not know of it.

The variable is `1`, or arguments of `WattCallback` as `name=value`, with commas between them and plus signs within a list:
`LIGHTNING_WATT="gpus=0+1,sam_unit=J"`. Nothing in it can stop a training: a part without a meaning is reported and skipped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from typing_extensions import override

from lightning_watt.arguments import ON, VARIABLE
from lightning_watt.callback import WattCallback
from lightning_watt.errors import ArgumentError
from lightning_watt.settings import READERS, Settings
from lightning_watt.warn_once import WarnOnce


class EnvironmentCallback(WattCallback):
    """A `WattCallback` that nobody wrote into the script: it steps back for one that somebody did, and never raises."""

    ranks_limit_s = 15.0
    """The variable is more easily forgotten on a rank than a line of the script is."""

    @property
    @override
    def state_key(self) -> str:
        """Its own until a run begins, because a Trainer refuses two callbacks of one key; from then on `WattCallback`'s."""
        return super().state_key if self._run.state.directory is not None else f"{super().state_key} {id(self)}"

    @override
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begin, unless the script has a `WattCallback` of its own (or a list of callbacks was used for two Trainers)."""
        ours = [callback for callback in trainer.callbacks if isinstance(callback, WattCallback)]
        written = [callback for callback in ours if not isinstance(callback, EnvironmentCallback)]
        if written or ours[0] is not self:
            trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self]
            return
        super().setup(trainer, pl_module, stage)

    @override
    def _settings_instead(self, error: ArgumentError) -> Settings:
        self._run.state.warn_once.warn(f"{VARIABLE}: {error} The boards that this Trainer uses are measured instead.")
        self.settings = replace(self.settings, gpus="auto")
        return self.settings


def callback_for(asked: str) -> EnvironmentCallback:
    """The callback that the variable's value asks for; each part that means nothing is reported once and left out.

    Args:
        asked: the value.

    Example:
        >>> callback_for("sam_unit=J,gpus=0+GPU-ab").gpus
        [0, 'GPU-ab']
    """
    warn_once, found = WarnOnce(), dict[str, Any]()
    for part in (part.strip() for part in asked.split(",")):
        name, is_option, value = (text.strip() for text in part.partition("="))
        if not part or part.lower() in ON:
            continue
        if not is_option or name not in READERS:
            names = ", ".join(READERS)
            warn_once.warn(
                f"{VARIABLE}: {part!r} is left out: give 1, or name=value pairs with commas between them, of {names}."
            )
            continue
        try:
            option = {name: READERS[name](value)}
            Settings(**option)
        except ValueError as error:
            warn_once.warn(f"{VARIABLE}: {part!r} is left out, and {name} is as without it: {error}")
        else:
            found |= option
    return EnvironmentCallback(**found)
