"""What a user writes and how it is answered: names that do not exist, board indices, errors that are the user's."""

import difflib
import re
import traceback
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[1] / "conf"
OURS = (str(CONF.parent / "experiments"), str(CONF.parent / "lightning_watt"))


def check_names(arguments: list[str]) -> str:
    """Look for groups, values and options that do not exist, as `modle=vit` or `model=vitt`.

    Args:
        arguments: the command line's arguments.

    Returns:
        A sentence with the nearest name; empty if all names are known.

    Example:
        >>> check_names(["modle=vit"]).splitlines()[0]
        'modle= is not known. Did you mean model=?'
        >>> check_names(["model=resnet,vitt"]).splitlines()[0]
        'model=vitt is not known. Did you mean model=vit?'
        >>> check_names(["-m", "model=vit", "recipe.lr=1e-3,1e-4", "+new.thing=1", "hydra/launcher=joblib"])
        ''
    """
    if any(argument.startswith(("-cd", "-cp", "--config-", "hydra.searchpath=")) for argument in arguments):
        return ""  # there may be more than what is here
    groups = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
    known = [*groups, *OmegaConf.load(CONF / "run.yaml"), "hydra"]
    for argument in arguments:
        name = re.match(r"([A-Za-z_]\w*)(?:[./@][\w./@]*)?=", argument)
        if name and name[1] not in known:
            return (
                _unknown(f"{name[1]}=", [f"{one}=" for one in known]) + "\n"
                f"Groups: {', '.join(groups)}. Values: {', '.join(sorted(set(known) - {*groups, 'hydra', 'defaults'}))}.\n"
                "python -m experiments.run --help lists the options of each group."
            )
        group, _, value = argument.partition("=")
        if group in groups and (wrong := _check_options(group, value)):
            return wrong
    return ""


def _check_options(group: str, value: str) -> str:
    """Look for options that a group does not have; what is no plain list of names is Hydra's to read."""
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    for one in value.split(",") if re.fullmatch(r"[\w-]+(?:,[\w-]+)*", value) else ():
        if one not in [*options, "null"] and not one.isdecimal():  # a number is a board
            other = "\nAny other model of timm's: model=timm model.timm_name=NAME." if group == "model" else ""
            known = [f"{group}={option}" for option in options]
            return _unknown(f"{group}={one}", known) + f"\nOptions of {group}: {', '.join(options)}.{other}"
    return ""


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"{name} is not known." + (f" Did you mean {near[0]}?" if near else "")


def users_error(error: BaseException) -> str:
    """The sentence of an error that a user can mend; empty for any other error, which keeps its traceback.

    It is one if a module of ours raised it on purpose: a value, a file or weights that cannot be used.
    """
    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and frames[-1].filename.startswith(OURS)
    return str(error) if ours and isinstance(error, (ValueError, FileNotFoundError)) else ""


def name_boards(arguments: list[str]) -> list[str]:
    """Let `device=` take board indices: Hydra's groups have names, not numbers.

    Args:
        arguments: the command line's arguments.

    Returns:
        The arguments, with `device=0,1` (a sweep over boards) and `device=[0,1]` (each job takes a free one of them) written
        as `device=gpu` and `device.boards`.

    Example:
        >>> name_boards(["model=vit", "device=0,1"])
        ['model=vit', 'device=gpu', 'device.boards=0,1']
    """
    changed: list[str] = []
    for argument in arguments:
        numbers = re.fullmatch(r"device=(\d+(?:,\d+)*|\[\d+(?:,\d+)*\])", argument.replace(" ", ""))
        changed += ["device=gpu", f"device.boards={numbers[1]}"] if numbers else [argument]
    return changed
