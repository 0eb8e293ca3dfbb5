"""The house, over the syntax trees: who may import whom, how large a room is, and what no module may do.

`ROWS` is the plan. A module imports from rooms of lower rows (those further up in the list) and from its own room; rooms of
one row do not know each other. A new module of a room that is there needs no word here.
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

ROWS: list[set[str]] = [
    {"units", "errors", "arguments", "host", "carbon", "origin"},
    {"sources", "sam", "tables", "warn_once"},
    {"settings"},
    {"meter", "record"},
    {"accounts"},
    {"run", "testing"},
    {"distributed", "tensorboard"},
    {"trainer"},
    {"callback", "commands"},
    {"__main__"},
    {"zero_code"},
    {"entry_point"},
]
"""Rooms: folders, and the modules that stand beside them."""

DOORS: dict[str, set[str]] = {
    "fsspec": {"record.remote"},
    "msgspec": {"sources.base", "meter.marks", "record", "accounts", "run", "distributed", "tensorboard", "commands"},
    "numpy": {"meter", "testing"},
    "psutil": {"host"},
    "pynvml": {"sources.nvml_boards", "testing"},
    "pytorch_lightning": {"trainer.base"},
    "rich": {"tables"},
    "tabulate": {"tables"},
    "tensorboard": {"tensorboard"},
    "torch": {"sam", "meter.marks", "run.lineage", "run.samples", "distributed", "trainer"},
    "torchmetrics": {"sam"},
    "typing_extensions": {"callback", "zero_code"},
    "werkzeug": {"tensorboard"},
    "zeus": {"sources.zeus"},
}
"""The outside libraries, and the rooms or modules that may import them."""

THREADS = {
    "meter.latch",
    "meter.reader",
    "sources.discover",
    "sources.door",
    "distributed.nodes",
    "run.session",
    "record.remote",
}
"""The only modules with threads and locks; the table at the head of `run/session.py` says what guards what."""

MAX_LINES = 350
MAX_MODULES = 12
"""In one folder."""
MAX_METHODS = 25
"""Of one class, beside Lightning's hooks."""

# `experiments` uses what `lightning_watt` makes public, and the public names of these modules:
# sources, to pass to a meter; units, because conversions live there alone; and testing, for the lab.
PUBLIC_MODULES = (
    "lightning_watt.sources",
    "lightning_watt.units",
    "lightning_watt.errors",
    "lightning_watt.record",
    "lightning_watt.testing",
)

ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}


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
    files = sorted(file for file in LIBRARY.rglob("*.py") if file.name != "__init__.py")
    return {".".join(file.relative_to(LIBRARY).with_suffix("").parts): file for file in files}


NAMES = modules()


def room(name: str) -> str:
    return name.split(".")[0]


def own(found: Import) -> list[str]:
    """The modules of the library that an import names; `from lightning_watt import module` names a module too."""
    package, _, rest = found.module.partition(".")
    if package != "lightning_watt":
        return []
    if rest in NAMES:
        return [rest]
    prefix = f"{rest}." if rest else ""
    named = [prefix + name for name in found.names if prefix + name in NAMES]
    return named or ([rest] if rest else [])


def test_every_room_has_its_row():
    assert {room(name) for name in NAMES} - set(ROW_OF) == set(), "Add it to ROWS at the top of this file."
    assert set(ROW_OF) - {room(name) for name in NAMES} == set(), "These are in ROWS and no longer there."


def test_imports_point_strictly_down():
    wrong = [
        f"{name} imports {other}, line {found.line}"
        for name, file in NAMES.items()
        for found in imports(file)
        for other in own(found)
        if room(name) != room(other) and ROW_OF[room(other)] >= ROW_OF[room(name)]
    ]
    assert wrong == []


def test_no_imports_in_a_circle():
    """Not for the type checker either."""
    graph = {name: {other for found in imports(file) for other in own(found)} - {name} for name, file in NAMES.items()}
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert graph == {}


def test_each_outside_library_has_its_doors():
    wrong = [
        f"{name} imports {top}, line {found.line}"
        for name, file in NAMES.items()
        for found in imports(file)
        for top in [found.module.split(".")[0]]
        if top not in sys.stdlib_module_names | {"lightning_watt"}
        and not {name, room(name)} & DOORS.get(top, set())
        and not any(name.startswith(door) for door in DOORS.get(top, set()))
    ]
    assert wrong == []


def test_no_door_is_left_open():
    used = {(top, name) for name, file in NAMES.items() for found in imports(file) for top in [found.module.split(".")[0]]}
    unused = {
        (library, door)
        for library, doors in DOORS.items()
        for door in doors
        if not any(top == library and name.startswith(door) for top, name in used)
    }
    assert unused == set()


def test_threads_are_where_the_plan_says():
    assert {name for name, file in NAMES.items() for found in imports(file) if found.module == "threading"} - {
        name for name in NAMES if room(name) == "testing"
    } == THREADS


def test_no_room_is_too_large():
    large = {name: lines for name, file in NAMES.items() if (lines := len(file.read_text().splitlines())) > MAX_LINES}
    assert large == {}
    folders: dict[str, int] = {}
    for name in NAMES:
        folder = name.rpartition(".")[0]
        folders[folder] = folders.get(folder, 0) + 1
    assert {folder: count for folder, count in folders.items() if count > MAX_MODULES} == {}


def test_no_class_is_too_large():
    large = {}
    for name, file in NAMES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
                count = sum(not method.startswith("on_") for method in methods)
                if count > MAX_METHODS:
                    large[f"{name}.{node.name}"] = count
    assert large == {}


def test_the_library_never_sees_the_study_or_the_tests():
    for file in LIBRARY.rglob("*.py"):
        seen = {found.module.split(".")[0] for found in imports(file)}
        assert not seen & {"hydra", "omegaconf", "timm", "experiments", "tests"}, file


def test_the_study_never_sees_the_tests():
    for file in (ROOT / "experiments").rglob("*.py"):
        assert "tests" not in {found.module.split(".")[0] for found in imports(file)}, file


NOT_NAMED_BY_A_UNIT_TEST = {
    "__main__": "tests/integration/test_cli.py",
    "entry_point": "tests/integration/test_zero_code.py",
    "zero_code": "tests/integration/test_zero_code.py",
}
"""Modules without a unit test, each with the reason."""


def test_every_module_is_named_by_a_unit_test():
    named = {
        other
        for file in (ROOT / "tests" / "unit").rglob("*.py")
        for found in imports(file)
        for other in [*own(found), *(found.module.removeprefix("lightning_watt.") for _ in [0])]
    }
    public = {
        "meter.meter",
        "record.read",
        "sam.metric",
        "sam.score",
        "run.lineage",
        "sources.discover",
    }  # by their names in the package
    without = {name for name in NAMES if room(name) != "testing"} - named - public
    assert without == set(NOT_NAMED_BY_A_UNIT_TEST)


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
    knowing = [name for name, file in NAMES.items() if any("/sys/class/powercap" in text for text in _strings(file))]
    assert knowing == ["sources.rapl"]


def test_one_module_talks_to_nvml():
    talking = {name for name, file in NAMES.items() if "pynvml" in {found.module for found in imports(file)}}
    assert {name for name in talking if room(name) != "testing"} == {"sources.nvml_boards"}


def test_no_clock_is_looked_up_while_a_training_runs():
    """Whoever fakes `time.monotonic` for code under test, with a list of values say, does not meet our thread."""
    looked_up = [
        f"{name}, line {node.lineno}: {ast.unparse(node.func)}"
        for name, file in NAMES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if room(name) != "testing" and isinstance(node, ast.Call) and ast.unparse(node.func).startswith("time.")
    ]
    assert looked_up == [], "Write `from time import monotonic`."


COMPUTES = {"callback_metrics", "progress_bar_metrics", "logged_metrics"}
COMMUNICATES = {"broadcast", "barrier", "reduce", "all_reduce", "all_gather", "all_gather_object", "reduce_boolean_decision"}
DRAWS = {"manual_seed", "seed_everything", "rand", "randn", "randint", "randperm", "shuffle"}
SYNCHRONISES = {"synchronize"}
MAY_SYNCHRONISE = {"meter.marks"}
"""An event, once before the first batch and at the end of a run."""


def test_nothing_computes_communicates_synchronises_or_draws_for_the_training():
    """Nor asks for `trainer.log_dir`, which is a broadcast."""
    asked = [
        f"{name}, line {node.lineno}: {ast.unparse(node)}"
        for name, file in NAMES.items()
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
        for name, file in NAMES.items()
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
        "Record",
        "SustainableAccuracy",
        "WattCallback",
        "WattError",
        "WattWarning",
        "Window",
        "__version__",
        "discover",
        "energy_of",
        "read_record",
        "sustainable_accuracy",
    ]
    for name in lightning_watt.__all__:
        found = getattr(lightning_watt, name)
        assert isinstance(found, str) if name == "__version__" else found.__name__ == name
        assert name in dir(lightning_watt)
    with pytest.raises(AttributeError, match="no attribute 'WattMeter'"):
        _ = lightning_watt.WattMeter


# ---- what is written above the code ----


@pytest.mark.parametrize("name", NAMES)
def test_a_module_says_what_it_is_for_and_its_examples_run(name):
    if room(name) == "tensorboard":
        pytest.importorskip("tensorboard", reason="install lightning_watt[tensorboard] to test its plugin")
    module = import_module(f"lightning_watt.{name}")
    assert module.__doc__
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_examples_are_there_to_run():
    finder = doctest.DocTestFinder()
    with_examples = {
        name for name in NAMES if any(test.examples for test in finder.find(import_module(f"lightning_watt.{name}")))
    }
    expected = "sam.score accounts.ledger meter.timeline meter.meter accounts.forecast trainer.accuracy sources.replay"
    assert with_examples >= set(expected.split())


# ---- the tests ----


def test_no_test_module_imports_from_another():
    """Fixtures stand in conftest.py, what several test modules need in modules of its own."""
    files = [*(ROOT / "tests").rglob("*.py")]
    imported = {
        (str(file.relative_to(ROOT)), name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [f"{node.module}.{alias.name}" for alias in node.names if node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert any(name == "tests.integration.tiny.loader" for _, name in imported)
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.stem.startswith("test_")}
    assert [(file, name) for file, name in sorted(imported) if {name, name.rpartition(".")[0]} & modules] == []
