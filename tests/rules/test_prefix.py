import numpy as np
import pytest

from pulsify_onnx.algebra.facts import Running
from pulsify_onnx.api import analyze
from testing.oracle import check, parse, rand, refused

WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}


def test_frames_weighted_by_their_position():
    """A centre of gravity: positions need no state, wherever they are read."""
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4] y) { a = Conv<pads=[1,1]>(x, w, b)
        n = Shape(x)
        t = Gather(n, two)
        r = Range(zero, t, one)
        f = Cast<to=1>(r)
        y = MatMul(a, f) }""",
            two=np.int64(2),
            zero=np.int64(0),
            one=np.int64(1),
            **WEIGHTS,
        )
    )


@pytest.mark.parametrize("op, gates", [("GRU", 3), ("RNN", 1), ("LSTM", 4)])
def test_final_states_of_a_delayed_recurrence(op, gates):
    extra = ", c" if op == "LSTM" else ""
    more = ", float[1,1,5] c" if op == "LSTM" else ""
    spec = check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,1,5] h{more}) {{ a = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[2,0,1]>(a)
        y, h{extra} = {op}<hidden_size=5>(t, gw, gr, gb, , h0) }}""",
            gw=rand(1, 5 * gates, 4),
            gr=rand(1, 5 * gates, 5),
            gb=rand(1, 10 * gates),
            h0=rand(1, 1, 5, seed=7),
            **WEIGHTS,
        )
    ).spec
    assert {o["kind"] for o in spec["outputs"]} == {"prefix"} and spec["flush_pulses"] == 1


def test_what_a_value_waits_for_goes_on_with_it():
    plan = analyze(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4] y) { a = Conv<pads=[1,1]>(x, w, b)
        m = ReduceMean<axes=[2], keepdims=0>(a)
        n = ReduceMax<axes=[2], keepdims=0>(x)
        y = Add(m, n) }""",
            **WEIGHTS,
        )
    ).at()
    fact = plan.facts["y"]
    assert isinstance(fact, Running) and not fact.exact and sorted(int(w.delay) for w in fact.waits) == [0, 1]


def test_rates_meet_in_a_value():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4] y) { a = Conv<pads=[1,1], strides=[3]>(x, w, b)
        m = ReduceMean<axes=[2], keepdims=0>(a)
        n = ReduceMax<axes=[2], keepdims=0>(x)
        y = Add(m, n) }""",
            **WEIGHTS,
        )
    )


def test_a_choice_between_pending_values_is_refused():
    refused(
        parse(
            """agraph (float[1,4,T] x, bool flag) => (float[1,4,1] y) {
        s = If(flag) <then_branch = one () => (float[1,4,T] p) { p = Softmax<axis=2>(x) },
                      else_branch = two () => (float[1,4,T] q) { q = Sigmoid(x) }>
        m = Mul(s, x)
        y = ReduceSum(m, axes) }""",
            axes=np.asarray([2]),
        ),
        "it is taken over the whole stream",
        axes={"x": 2},
        op_type="Softmax",
    )
