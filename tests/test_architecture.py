"""The house: which room may import which, over every import there is; files stay small, nothing is imported that is
not declared.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import onnx
import pytest

from pulsify_onnx.rules import RULES
from pulsify_onnx.runtime import sidecar
from testing import ROOT

PACKAGE = ROOT / "pulsify_onnx"
FILES = sorted(PACKAGE.rglob("*.py"))

BASE = {"errors", "arrays", "version"}
"""What every room may import."""

MAY_IMPORT = {
    "__main__": "cli",
    "__init__": "api runtime verification",
    "cli": "cli_options api report verification output",
    "cli_options": "api",
    "api": "convert prepare verification report runtime passes analysis algebra model",
    "convert": "prepare report lowering runtime verification output passes analysis rules algebra model ort",
    "verification": "runtime output algebra model ort",
    "report": "lowering rules runtime algebra model",
    "prepare": "output analysis rules runtime algebra model ort",
    "lowering": "passes algebra model ort",
    "passes": "algebra model",
    "analysis": "rules algebra model ort",
    "rules": "algebra model ort",
    "runtime": "algebra ort",
    "algebra": "ort",
    "output": "model",
    "model": "",
    "ort": "",
    "errors": "",
    "arrays": "",
    "version": "",
}
"""The rooms, from the door to the cellar, and what each may import besides `BASE`. All of it stands further down."""

KEYS = {
    f.name
    for kind in vars(sidecar).values()
    if is_dataclass(kind) and kind.__module__ == sidecar.__name__
    for f in fields(kind)
}
"""What a sidecar has."""

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
    """(module, name) of everything of the package that a file imports, wherever in the file and for whatever
    purpose.
    """
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
    wrong = {name for name, _ in imported(path) if [*name.split("."), "__init__"][1] not in allowed}
    assert not wrong, f"{own} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_private_is_imported(path: Path):
    private = {f"{name}.{what}" for name, what in imported(path) if what.startswith("_") and what != "__version__"}
    assert not private


def test_no_file_imports_itself_by_way_of_others():
    reads = {name: {other for other, _ in imported(path)} & set(MODULES) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(reads[name]):
                follow(other, (*path, name))
            done.add(name)

    for name in sorted(reads):
        follow(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_small(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_sidecar_is_read_by_type(path: Path):
    if path.name == "description.py":
        return  # adds to the outputs of a document that it keeps as it is
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.ctx, ast.Load):
            of = node.value.attr if isinstance(node.value, ast.Attribute) else ""
            assert node.slice.value not in KEYS or of == "attributes", f"line {node.lineno}: {ast.unparse(node)}"


RULE_FILES = [path for path in FILES if room(path) == "rules"]
TIMES = {"Time", "Bound", "AtLeast", "time", "Timing", "Solution"}
"""What bounds delays are made of: `algebra` has them, and `passes` solves them."""

ANYWHERE = {"masks", "merged_time", "positions"}
"""Rules that evaluate positions at places of their own, or compare what others made."""

ASKS = PACKAGE / "rules" / "kit" / "real.py"
"""The only file among the rules that asks which frames are real."""


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda p: p.stem)
def test_rules_say_which_frames_and_never_when(path: Path):
    assert not {name for module_, name in imported(path) if module_ == "pulsify_onnx.algebra.delay"} & TIMES


@pytest.mark.parametrize("path", [p for p in RULE_FILES if p.stem not in ANYWHERE], ids=lambda p: p.stem)
def test_rules_do_no_arithmetic_with_delays(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.BinOp) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)):
            found = {a.attr for a in ast.walk(node) if isinstance(a, ast.Attribute)} & {"delay", "delays", "back"}
            assert not found, f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call):
            assert not {k.arg for k in node.keywords} & {"delay", "delays", "pad_before", "cached"}, (
                f"line {node.lineno}: {ast.unparse(node)}"
            )


@pytest.mark.parametrize("path", sorted({*RULE_FILES} - {ASKS}), ids=lambda p: p.stem)
def test_which_frames_are_real_is_asked_in_one_file(path: Path):
    assert not {name for _, name in imported(path)} & {"Start", "Mask", "TimedMask"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and node.args[0].value in ("Less", "Greater", "Min", "Max")
        ):
            made = {a.func.id for a in node.args[1:] if isinstance(a, ast.Call) and isinstance(a.func, ast.Name)}
            assert not made & {"Position", "Count"}, (
                f"line {node.lineno}: a frame is compared with the first or the last one"
            )


def test_dependencies_are_declared():
    declared = {
        re.split(r"[><=]", line)[0]
        for line in re.findall(
            r'"([\w-]+>=[^"]*)"', (ROOT / "pyproject.toml").read_text().split("[project.optional")[0]
        )
    }
    assert declared >= THIRD_PARTY
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            roots = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for root in (r.split(".")[0] for r in roots):
                if root and root not in THIRD_PARTY | {"pulsify_onnx", "ml_dtypes"}:
                    assert root in sys.stdlib_module_names, f"{path.name} imports {root}"


ASK_FOR_OPSETS = {
    "rules/kit/views.py": "what rules, the analysis and passes may ask of a node's version",
    "rules/kit/registry.py": "whether a rule was written for it",
    "lowering/writer.py": "the form of what is written",
    "lowering/older_forms.py": "the form that an older opset has",
    "model/schema.py": "what onnx's schemas say of an operator at an opset",
    "model/opsets.py": "which opsets a model is read as",
    "model/validity.py": "which opsets there are",
}
"""Where an opset is compared with anything. All others pass it on, or ask onnx's schema of an operator that they
write.
"""


def opset_questions(tree: ast.AST) -> Iterator[int]:
    """Lines in which an opset, or the version of a node's schema, is compared."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            inside = [*ast.walk(node)]
            names = {n.attr for n in inside if isinstance(n, ast.Attribute)} | {
                n.id for n in inside if isinstance(n, ast.Name)
            }
            names |= {n.value for n in inside if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            named = all(
                isinstance(each, ast.In | ast.NotIn) for each in node.ops
            )  # whether a domain is imported is no question for its version
            if names & {"opset", "since", "since_version", *([] if named else ["opset_imports"])}:
                yield node.lineno


@pytest.mark.parametrize(
    "text, asks",
    [
        ("if node.since < 13: pass", True),
        ("x = 1 if self.opset == 10 else 2", True),
        ("y = int(node.attr('opset', 13)) >= 13", True),
        ("z = since_version(a, 13, '') is not None", True),
        ("evaluate(opset=node.opset)", False),
        ("if model.opset_imports[''] >= 9: pass", True),
        ("if 'ai.onnx' in model.opset_imports: pass", False),
        ("if node.rank < 13: pass", False),
    ],
)
def test_a_question_for_an_opset_is_seen(text: str, asks: bool):
    assert bool([*opset_questions(ast.parse(text))]) == asks


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_one_place_asks_for_opsets(path: Path):
    asked = [*opset_questions(ast.parse(path.read_text(encoding="utf-8")))]
    if path.relative_to(PACKAGE).as_posix() not in ASK_FOR_OPSETS:
        assert not asked, f"lines {asked} ask for an opset; rules/kit/views.py knows what differs"


@pytest.mark.parametrize("name", ASK_FOR_OPSETS)
def test_who_may_ask_for_opsets_does(name: str):
    assert [*opset_questions(ast.parse((PACKAGE / name).read_text(encoding="utf-8")))]


KNOW_OPERATORS = {
    "rules": "what operators do along a stream",
    "model/schema.py": "what onnx's schemas say of them",
    "model/opsets.py": "operators of older opsets, which are read as today's before any rule sees them",
    "model/sequences.py": "loops over sequences, which are read as loops over tensors before any rule sees them",
    "ort.py": "what onnxruntime does not do with them",
    "lowering/writer.py": "the forms of what is written",
    "lowering/older_forms.py": "the forms that older opsets have",
    "lowering/batch": "what is written of a batch",
}
"""Where operators are known by name. Others ask for what a rule declares (`rules/kit/traits.py`), and name what they
write themselves.
"""

OPERATORS = {schema.name for schema in onnx.defs.get_all_schemas_with_history()} | {name for _, name in RULES}

WRITERS = {"op", "one", "call", "Op", "Node", "Step", "has_attribute", "axes_are_input"}
"""Calls that write an operator, or ask for its form: its name is the first or the second of what they are given."""


def knows_operators(path: Path) -> str | None:
    """The entry of `KNOW_OPERATORS` that lets a file know operators by name."""
    name = path.relative_to(PACKAGE).as_posix()
    return next((entry for entry in KNOW_OPERATORS if name == entry or name.startswith(f"{entry}/")), None)


def operators_named(tree: ast.AST) -> Iterator[str]:
    """Names of operators in code that does not write them; docstrings are none."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        if (
            isinstance(node, ast.Call)
            and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in WRITERS
        ):
            for argument in node.args[:2]:
                skipped |= {
                    id(argument),
                    *((id(argument.body), id(argument.orelse)) if isinstance(argument, ast.IfExp) else ()),
                }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value in OPERATORS
            and id(node) not in skipped
        ):
            yield node.value


@pytest.mark.parametrize(
    "text, named",
    [
        ("if node.op_type == 'Reshape': pass", ["Reshape"]),
        ("MOVES = {'Cast', 'Slice'}", ["Cast", "Slice"]),
        ("x = {'GroupQueryAttention': 3}", ["GroupQueryAttention"]),
        ("'Add'", []),
        ("place.op('Add', x, y)", []),
        ("emit.one('Max' if largest else 'Min', x)", []),
        ("ir.Node('', 'Identity', [x])", []),
        ("x = 'a Reshape'", []),
        ("emit.one('Max', x, mode='Min')", ["Min"]),
        ("put(1, 'Add')", ["Add"]),
    ],
)
def test_a_named_operator_is_seen(text: str, named: list[str]):
    assert [*operators_named(ast.parse(text))] == named


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_operators_are_known_by_rules(path: Path):
    if knows_operators(path) is None:
        named = [*operators_named(ast.parse(path.read_text(encoding="utf-8")))]
        assert not named, f"{', '.join(named)}: a rule declares what an operator is like, see rules/kit/traits.py"


@pytest.mark.parametrize("entry", KNOW_OPERATORS)
def test_who_may_know_operators_does(entry: str):
    assert any(
        knows_operators(path) == entry and [*operators_named(ast.parse(path.read_text(encoding="utf-8")))]
        for path in FILES
    )
