"""The house: which room may import which, over every import there is; files stay small, nothing is imported that is not declared."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing import ROOT

PACKAGE = ROOT / "pulsify_onnx"
FILES = sorted(PACKAGE.rglob("*.py"))

BASE = {"errors", "arrays", "version"}
"""What every room may import."""

MAY_IMPORT = {
    "__main__": "cli",
    "__init__": "api runtime verification",
    "cli": "api report verification output",
    "api": "convert prepare verification report runtime output analysis algebra model",
    "convert": "prepare report lowering runtime verification output passes analysis rules algebra model ort",
    "verification": "runtime output algebra model ort",
    "report": "lowering rules algebra model",
    "prepare": "output analysis rules algebra model ort",
    "lowering": "passes algebra model ort",
    "passes": "algebra model",
    "analysis": "rules algebra model ort",
    "rules": "algebra model ort",
    "algebra": "ort",
    "runtime": "ort",
    "output": "model",
    "model": "",
    "ort": "",
    "errors": "",
    "arrays": "",
    "version": "",
}
"""The rooms, from the door to the cellar, and what each may import besides `BASE`. All of it stands further down."""

MOST_LINES = 400
THIRD_PARTY = {"click", "numpy", "onnx", "onnx_ir", "onnxruntime"}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {module(path): path for path in FILES}


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of everything of the package that a file imports, wherever in the file and for whatever purpose."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.split(".")[0] == "pulsify_onnx")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module and node.module.split(".")[0] == "pulsify_onnx":
                for a in node.names:
                    inner = f"{node.module}.{a.name}"
                    yield (inner, "") if inner in MODULES else (node.module, a.name)


def test_every_room_is_in_the_table():
    assert {room(p) for p in FILES} == set(MAY_IMPORT)


def test_the_table_goes_down():
    order = list(MAY_IMPORT)
    for name, others in MAY_IMPORT.items():
        if name != "__init__":
            assert all(order.index(other) > order.index(name) for other in others.split()), name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path):
    own = room(path)
    allowed = {own, *MAY_IMPORT[own].split(), *BASE}
    wrong = {name for name, _ in imported(path) if (name.split(".") + ["__init__"])[1] not in allowed}
    assert not wrong, f"{own} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_private_is_imported(path: Path):
    private = {f"{name}.{what}" for name, what in imported(path) if what.startswith("_") and what != "__version__"}
    assert not private


def test_no_file_imports_itself_by_way_of_others():
    reads = {name: {other for other, _ in imported(path)} & set(MODULES) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name):], name))
        if name not in done:
            for other in sorted(reads[name]):
                follow(other, (*path, name))
            done.add(name)

    for name in sorted(reads):
        follow(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_small(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


RULES = [path for path in FILES if room(path) == "rules"]
TIMES = {"Time", "Bound", "AtLeast", "time", "Timing", "Solution"}
"""What bounds delays are made of: `algebra` has them, and `passes` solves them."""

ANYWHERE = {"framing", "masks", "merged_time"}
"""Rules that evaluate positions at places of their own, or compare what others made."""

ASKS = PACKAGE / "rules" / "kit" / "real.py"
"""The only file among the rules that asks which frames are real."""


@pytest.mark.parametrize("path", RULES, ids=lambda p: p.stem)
def test_rules_say_which_frames_and_never_when(path: Path):
    assert not {name for module_, name in imported(path) if module_ == "pulsify_onnx.algebra.delay"} & TIMES


@pytest.mark.parametrize("path", [p for p in RULES if p.stem not in ANYWHERE], ids=lambda p: p.stem)
def test_rules_do_no_arithmetic_with_delays(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.BinOp) or isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            found = {a.attr for a in ast.walk(node) if isinstance(a, ast.Attribute)} & {"delay", "delays", "back"}
            assert not found, f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call):
            assert not {k.arg for k in node.keywords} & {"delay", "delays", "lead", "cached"}, f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", sorted({*RULES} - {ASKS}), ids=lambda p: p.stem)
def test_which_frames_are_real_is_asked_in_one_file(path: Path):
    assert not {name for _, name in imported(path)} & {"Start", "Mask", "TimedMask"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value in ("Less", "Greater", "Min", "Max"):
            made = {a.func.id for a in node.args[1:] if isinstance(a, ast.Call) and isinstance(a.func, ast.Name)}
            assert not made & {"Position", "Count"}, f"line {node.lineno}: a frame is compared with the first or the last one"


def test_dependencies_are_declared():
    declared = {re.split(r"[><=]", line)[0] for line in re.findall(r'"([\w-]+>=[^"]*)"', (ROOT / "pyproject.toml").read_text().split("[project.optional")[0])}
    assert declared >= THIRD_PARTY
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            roots = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for root in (r.split(".")[0] for r in roots):
                if root and root not in THIRD_PARTY | {"pulsify_onnx", "ml_dtypes"}:
                    assert root in sys.stdlib_module_names, f"{path.name} imports {root}"
