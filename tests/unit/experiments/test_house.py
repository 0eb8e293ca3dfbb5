"""The study's house, over the syntax trees: no circles, and modules and folders of a size that a reader can take in."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

STUDY = Path(__file__).parents[3] / "experiments"
MAX_LINES = 350
MAX_MODULES = 12
"""In one folder, `__init__` and `__main__` aside."""

MODULES = {
    ".".join(file.relative_to(STUDY.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(STUDY.rglob("*.py"))
}


def imported(file: Path) -> set[str]:
    """The study's modules that a file imports, also for the type checker and inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` needs the module; any other name comes from the package itself.
            names |= members & MODULES.keys()
            if not members <= MODULES.keys():
                names.add(node.module)
    return names & MODULES.keys()


def in_a_circle(graph: dict[str, set[str]]) -> set[str]:
    """The modules that import themselves through others, and those that import such modules."""
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    return set(graph)


def test_no_imports_in_a_circle():
    assert "experiments.zoo" in imported(MODULES["experiments.models"]), "The rule sees no imports."
    assert in_a_circle({"a": {"b"}, "b": {"a"}, "c": set()}) == {"a", "b"}
    assert in_a_circle({name: imported(file) for name, file in MODULES.items()}) == set()


def test_no_module_or_folder_is_too_large():
    lines = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
    folders = Counter(str(file.parent.relative_to(STUDY)) for file in MODULES.values() if not file.stem.startswith("__"))
    assert {folder: count for folder, count in folders.items() if count > MAX_MODULES} == {}
