"""BatchSession: streams on the rows of a batch, fed and ended one by one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx import BatchSession, UsageError, pulsify
from testing import ROOT
from testing.oracle import parse, rand, session
from testing.rowing import batched

FIXTURES = ROOT / "fixtures"


@pytest.mark.parametrize("name", ["same_gru", "delays_at_a_join", "wavenet"])
@pytest.mark.parametrize("pulse", [4, None])
def test_rows_that_come_and_go(name: str, pulse: int | None):
    """Chunks of any size for some of the rows, each of which is flushed at its own time and starts again."""
    model, rng = onnx.load(FIXTURES / f"{name}.onnx"), np.random.default_rng(3)
    pulsed = pulsify(model, pulse=pulse, end_of_stream=True, batch="dynamic")
    batch, out = session(model.SerializeToString()), pulsed.spec["outputs"][0]
    streams, rows = BatchSession(pulsed, 5), range(5)
    channels = pulsed.spec["inputs"][0]["shape"][1]

    def begun() -> tuple[np.ndarray, list[np.ndarray]]:
        return rng.standard_normal((1, channels, int(rng.integers(30, 80)))).astype(np.float32), []

    now, at, ended = {row: begun() for row in rows}, dict.fromkeys(rows, 0), 0
    while ended < 12:
        fed = {
            row: now[row][0][:, :, at[row] : at[row] + int(rng.integers(0, 23))]
            for row in rng.choice(5, 3, replace=False)
        }
        for row, y in streams.push({int(row): x for row, x in fed.items()}).items():
            now[row][1].append(y)
            at[row] += fed[row].shape[2]
        for row in rows:
            x, parts = now[row]
            given_up = rng.random() < 0.05
            if at[row] >= x.shape[2] and not given_up:
                got = np.concatenate([*parts, streams.flush(row)], out["axis"])
                np.testing.assert_allclose(got, batch.run(None, {"x": x})[0], atol=2e-4)
                with pytest.raises(UsageError, match="call restart"):
                    streams.push({row: x})
                ended += 1
            if given_up or at[row] >= x.shape[2]:
                streams.restart(row)
                now[row], at[row] = begun(), 0


def test_a_fixed_number_of_rows_and_a_static_input():
    text = (
        "agraph (float[{0},4,T] x, float[{0},4,1] g) => (float[{0},4,T] y, float[{0},4,1] m) {{ a = "
        "Conv<pads=[1,1]>(x, w, b)\n y = Mul(a, g)\n m = GlobalMaxPool(x) }}"
    )
    weights = {"w": rand(4, 4, 3), "b": rand(4)}
    alone, gains = session(parse(text.format(1), **weights).SerializeToString()), rand(3, 4, 1, seed=7)
    streams = BatchSession(pulsify(parse(text.format(3), **weights), pulse=4, end_of_stream=True), static={"g": gains})
    assert streams.rows == 3
    x = rand(1, 4, 19, seed=5)
    first = streams.push({1: x})[1]
    streams.push({0: rand(1, 4, 9), 2: rand(1, 4, 1)})
    last = streams.flush(1)
    want = alone.run(None, {"x": x, "g": gains[1:2]})
    np.testing.assert_allclose(np.concatenate([first["y"], last["y"]], 2), want[0], atol=1e-5)
    np.testing.assert_allclose(last["m"], want[1], atol=1e-6)


def test_what_it_takes():
    model = batched(
        parse(
            "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Conv<pads=[1,1]>(x, w, b) }", w=rand(4, 4, 3), b=rand(4)
        ),
        rows=4,
    )
    pulsed = pulsify(model, pulse=4)
    with pytest.raises(UsageError, match="takes 4 rows: say how many, not 3"):
        BatchSession(pulsed, 3)
    streams = BatchSession(pulsed)
    with pytest.raises(UsageError, match="no row 4"):
        streams.push({4: np.zeros((1, 4, 2), np.float32)})
    with pytest.raises(UsageError, match="frames have shape"):
        streams.push({0: np.zeros((4, 4, 2), np.float32)})
    with pytest.raises(UsageError, match="without --end-of-stream"):
        streams.flush(0)
    one = onnx.load(FIXTURES / "same_stack.onnx")
    with pytest.raises(UsageError, match="has no batch"):
        BatchSession(pulsify(one, pulse=4), 2)
    with pytest.raises(UsageError, match="any number of rows: say how many"):
        BatchSession(pulsify(one, pulse=4, batch="dynamic"))
    mixed = batched(
        parse("agraph (float[1,4,T] x) => (float[1,4,U] y) { m = ReduceMean<axes=[0], keepdims=1>(x)\n y = Sub(x, m) }")
    )
    with pytest.raises(UsageError, match="start and end together, because of m"):
        BatchSession(pulsify(mixed, pulse=4), 2)
