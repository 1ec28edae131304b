"""The walk over a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pulsify_onnx import errors
from pulsify_onnx.analysis import walker
from pulsify_onnx.api import analyze
from pulsify_onnx.rules.kit.registry import RULES
from testing.oracle import parse, rand

MODEL = """agraph (float[1,3,T] x) => (float[1,3,T] y) { y = Relu(x) }"""


def test_a_rule_that_fails_is_a_refusal(monkeypatch):
    def broken(node):
        raise IndexError("list index out of range")

    monkeypatch.setitem(RULES, ("", "Relu"), replace(RULES["", "Relu"], function=broken))
    with pytest.raises(IndexError):
        analyze(parse(MODEL))
    monkeypatch.setattr(walker, "unexpected", errors.unexpected)
    (blocker,) = analyze(parse(MODEL)).blockers
    assert blocker.reason == f"{errors.UNEXPECTED} (IndexError: list index out of range)"
    assert blocker.op_type == "Relu" and "report it" in blocker.hint


@pytest.mark.parametrize("batch", ("B", "batch_size"))
@pytest.mark.parametrize("axes", (None, {"x": 2}))
def test_the_batch_of_one_input_is_no_time_of_another_one(batch, axes):
    """What is in the way of the stream is told, not what would be in the way of one along the rows."""
    model = parse(
        f"""agraph (float[{batch},2,T] x, float[{batch},2] speaker) => (float[{batch},2,U] y) {{
        n = Shape(x)
        s = Unsqueeze(speaker, two)
        e = Expand(s, n)
        a = Add(x, e)
        y = Conv<auto_pad="SAME_UPPER", strides=[4]>(a, w) }}""",
        w=rand(2, 2, 3),
        two=np.array([2]),
    )
    assert [b.op_type for b in analyze(model, axes=axes).blockers] == ["Conv"]
