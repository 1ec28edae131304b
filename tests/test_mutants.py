"""The mutation test on a small package; its faults by name still apply to the source, and a few are caught. ``make
mutants`` runs all.
"""

from __future__ import annotations

import pytest

from tools.mutants import drawn, outcomes
from tools.mutation_tree import ROOT, nearest
from tools.mutations import mutations
from tools.named_mutants import MUTANTS, caught, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_it_applies(mutant):
    text = (ROOT / "pulsify_onnx" / mutant.file).read_text(encoding="utf-8")
    assert compile(mutated(mutant, text), mutant.file, "exec")
    assert all((ROOT / test).is_file() for test in mutant.tests.split())


def test_there_are_enough_of_them():
    assert len(MUTANTS) >= 25 and len({m.name for m in MUTANTS}) == len(MUTANTS) and len({m.file for m in MUTANTS}) >= 8


@pytest.mark.parametrize(
    "name, what",
    [("mask dropped", "MaxPool z"), ("initial state never taken", "GRU y"), ("delay one frame too long", "late by")],
)
def test_a_mutant_is_caught(name, what):
    tests, verify, by, found = caught(next(m for m in MUTANTS if m.name == name))
    assert tests and by and verify and what in found


TOY = '''"""A toy."""


def window(delay: int, span: int, stride: int = 1) -> int:
    """The least delay, never below 0: 3 words."""
    if stride > span:
        return 1
    return max(0, delay + span - stride)


def unseen(x: int) -> int:
    """Nothing tests it."""
    return x + 1
'''
TOY_TEST = (
    "from toy.window import window\n\n\ndef test_it():\n    assert window(2, 3) == 4 and window(0, 1) == 0 "
    "and window(1, 2, 3) == 1 and window(1, 2, 2) == 1\n"
)


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "toy" / "window.py").write_text(TOY)
    (tmp_path / "toy" / "reader.py").write_text("from toy.window import unseen\n\nY = unseen(1)\n")
    for name, text in (
        ("window", TOY_TEST),
        ("reader", "def test_nothing():\n    pass\n"),
        ("other", "assert False\n"),
    ):
        (tmp_path / "tests" / f"test_{name}.py").write_text(text)
    return tmp_path


def test_mutations_of_every_sort():
    found = {(m.line, m.old, m.new) for m in mutations(TOY)}
    assert {
        (6, "stride > span", "(stride >= span)"),
        (6, "if stride > span:\n        return 1", "pass"),
        (7, "1", "2"),
        (8, "max(0, delay + span - stride)", "0"),
        (8, "max(0, delay + span - stride)", "(delay + span - stride)"),
        (8, "delay + span", "(delay - span)"),
        (8, "delay + span - stride", "(delay + span)"),
        (8, "max(0, delay + span - stride)", "(min(0, delay + span - stride))"),
        (13, "x + 1", "(x)"),
    } <= found
    assert all("words" not in m.old and m.new != m.old for m in mutations(TOY))
    swapped = mutations(
        "def f(a, b):\n    go(a, b, 1)\n    a += b\n    return a is not None and not b and g(k=a, l=b)\n"
    )
    assert {
        "(go(b, a, 1))",
        "pass",
        "(a is None)",
        "(b)",
        "(g(l=b))",
        "(a is not None or not b or g(k=a, l=b))",
        "(not b and g(k=a, l=b))",
    } <= {m.new for m in swapped}


def test_survivors_are_told(toy):
    chosen = drawn(toy, "toy", ["window.py"], 1000, 3)
    assert chosen == drawn(toy, "toy", ["window.py"], 1000, 3) != drawn(toy, "toy", ["window.py"], 1000, 4)
    assert nearest(toy, "toy", "window.py", 9) == ["tests/test_window.py", "tests/test_reader.py"]
    some = [
        (file, m) for file, m in chosen if m.line in (6, 13) and m.new in ("(stride >= span)", "(x)", "(x - 1)", "pass")
    ]
    found = {m.mutation.new: (m.caught, m.by) for m in outcomes(toy, "toy", some, parts=("toy", "tests"))}
    assert found["(stride >= span)"] == found["pass"] == (True, "tests/test_window.py::test_it")
    assert found["(x)"] == found["(x - 1)"] == (False, "")
    assert (toy / "toy" / "window.py").read_text() == TOY
