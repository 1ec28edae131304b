"""A plan can be read: a line a step, with what flows, what is read and what is remembered."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from pulsify_onnx import UsageError, analyze, inspect, pulsify
from pulsify_onnx.algebra.plan import Options
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.model.load import load
from pulsify_onnx.passes.plan_text import lines
from testing.command import run
from testing.oracle import parse, rand

CONVS = """agraph (float[1,4,T] x) => (float[1,4,U] y) {
    p = Relu(x)
    a = Conv<pads=[1,1]>(p, w, b)
    y = Conv<pads=[1,1], strides=[2]>(a, w, b) }"""
WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}
BAND = """
    s = Shape(x)
    n = Gather<axis=0>(s, one)
    i = Range(zero, n, one)
    qi = Unsqueeze(i, ax1)
    ki = Unsqueeze(i, ax0)
    d = Sub(qi, ki)
    near = LessOrEqual(d, left)
    past = GreaterOrEqual(d, right)
    open = And(near, past)
"""
BOUNDS = {
    "one": np.int64(1),
    "zero": np.int64(0),
    "ax0": np.asarray([0]),
    "ax1": np.asarray([1]),
    "left": np.int64(2),
    "right": np.int64(-1),
    "ninf": np.float32(-np.inf),
}
GRU = "agraph (float[T,1,4] x) => (float[T,1,1,6] y) { y, h = GRU<hidden_size=6>(x, w, r) }"


def test_every_step_has_its_line():
    plan = analyze(parse(CONVS, **WEIGHTS)).at()
    found = lines(plan)
    assert len(found) == 1 + len(plan.steps)
    assert found[0] == "x input -> x[1,4,T] stream axis 2 rate 1 extent T delay 0"
    assert [line.split(" <- ")[1] for line in found[2:]] == [
        "b, w, p{from -2, pulse+2}; history of a: 2 masked",
        "b, w, a{from -2, pulse+1, real from 1 to ..}",
    ]
    assert "y[1,4,floor((T + 1)/2)] stream axis 2 rate 1/2 extent floor((T + 1)/2) delay 1" in found[3]
    assert found[1].endswith("; history of p: 2")


def test_states_are_told():
    (line,) = (
        text
        for text in lines(analyze(parse(GRU, w=rand(1, 18, 4), r=rand(1, 18, 6)), axes={"x": 0}).at())
        if " GRU " in text
    )
    assert "past " in line and "[1,1,6] recurrent" in line


def test_a_plan_before_its_schedule_can_be_read():
    _, plan = choose(load(parse(CONVS, **WEIGHTS)), {}, Options())
    found = lines(plan)
    assert len(found) == 1 + len(plan.steps) and not any("history" in line for line in found)


def test_attention_can_be_read():
    found = inspect(
        parse(
            "agraph (float[1,T,4] x) => (float[1,T,4] y) {"
            + BAND
            + """
        k = Transpose<perm=[0,2,1]>(x)
        score = MatMul(x, k)
        m = Where(open, score, ninf)
        w = Softmax<axis=2>(m)
        y = MatMul(w, x) }""",
            **BOUNDS,
        ),
        axes={"x": 1},
    )
    assert not found.blockers
    (score,) = (line for line in found.plan_lines() if " MatMul -> score[" in line)
    assert "score[1,T,T] query key axes 1 and 2 rate 1 delay 0 and 0" in score
    assert any("{from -" in line and " by from -" in line for line in found.plan_lines())


def test_inspect_shows_it(tmp_path, capfd):
    path = tmp_path / "convs.onnx"
    onnx.save(parse(CONVS, **WEIGHTS), path)
    want = inspect(path).plan_lines()
    code, out, err = run(capfd, "inspect", path, "--plan")
    assert code == 0 and err == "" and out.splitlines() == want
    code, out, err = run(capfd, "inspect", path, "--plan", "--json")
    document = json.loads(out)
    assert document.pop("plan") == want
    code, out, err = run(capfd, "inspect", path, "--json")
    assert json.loads(out) == document


def test_a_blocked_model_shows_what_is_known(tmp_path, capfd):
    path = tmp_path / "blocked.onnx"
    onnx.save(
        parse(
            "agraph (float[1,4,T] x) => (float[1,4,T] y) { a = Relu(x)\n y = CumSum<reverse=1>(a, axis) }",
            axis=rand(1).astype("int64").reshape(()) * 0 + 2,
        ),
        path,
    )
    code, out, err = run(capfd, "inspect", path, "--plan", "--axis", "x=2")
    assert code == 3 and " Relu -> a[1,4,T]" in out and "cannot stream CumSum" in err


def test_a_pulsed_model_has_none(tmp_path, capfd):
    path = tmp_path / "pulsed.onnx"
    pulsify(parse(CONVS, **WEIGHTS), pulse=2).save(path)
    code, out, err = run(capfd, "inspect", path, "--plan")
    assert code == 2 and out == "" and "pulsed already" in err
    with pytest.raises(UsageError, match="no plan"):
        inspect(path).plan_lines()
