"""One `Callback` base for both of Lightning's packages, without importing the one that is not in use.

`pytorch_lightning` and `lightning.pytorch` are the same code under two names, with two unrelated `Callback` classes, and
a Trainer that checks wants its own (`Trainer(callbacks=one)`, `LightningCLI`). Importing either takes seconds.
So the base is the class of the package that is loaded already, and when the other one is loaded later it is added.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def _loaded() -> tuple[type, ...]:
    """The `Callback` of every Lightning package that is loaded."""
    modules = (sys.modules.get(name) for name in PACKAGES)
    return tuple(module.Callback for module in modules if module is not None and hasattr(module, "Callback"))


def _bases() -> tuple[type, ...]:
    """The same; if none is loaded, the first package that is installed is loaded."""
    if not _loaded():
        # Only the parent is looked for: looking for `lightning.pytorch` itself would import its parent.
        installed = [name for name in PACKAGES if importlib.util.find_spec(name.split(".")[0]) is not None]
        if not installed:
            raise ImportError("WattCallback needs Lightning, which is not installed: pip install pytorch-lightning")
        import_module(installed[0])
    return _loaded()


if TYPE_CHECKING:
    from pytorch_lightning import Callback as Callback
else:
    Callback = type("Callback", _bases(), {"__doc__": "The base of `WattCallback`."})


def join_loaded_packages() -> None:
    """Make `Callback` a subclass of each loaded Lightning package's own, if one was loaded since the import."""
    cls: Any = Callback
    missing = tuple(found for found in _loaded() if not issubclass(cls, found))
    if missing:
        cls.__bases__ = (*cls.__bases__, *missing)
