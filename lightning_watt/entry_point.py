"""What Lightning calls for every Trainer and every Fabric that is made, through its `callbacks_factory` entry points.

It looks at one environment variable and imports nothing else while that is off, so being installed costs a script nothing.
"""

from __future__ import annotations

import os
from typing import Any

from lightning_watt.arguments import OFF, VARIABLE


def callbacks() -> list[Any]:
    """The callback that `LIGHTNING_WATT` asks for, in a list, which is empty if it is off. Never raises.

    Example:
        >>> os.environ.pop(VARIABLE, None) and None
        >>> callbacks()
        []
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if asked.lower() in OFF:
        return []
    try:
        from lightning_watt.zero_code import callback_for  # only here: it imports torch and Lightning

        return [callback_for(asked)]
    except Exception:
        import logging

        # Whatever is wrong with us, the script was not asking: it trains as it would without the variable.
        logging.getLogger("lightning_watt").exception("%s=%s: this run is not measured.", VARIABLE, asked)
        return []


def fabric_callbacks() -> list[Any]:
    """For a Fabric, which has no hooks to measure by: no callback; a sentence if the variable asks for one. Never raises.

    Example:
        >>> os.environ.pop(VARIABLE, None) and None
        >>> fabric_callbacks()
        []
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if asked.lower() in OFF:
        return []
    from lightning_watt.warn_once import OF_THE_PROCESS

    OF_THE_PROCESS.warn(
        f"{VARIABLE}={asked}: this script uses Fabric, which has no Trainer, so what it runs is not measured. "
        "Measure the loop itself: `with lightning_watt.EnergyMeter() as meter:` around it.",
        "fabric",
    )
    return []
