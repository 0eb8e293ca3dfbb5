"""A measured training under Python's audit hook: `python -m tests.integration.audited DIRECTORY estimate|boards`.

Prints, as JSON, every connection, process and name look-up, and every file opened for writing, that has lightning_watt on
its stack; and, under "control", the one that this module makes itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl  # before the hook: what importing it does is not ours
import torch

from tests.integration import tiny as _  # noqa: F401 - likewise

WATCHED = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "urllib.", "http.")
WATCHED += ("ftplib.", "smtplib.", "webbrowser.", "pty.", "os.startfile", "ctypes.dlopen")
OURS = f"{os.sep}lightning_watt{os.sep}"
seen: list[tuple[str, str]] = []
control: list[str] = []
in_control = False


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and (set(str(arguments[1] or "")) & set("wax+") or int(arguments[2] or 0) & os.O_ACCMODE)
    if not (writes or event.startswith(WATCHED)):
        return
    if in_control:
        control.append(event)
        return
    frame = sys._getframe(1)
    while frame is not None:
        if OURS in frame.f_code.co_filename:
            seen.append((event, str(arguments[0])))
            return
        frame = frame.f_back  # type: ignore[assignment]


def main(directory: Path, source: str) -> None:
    global in_control
    sys.addaudithook(hook)
    from lightning_watt import WattCallback, energy_of
    from tests.integration.tiny import loader, module, trainer

    callback = WattCallback(gpus="all" if source == "boards" else "auto", interval=0.1, batches=True, carbon_intensity=380)
    trained = trainer(pl, directory, callback, logger=pl.loggers.TensorBoardLogger(directory, name="board"))
    trained.fit(module(pl, step_s=0.01), loader(6), loader(2))
    trained.test(trained.lightning_module, loader(2), verbose=False)
    trained.save_checkpoint(directory / "last.ckpt")
    energy_of(directory / "last.ckpt")
    in_control = True
    subprocess.run(["true"], check=True)
    in_control = False
    answer = {"seen": seen, "control": control, "log_dir": trained.log_dir, "torch": torch.__version__}
    (directory / "audit.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
