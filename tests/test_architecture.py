"""The house: imports go down only, files stay small, nothing is imported that is not declared."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pulsify_onnx"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    0: "precision errors kinds extent dtypes sequences version staging large",
    1: "facts validity runtime guard quotients",                  # what is known of a wire; what needs no analysis at all
    2: "plan bodies recordings files staggered clips sessions reach trials findings",                # the vocabulary
    3: "node fold emit windows verification layouts",                        # delays
    4: "shapes borders pairs views openness sampling source placement packing measures scanning",    # node -> typed attributes
    5: "rules domains sizes rows critical owned caches",                    # one pure function per operator family
    6: "analysis draft support quantised_histories",                    # facts -> plan
    7: "lower spec",                    # plan -> graph
    8: "widening seed report approximation pairing trace",
    9: "batching fixed_length",
    10: "sliding",
    11: "api",
    12: "cli",
    13: "__init__ __main__",
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
MOST_LINES = 400
THIRD_PARTY = {"click", "numpy", "onnx", "onnx_ir", "onnxruntime"}


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "rules" if parts[0] == "rules" else parts[0]


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in the file, but for names of types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "pulsify_onnx" else [node.module]
        for name in names:
            if name.split(".")[0] == "pulsify_onnx" and "." in name:
                yield name.split(".")[1]


def test_every_module_has_a_floor():
    assert {module(p) for p in FILES} == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path):
    own = module(path)
    upward = {name for name in imported(path) if name != own and FLOOR.get(name, 99) >= FLOOR.get(own, 0)}
    assert not upward, f"{own} imports {', '.join(sorted(upward))}, which stand no lower"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_small(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_dependencies_are_declared():
    declared = {re.split(r"[><=]", line)[0] for line in re.findall(r'"([\w-]+>=[^"]*)"', (ROOT / "pyproject.toml").read_text().split("[project.optional")[0])}
    assert THIRD_PARTY <= declared
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            roots = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for root in (r.split(".")[0] for r in roots):
                if root and root not in THIRD_PARTY | {"pulsify_onnx", "ml_dtypes"}:
                    assert root in __import__("sys").stdlib_module_names, f"{path.name} imports {root}"


def test_nobody_matches_on_names_of_rules_in_lowering():
    """Lowering knows the vocabulary, no operator's rule."""
    assert "rules" not in {*imported(PACKAGE / "lower.py"), *imported(PACKAGE / "draft.py"), *imported(PACKAGE / "emit.py")}
