"""Running values over days: float32 sums that are added to once a pulse go on growing after 2^24 frames."""

from __future__ import annotations

import numpy as np
import pytest

from pulsify_onnx.api import pulsify
from testing.oracle import parse, rand, session

LONG, PULSES, TAIL = 1 << 20, 64, 3000
ULPS = 8 * 2.0**-24


def held(x: np.ndarray) -> np.ndarray:
    """Frames before the short pulses: each sum over a long pulse of them is exact."""
    return np.tile(np.float32([0.5, 1.5]), x // 2)


def log_sum_exp(x):
    return np.log(np.exp(x).sum())


def weighted(x):
    return (np.exp(x) * x).sum() / np.exp(x).sum()


MEANING = {
    "y = ReduceSum(x, two)": np.sum,
    "y = ReduceMean<axes=[2]>(x)": np.mean,
    "y = ReduceL1<axes=[2]>(x)": lambda x: np.abs(x).sum(),
    "y = ReduceL2<axes=[2]>(x)": lambda x: np.sqrt((x * x).sum()),
    "y = ReduceSumSquare<axes=[2]>(x)": lambda x: (x * x).sum(),
    "y = ReduceLogSum<axes=[2]>(x)": lambda x: np.log(x.sum()),
    "y = ReduceLogSumExp<axes=[2]>(x)": log_sum_exp,
    "y = GlobalAveragePool(x)": np.mean,
    "m = ReduceMean<axes=[2]>(x)  d = Sub(x, m)  s = Mul(d, d)  y = ReduceMean<axes=[2]>(s)": np.var,
    "t = Transpose<perm=[0,2,1]>(x)  y = MatMul(x, t)": lambda x: (x * x).sum(),
    "a = Softmax<axis=2>(x)  p = Mul(a, x)  y = ReduceSum(p, two)": weighted,
}


def stream(model, rows: int, first: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """The last of the running values: `first` is a long pulse that comes PULSES times, `tail` [rows, frames] comes
    frame by frame.
    """
    pulsed = pulsify(model, pulse=None)
    run = session(pulsed.proto().SerializeToString())  # as onnxruntime optimises it
    names = [s["output"] for s in pulsed.spec["states"]]
    states = {
        s["input"]: np.zeros([d if isinstance(d, int) else rows for d in s["shape"]], s["dtype"])
        for s in pulsed.spec["states"]
    }
    for chunk in [first] * PULSES + [tail[:, k : k + 1] for k in range(tail.shape[1])]:
        value, *after = run.run(["y", *names], {"x": np.ascontiguousarray(chunk[:, None]), **states})
        states = dict(zip(states, after))
    return value


@pytest.mark.parametrize("body", MEANING)
def test_sums_go_on(body):
    model = parse(
        f"agraph (float[1,1,T] x) => (float y) {{ {body} }}", **({"two": np.int64([2])} if "two" in body else {})
    )
    weights = (
        "Softmax" in body or "Exp" in body
    )  # equal ones add up to whole numbers, as the long pulses are to be exact
    tail = ((0.5 if weights else 2.5) + np.random.default_rng(3).random((1, TAIL)) * (0.5 if weights else 1)).astype(
        np.float32
    )
    first = np.ones((1, LONG), np.float32) if weights else held(LONG)[None]
    got = float(stream(model, 1, first, tail).reshape(-1)[0])
    want = MEANING[body](np.concatenate([np.tile(first[0], PULSES), tail[0]]).astype(np.float64))
    without = MEANING[body](np.tile(first[0], PULSES).astype(np.float64))
    assert abs(want - without) > 2 * ULPS * abs(want)  # what stops growing is seen
    assert abs(got - want) <= ULPS * abs(want), (got, want)


def test_rows_keep_their_own_losses():
    model = parse("agraph (float[N,1,T] x) => (float[N,1,1] y) { y = ReduceMean<axes=[2]>(x) }")
    tail = np.stack([np.full(TAIL, 3, np.float32), rand(TAIL, seed=4)])
    first = np.stack([held(LONG), 1 - held(LONG)])
    got = stream(model, 2, first, tail).reshape(-1)
    for row in range(2):
        want = np.concatenate([np.tile(first[row], PULSES), tail[row]]).astype(np.float64).mean()
        assert abs(got[row] - want) <= ULPS * max(abs(want), 1e-3), row


@pytest.mark.parametrize(
    "bad, want",
    [([np.inf], np.inf), ([-np.inf], -np.inf), ([np.inf, -np.inf], np.nan), ([np.nan], np.nan), ([3e38, 3e38], np.inf)],
)
def test_what_is_not_finite_stays(bad, want):
    model = parse("agraph (float[1,1,T] x) => (float[1,1,1] y) { y = ReduceSum(x, two) }", two=np.int64([2]))
    pulsed = pulsify(model, pulse=1)
    run = session(pulsed.proto().SerializeToString())
    states = {s["input"]: np.zeros(s["shape"], s["dtype"]) for s in pulsed.spec["states"]}
    for x in [1.0, *bad, 2.0, 3.0]:
        value, *after = run.run(None, {"x": np.full((1, 1, 1), x, np.float32), **states})
        states = dict(zip(states, after))
    np.testing.assert_equal(value.item(), np.float32(want))
