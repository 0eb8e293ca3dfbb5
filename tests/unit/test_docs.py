"""README, docs and the other pages: their code compiles, their links, pictures and commands lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml

from lightning_watt import EnergyMeter

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(file for top in ("lightning_watt", "experiments") for file in (ROOT / top).rglob("*.md")),
]
MOST_WORDS = 750
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_and_pictures_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


@each_page
def test_code_compiles_and_imports_what_is_public(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("lightning_watt"):
                continue
            module = import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{page.name}: from {node.module} import {name.name}"


@each_page
def test_commands_are_there(page):
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = "\n".join([*blocks(page, "bash"), *blocks(page, ""), *re.findall(r"`([^`\n]+)`", text)])
    assert set(re.findall(r"^(?:LIGHTNING=\S+ )?make ([a-z-]+)", commands, re.MULTILINE)) <= targets
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert find_spec(module) is not None, module
        package = find_spec(module).submodule_search_locations
        assert package is None or find_spec(f"{module}.__main__") is not None, f"python -m {module} runs nothing"
    for script in re.findall(r"python (examples/\w+\.py)", text):
        assert (ROOT / script).exists()


def test_the_readme_is_short_and_says_how_to_run_the_tests():
    text = README.read_text(encoding="utf-8")
    assert len(text.split()) <= MOST_WORDS
    assert any(line.startswith("make test") for block in blocks(README, "bash") for line in block.splitlines())


def test_every_page_of_docs_is_linked_from_the_readme():
    text = README.read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in text] == []


def run(block: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(block, "a page", "exec"), names)
    return names


def test_the_examples_of_sam_say_what_comes_out():
    (block,) = (block for block in blocks(ROOT / "docs" / "numbers.md", "python") if "sustainable_accuracy" in block)
    names = run(block, {})
    lines = re.findall(r"^(sustainable_accuracy\(.*\))  # (\S+)$", block, re.MULTILINE)
    assert len(lines) == 3
    for call, said in lines:
        assert eval(call, names) == pytest.approx(float(said), abs=5e-5, nan_ok=True)


def test_the_source_of_contributing_is_one():
    (block,) = (block for block in blocks(ROOT / "docs" / "contributing.md", "python") if "class MyMeter" in block)
    names = run(block, {})
    with EnergyMeter(sources=[names["MyMeter"]()], interval=0.1) as meter, meter.window("work") as window:
        busy()
    assert window.joules == pytest.approx(42 * window.seconds, rel=0.02)


def busy() -> None:
    """Work for longer than a reading takes to come, with pauses in which the reader thread can run."""
    end_s = monotonic() + 1.5
    while monotonic() < end_s:
        pass


def test_the_windows_of_use_measure():
    first, second = (block for block in blocks(ROOT / "docs" / "use.md", "python") if "meter.window" in block)
    assert run(first, {"train_one_epoch": busy})["w"].joules > 0
    with EnergyMeter() as meter:
        assert run(second, {"meter": meter, "train_one_epoch": busy})["w"].joules > 0


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "references"} <= set(citation)
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    (paper,) = citation["references"]
    assert "2310.06522" in paper["url"]


def test_the_hooks_of_pre_commit_need_no_network():
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in settings["repos"]] == ["local"]
    assert {hook["language"] for hook in settings["repos"][0]["hooks"]} == {"system"}


def test_the_demo_installs_what_it_needs_and_no_more(tmp_path):
    """The lock names what the tests need too: it bounds versions there, and installs nothing."""
    make = ["make", "-n", "demo", f"VENV={tmp_path / 'new'}"]
    commands = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-c requirements.lock" in commands
    assert "-r requirements.lock" not in commands
    wanted = re.search(r"^experiments = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert wanted is not None
    assert not set(re.findall(r"[\w-]+", wanted[1])) & {"ray", "wandb", "mlflow-skinny", "playwright"}
