"""pynvml of any age: what an old one, or another package of its name, lacks fails like a function that a driver lacks."""

from __future__ import annotations

from types import ModuleType
from typing import Any

FUNCTION_NOT_FOUND = 13
"""`NVML_ERROR_FUNCTION_NOT_FOUND` of nvml.h."""
CONSTANTS = {"NVML_TOTAL_POWER_SAMPLES": 0}
"""Of nvml.h."""


class Binding(ModuleType):
    """A pynvml of any age.

    NVIDIA's package is `nvidia-ml-py`; an older one named `pynvml`, of others, may lie over it. A function that it lacks
    raises NVMLError_FunctionNotFound, and an error class that it lacks is one that nobody raises.

    Args:
        module: the pynvml that was imported.

    Example:
        >>> nvml = Binding(__import__("pynvml"))
        >>> nvml.nvmlDeviceGetWeather("here")
        Traceback (most recent call last):
        pynvml.NVMLError_FunctionNotFound: Function Not Found
    """

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self._module, name)
        except AttributeError:
            if name.startswith("nvml"):
                return self._absent
            if name in CONSTANTS:
                return CONSTANTS[name]
            if name.startswith("NVML") and "Error" in name and hasattr(self._module, "NVMLError"):
                return NeverRaisedError
            raise

    def _absent(self, *arguments: object) -> None:
        raise self._module.NVMLError(FUNCTION_NOT_FOUND)


class NeverRaisedError(Exception):
    """Stands for an error class that a pynvml does not have."""
