"""The mutation test still applies to the source, and catches a few mutants; ``make mutants`` runs all."""

from __future__ import annotations

import pytest

from tools.mutants import MUTANTS, ROOT, caught, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_it_applies(mutant):
    text = (ROOT / "pulsify_onnx" / mutant.file).read_text(encoding="utf-8")
    assert compile(mutated(mutant, text), mutant.file, "exec")
    assert all((ROOT / test).is_file() for test in mutant.tests.split())


def test_there_are_enough_of_them():
    assert len(MUTANTS) >= 25 and len({m.name for m in MUTANTS}) == len(MUTANTS) and len({m.file for m in MUTANTS}) >= 8


@pytest.mark.parametrize("name, what", [("mask dropped", "MaxPool z"), ("initial state never taken", "GRU y"), ("delay one frame too long", "late by")])
def test_a_mutant_is_caught(name, what):
    tests, verify, by, found = caught(next(m for m in MUTANTS if m.name == name))
    assert tests and by and verify and what in found
