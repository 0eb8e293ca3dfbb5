"""Who may import whom, over the syntax trees; this file is the map.

A new module goes into `LAYERS`, with the outside libraries that it needs. It imports from the layers above it in this
list (the lower numbers) and from its own; never from a later one, and never in a circle.
"""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import lightning_watt

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "lightning_watt"

LAYERS: list[dict[str, set[str]]] = [
    # 0: words and numbers, from the standard library alone
    {
        "units": set(),
        "errors": set(),
        "variable": set(),
        "voice": set(),
        "latch": set(),
        "forks": set(),
        "files": set(),
        "sources.base": set(),
        "sources.masks": set(),
        "sources.door": set(),
    },
    # 1: sources, each with the one library that it wraps
    {
        "sources.ticks": set(),
        "sources.nvml": {"pynvml"},
        "sources.rapl": set(),
        "sources.estimate": {"psutil"},
        "sources.zeus": {"zeus"},
        "sources.replay": set(),
    },
    # 2: what knows no Lightning, no clock and no file; and the list of the sources
    {
        "sources.discover": set(),
        "timeline": {"numpy"},
        "marks": {"numpy", "torch"},
        "ledger": set(),
        "forecast": set(),
        "accuracy": set(),
        "sam": {"torch", "torchmetrics"},
        "events": set(),
    },
    # 3: measuring and keeping
    {
        "meter": {"numpy"},
        "reader": set(),
        "window": {"numpy"},
        "journal": {"msgspec", "psutil"},
        "wasted": {"msgspec"},
        "parts": {"msgspec"},
        "record": {"msgspec"},
        "summary": {"tabulate"},
        "lineage": {"torch"},
        "ranks": {"msgspec", "torch"},
        "store": {"torch"},
        "rendezvous": {"msgspec"},
        "nodes": {"msgspec"},
        "batches": set(),
        "statement": {"msgspec"},
        "stretches": set(),
        "session": {"msgspec"},
        "tags": set(),
        "writer": {"msgspec"},
        "scribe": set(),
        "idle": set(),
    },
    # 4: Lightning, loggers and people
    {
        "callback": {"typing_extensions"},
        "abandoned": set(),
        "lightning_base": {"pytorch_lightning"},
        "trainer_facts": {"torch"},
        "arguments": set(),
        "run_state": set(),
        "resume": set(),
        "together": set(),
        "loggers": {"torch"},
        "hparams": set(),
        "outlet": set(),
        "monitors": set(),
        "trainer_metrics": {"torch"},
        "budget": set(),
        "entry_point": set(),
        "environment": {"typing_extensions"},
        "__main__": {"tabulate"},
        "tensorboard": {"msgspec", "tensorboard", "werkzeug"},
    },
]
# 5 is `experiments`, which uses what `lightning_watt` makes public, and the public names of these modules:
# sources, to pass to a meter; and units, because conversions live there alone.
PUBLIC_MODULES = ("lightning_watt.sources.", "lightning_watt.units", "lightning_watt.errors", "lightning_watt.record")

LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}
OUTSIDE_OF = {name: libraries for layer in LAYERS for name, libraries in layer.items()}


class Import(NamedTuple):
    """One import: the module's whole name, the names taken from it, where, and whether for the type checker only."""

    module: str
    names: tuple[str, ...]
    line: int
    typing_only: bool


def imports(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        typing_only = id(node) in for_typing
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, (), node.lineno, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import; write the whole name."
            assert node.module is not None
            yield Import(node.module, tuple(alias.name for alias in node.names), node.lineno, typing_only)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield Import(str(name.value), (), node.lineno, typing_only)


def modules() -> dict[str, Path]:
    """The library's modules by their name without `lightning_watt.`; packages' own files are left out."""
    files = sorted(file for file in LIBRARY.rglob("*.py") if file.name != "__init__.py" or "tensorboard" in file.parts)
    return {".".join(file.relative_to(LIBRARY).with_suffix("").parts): file for file in files}


def place(name: str) -> str | None:
    """The entry of the map that a module belongs to: its own, or its package's."""
    return next((part for part in (name, name.split(".")[0]) if part in LAYER_OF), None)


def own(found: Import) -> list[str]:
    """The modules of the library that an import names; `from lightning_watt import module` names a module too."""
    package, _, rest = found.module.partition(".")
    if package != "lightning_watt":
        return []
    if rest and place(rest):
        return [rest]
    prefix = f"{rest}." if rest else ""
    return [prefix + name for name in found.names if place(prefix + name)]


def test_every_module_has_its_place_on_the_map():
    unplaced = [name for name in modules() if place(name) is None]
    assert unplaced == [], "Add them to LAYERS at the top of this file."
    gone = set(LAYER_OF) - {place(name) for name in modules()}
    assert gone == set(), "These are on the map and no longer there."


def test_imports_point_down_only():
    up = [
        f"{name} (layer {LAYER_OF[here]}) imports {other} (layer {LAYER_OF[there]}), line {found.line}"
        for name, file in modules().items()
        for found in imports(file)
        for other in own(found)
        if (here := place(name)) and (there := place(other)) and LAYER_OF[there] > LAYER_OF[here]
    ]
    assert up == []


def test_no_imports_in_a_circle():
    graph = {
        name: {other for found in imports(file) if not found.typing_only for other in own(found)}
        for name, file in modules().items()
    }
    while leaves := {name for name, others in graph.items() if not others & graph.keys() - {name}}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert graph == {}


def test_each_module_takes_from_outside_what_the_map_allows():
    strangers = [
        f"{name} imports {top}, line {found.line}"
        for name, file in modules().items()
        for found in imports(file)
        for top in [found.module.split(".")[0]]
        if top not in sys.stdlib_module_names | {"lightning_watt"} | OUTSIDE_OF.get(place(name) or "", set())
    ]
    assert strangers == []


def test_the_map_allows_nothing_that_is_not_used():
    used: dict[str, set[str]] = {}
    for name, file in modules().items():
        used.setdefault(place(name) or "", set()).update(found.module.split(".")[0] for found in imports(file))
    unused = {name: extra for name, libraries in OUTSIDE_OF.items() if name in used and (extra := libraries - used[name])}
    assert unused == {}


def test_the_library_never_sees_the_study():
    for file in LIBRARY.rglob("*.py"):
        seen = {found.module.split(".")[0] for found in imports(file)}
        assert not seen & {"hydra", "omegaconf", "timm", "experiments"}, file


def _strings(file: Path) -> list[str]:
    """The strings of a module that are not docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


def test_one_module_knows_where_powercap_is():
    knowing = [name for name, file in modules().items() if any("/sys/class/powercap" in text for text in _strings(file))]
    assert knowing == ["sources.rapl"]


def test_one_module_talks_to_nvml():
    assert [name for name, libraries in OUTSIDE_OF.items() if "pynvml" in libraries] == ["sources.nvml"]
    assert [name for name, file in modules().items() if "pynvml" in {found.module for found in imports(file)}] == [
        "sources.nvml"
    ]


def test_no_clock_is_looked_up_while_a_training_runs():
    """Whoever fakes `time.monotonic` for code under test, with a list of values say, does not meet our thread."""
    looked_up = [
        f"{name}, line {node.lineno}: {ast.unparse(node.func)}"
        for name, file in modules().items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("time.")
    ]
    assert looked_up == [], "Write `from time import monotonic`."


COMPUTES = {"callback_metrics", "progress_bar_metrics", "logged_metrics"}
COMMUNICATES = {"broadcast", "barrier", "reduce", "all_reduce", "all_gather", "all_gather_object", "reduce_boolean_decision"}
DRAWS = {"manual_seed", "seed_everything", "rand", "randn", "randint", "randperm", "shuffle"}
SYNCHRONISES = {"synchronize"}
MAY_SYNCHRONISE = {"marks"}
"""An event, once before the first batch and at the end of a run."""


def test_nothing_computes_communicates_synchronises_or_draws_for_the_training():
    """Nor asks for `trainer.log_dir`, which is a broadcast."""
    asked = [
        f"{name}, line {node.lineno}: {ast.unparse(node)}"
        for name, file in modules().items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and (
            node.attr in COMPUTES | COMMUNICATES | DRAWS
            or (node.attr in SYNCHRONISES and name not in MAY_SYNCHRONISE)
            or ast.unparse(node) == "trainer.log_dir"
        )
    ]
    assert asked == []


def test_one_module_converts_units():
    """Sizes such as 3,600,000 and 1e9 have names, and the names live in `units`."""
    sizes = {3.6e6, 3.6e3, 1e9, 1e6}
    loose = [
        f"{name}, line {side.lineno}: {side.value}"
        for name, file in modules().items()
        if name != "units"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div))
        for side in (node.left, node.right)
        if isinstance(side, ast.Constant) and side.value in sizes
    ]
    assert loose == []


def test_the_study_uses_what_is_public():
    private = []
    for file in sorted((ROOT / "experiments").rglob("*.py")):
        for found in imports(file):
            if found.module.split(".")[0] != "lightning_watt" or found.typing_only:
                continue  # the types that public methods return may be named to the type checker
            names = set(found.names)
            fine = found.module == "lightning_watt" and names and names <= set(lightning_watt.__all__)
            if found.module.startswith(PUBLIC_MODULES):
                fine = bool(names) and not any(name.startswith("_") for name in names)
            if not fine:
                private.append(f"{file.relative_to(ROOT)}:{found.line}: {found.module} {sorted(names)}")
    assert private == []


# ---- what importing does ----


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_else():
    heavy = "'torch', 'pytorch_lightning', 'lightning', 'numpy', 'pynvml', 'msgspec', 'psutil'"
    assert run(f"import lightning_watt, sys; print([name for name in ({heavy}) if name in sys.modules])") == "[]\n"


def test_looking_for_devices_needs_no_torch():
    code = "from lightning_watt import discover; discover(); import sys; print('torch' in sys.modules)"
    assert run(code) == "False\n"


def test_every_public_name_is_there_and_listed():
    assert sorted(lightning_watt.__all__) == [
        "EnergyMeter",
        "SustainableAccuracy",
        "WattCallback",
        "discover",
        "energy_of",
        "read_record",
        "sustainable_accuracy",
    ]
    for name in lightning_watt.__all__:
        assert getattr(lightning_watt, name).__name__ == name
        assert name in dir(lightning_watt)
    with pytest.raises(AttributeError, match="no attribute 'WattMeter'"):
        _ = lightning_watt.WattMeter


# ---- what is written above the code ----


@pytest.mark.parametrize("name", modules())
def test_a_module_says_what_it_is_for_and_its_examples_run(name):
    if name.startswith("tensorboard"):
        pytest.importorskip("tensorboard", reason="install lightning_watt[tensorboard] to test its plugin")
    module = import_module(f"lightning_watt.{name}")
    assert module.__doc__
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_examples_are_there_to_run():
    finder = doctest.DocTestFinder()
    with_examples = {
        name for name in modules() if any(test.examples for test in finder.find(import_module(f"lightning_watt.{name}")))
    }
    assert with_examples >= {"sam", "ledger", "timeline", "meter", "record", "forecast", "accuracy", "sources.replay"}
