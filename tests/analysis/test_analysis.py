"""The walk over a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pulsify_onnx import errors
from pulsify_onnx.analysis import walker
from pulsify_onnx.api import analyze
from pulsify_onnx.rules.kit.registry import RULES
from testing.oracle import parse

MODEL = """agraph (float[1,3,T] x) => (float[1,3,T] y) { y = Relu(x) }"""


def test_a_rule_that_fails_is_a_refusal(monkeypatch):
    def broken(node):
        raise IndexError("list index out of range")

    monkeypatch.setitem(RULES, ("", "Relu"), replace(RULES["", "Relu"], function=broken))
    with pytest.raises(IndexError):
        analyze(parse(MODEL))
    monkeypatch.setattr(walker, "unexpected", errors.unexpected)
    blocker, = analyze(parse(MODEL)).blockers
    assert blocker.reason == f"{errors.UNEXPECTED} (IndexError: list index out of range)"
    assert blocker.op_type == "Relu" and "report it" in blocker.hint
