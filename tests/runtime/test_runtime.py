"""StreamSession: chunks of any size give what the batch model gives."""

from __future__ import annotations

import numpy as np
import pytest

from pulsify_onnx import StreamSession, UsageError, pulsify
from testing.oracle import parse, rand, session

STACK = """agraph (float[1,3,T] x) => (float[1,3,U] y) {
    a = Conv<pads=[1,1]>(x, w, b)
    y = Conv<pads=[2,2], strides=[2]>(a, w, b) }"""


def stack():
    return parse(STACK, w=rand(3, 3, 3), b=rand(3))


def batch(model, *arrays):
    sess = session(model.SerializeToString())
    return sess.run(None, dict(zip([i.name for i in sess.get_inputs()], arrays)))


def chunks(x, sizes, axis=2):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


@pytest.mark.parametrize("pulse", [2, 6, None])
@pytest.mark.parametrize("total", [1, 5, 33])
def test_chunks_of_any_size_to_the_last_frame(pulse, total):
    model, x = stack(), rand(1, 3, total, seed=3)
    stream = StreamSession(pulsify(model, pulse=pulse, end_of_stream=True))
    want = batch(model, x)[0]
    for _ in range(2):
        got = []
        at = 0
        for size in [1, 0, 7, 2, 40]:
            got.append(stream.push(x[..., at : at + size]))
            at += size
        got.append(stream.flush())
        np.testing.assert_allclose(np.concatenate(got, 2), want, atol=1e-5)
        assert stream.flush().shape[2] == 0
        stream.reset()


def test_frames_that_a_crop_may_take_are_held_back():
    model = parse("""<ir_version: 8, opset_import: ["": 17]> agraph (float[1,3,T] x) => (float[1,3,U] y)
        <int64[1] s = {0}, int64[1] e = {-3}, int64[1] a = {2}> { y = Slice(x, s, e, a) }""")
    x = rand(1, 3, 10)
    stream = StreamSession(pulsify(model, pulse=2, end_of_stream=True))
    got = [stream.push(part) for part in chunks(x, [4, 2, 4])] + [stream.flush()]
    assert [g.shape[2] for g in got] == [1, 2, 4, 0]
    np.testing.assert_array_equal(np.concatenate(got, 2), x[..., :7])


def test_several_inputs_outputs_and_a_static_one():
    model = parse("""agraph (float[1,3,T] x, float[1,3,T] z, float[1,3,1] g) => (float[1,3,T] y, float[1,3] m) {
        s = Add(x, z)
        y = Mul(s, g)
        m = ReduceMax<axes=[2], keepdims=0>(s) }""")
    x, z, g = rand(1, 3, 9, seed=1), rand(1, 3, 9, seed=2), rand(1, 3, 1, seed=3)
    stream = StreamSession(pulsify(model, pulse=3, axes={"x": 2, "z": 2}), static={"g": g})
    first = stream.push({"x": x[..., :2], "z": z[..., :9]})
    assert first["y"].shape == (1, 3, 0) and first["m"] is None
    second = stream.push({"x": x[..., 2:]})
    y, m = batch(model, x, z, g)
    np.testing.assert_allclose(second["y"], y, atol=1e-6)
    np.testing.assert_allclose(second["m"], m, atol=1e-6)


def test_wrong_use_is_named():
    stream = StreamSession(pulsify(stack(), pulse=2))
    with pytest.raises(UsageError, match="shape"):
        stream.push(rand(1, 4, 2))
    with pytest.raises(UsageError, match="no input q"):
        stream.push({"q": rand(1, 3, 2)})
    with pytest.raises(UsageError, match="--end-of-stream"):
        stream.flush()
    ended = StreamSession(pulsify(stack(), pulse=2, end_of_stream=True))
    ended.flush()
    with pytest.raises(UsageError, match="ended"):
        ended.push(rand(1, 3, 2))
