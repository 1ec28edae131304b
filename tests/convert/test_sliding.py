"""Sliding classifiers: a streamed body, and a head that runs on the last window of frames."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pulsify_onnx import StreamSession
from pulsify_onnx.api import PulsedModel, inspect, pulsify, verify
from pulsify_onnx.errors import AmbiguousAxis, CannotStream, PulseDoesNotFit, UsageError
from pulsify_onnx.runtime.runner import PulseRunner
from testing import ROOT
from testing.command import run
from testing.oracle import parse, rand, session, take

FIXTURES = ROOT / "fixtures" / "clips"
CLIP = 20


def text(
    body: str,
    inputs: str = f"float[1, 4, {CLIP}] x",
    outputs: str = "float[1, 3] y",
    opset: int = 17,
    **weights: np.ndarray,
) -> onnx.ModelProto:
    return parse(
        f'<ir_version: 8, opset_import: ["": {opset}]> agraph ({inputs}) => ({outputs}) {{ {body} }}', **weights
    )


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def streamed(
    pulsed: PulsedModel, arrays: Mapping[str, np.ndarray], sizes: Sequence[int]
) -> list[dict[str, np.ndarray]]:
    """Outputs of every pulse; every state begins as zeros."""
    spec, sess = pulsed.spec, session(pulsed.proto().SerializeToString(), plain=True)
    rows = {
        label: size
        for i in spec["inputs"]
        for label, size in zip(i["shape"], arrays[i["name"]].shape)
        if isinstance(label, str)
    }
    states = {s["input"]: np.zeros([rows.get(d, d) for d in s["shape"]], s["dtype"]) for s in spec["states"]}
    found, start = [], 0
    for size in sizes:
        feeds = {
            i["name"]: arrays[i["name"]]
            if i["kind"] == "static"
            else np.ascontiguousarray(
                take(arrays[i["name"]], i["axis"], *(n * i["rate"][0] // i["rate"][1] for n in (start, start + size)))
            )
            for i in spec["inputs"]
        }
        outs = dict(zip([o.name for o in sess.get_outputs()], sess.run(None, {**feeds, **states})))
        states = {s["input"]: outs[s["output"]] for s in spec["states"]}
        found.append({o["name"]: outs[o["name"]] for o in spec["outputs"]})
        start += size
    return found


def drawn(pulsed: PulsedModel, frames: int, rows: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    arrays = {}
    for i in pulsed.spec["inputs"]:
        shape = [rows if isinstance(d, str) else d for d in i["shape"]]
        if i["kind"] == "stream":
            shape[i["axis"]] = frames * i["rate"][0] // i["rate"][1]
        arrays[i["name"]] = rng.standard_normal(shape).astype(i["dtype"])
    return arrays


def slides(
    model: onnx.ModelProto,
    *,
    delay: int,
    axes: Mapping[str, int] | None = None,
    pulses: Sequence[int | None] = (1, 3, 7, 2 * CLIP, None),
    head: str = "window",
    frames: int = CLIP,
    rows: int = 1,
) -> PulsedModel:
    """Every result is what the batch model gives for the window that the sidecar names; `delay` at the smallest
    pulse.
    """
    batch = session(model.SerializeToString(), plain=True)
    made: PulsedModel | None = None
    multiple = pulsify(model, pulse=None, axes=axes or {"x": 2}, head=head).spec["pulse_multiple"]
    for pulse in dict.fromkeys(None if p is None else multiple * math.ceil(p / multiple) for p in pulses):
        made = pulsify(model, pulse=pulse, axes=axes or {"x": 2}, head=head)
        told = made.spec["head"]
        assert (told["exact"], told["frames"], told["delay"], told["padding"]) == (True, frames, delay, [])
        assert 0 not in [d for s in made.spec["states"] for d in s["shape"]]
        back = frames + delay
        sizes = [pulse or multiple * k for k in (2, 1, 5, 3, 1, 8, 1, 1, 2)] * math.ceil(
            (back + 40) / ((pulse or 3 * multiple) * 9)
        )
        arrays = drawn(made, sum(sizes), rows)
        late = [o["name"] for o in made.spec["outputs"] if o["kind"] == "window"]
        compared, ends = 0, np.cumsum(sizes)
        assert pulse is None or told["full_after"] == next(k for k, n in enumerate(ends, 1) if n >= back)
        for n, got in zip(ends.tolist(), streamed(made, arrays, sizes)):
            if n < back:
                continue
            clip = {
                i["name"]: take(
                    arrays[i["name"]],
                    i["axis"],
                    *(m * i["rate"][0] // i["rate"][1] for m in (n - back, n - back + frames)),
                )
                if i["kind"] == "stream"
                else arrays[i["name"]]
                for i in made.spec["inputs"]
            }
            for name, want in zip(late, batch.run(late, clip)):
                assert got[name].shape == want.shape and got[name].dtype == want.dtype
                assert np.allclose(got[name], want, rtol=0, atol=1e-4 * max(1.0, float(np.abs(want).max()))), (
                    f"pulse {pulse}: {name} after {n} frames"
                )
                compared += 1
        assert compared
        assert verify(model, made).ok
    assert made is not None
    return made


CONVS = "a = Conv(x, k1, b1) r = Relu(a) c = Conv<strides=[{s}]>(r, k2, b2) "
K = {"k1": rand(6, 4, 3), "b1": rand(6, seed=1), "k2": rand(5, 6, 3, seed=2), "b2": rand(5, seed=3)}


@pytest.mark.parametrize(("stride", "frames"), [(1, 16), (2, 8), (3, 6)])
def test_flattened_frames(stride: int, frames: int):
    model = text(
        CONVS.replace("{s}", f"{stride}") + "f = Flatten<axis=1>(c) y = Gemm(f, w, b)",
        **K,
        w=rand(5 * frames, 3),
        b=rand(3),
    )
    delay = {1: 0, 2: 0, 3: 1}[stride]
    made = slides(model, delay=delay)
    assert made.spec["head"]["nodes"] == ["f", "y"]
    assert made.spec["head"]["windows"] == [
        {"wire": "c", "axis": 2, "frames": frames, "rate": [1, stride], "edges": [0, 0]}
    ]


HEADS = {
    "global average": ("g = GlobalAveragePool(c) f = Flatten<axis=1>(g) y = Gemm(f, w)", {"w": rand(5, 3)}),
    "global maximum": ("g = ReduceMax<axes=[2], keepdims=0>(c) y = Gemm(g, w)", {"w": rand(5, 3)}),
    "pool over all frames": (
        "g = AveragePool<kernel_shape=[16]>(c) f = Flatten<axis=1>(g) y = Gemm(f, w)",
        {"w": rand(5, 3)},
    ),
    "softmax over time": (
        "s = Softmax<axis=2>(c) m = Mul(s, c) g = ReduceSum<keepdims=0>(m, i2) y = Gemm(g, w)",
        {"w": rand(5, 3), "i2": ints(2)},
    ),
    "squeeze and excite": (
        "g = GlobalAveragePool(c) q = Sigmoid(g) m = Mul(c, q) f = Flatten(m) y = Gemm(f, w)",
        {"w": rand(80, 3)},
    ),
    "group norm": ("n = GroupNormalization<num_groups=1>(c, b2, b2) f = Flatten(n) y = Gemm(f, w)", {"w": rand(80, 3)}),
    "norm over time": ("n = InstanceNormalization(c, b2, b2) f = Flatten(n) y = Gemm(f, w)", {"w": rand(80, 3)}),
    "attention": (
        "t = Transpose<perm=[0, 2, 1]>(c) s = MatMul(t, c) p = Softmax(s) v = MatMul(p, t) g = "
        "ReduceMean<axes=[1], keepdims=0>(v) y = Gemm(g, w)",
        {"w": rand(5, 3)},
    ),
    "positions": (
        "p = Add(c, table) q = Relu(p) f = Flatten(q) y = Gemm(f, w)",
        {"w": rand(80, 3), "table": rand(1, 5, 16)},
    ),
    "last state": (
        "t = Transpose<perm=[2, 0, 1]>(c) h, e = GRU<hidden_size=3>(t, gw, gr) y = Squeeze(e, i0)",
        {"gw": rand(1, 9, 5), "gr": rand(1, 9, 3), "i0": ints(0)},
    ),
    "all states": (
        "t = Transpose<perm=[2, 0, 1]>(c) h, e = GRU<hidden_size=3>(t, gw, gr) s = Transpose<perm=[2, 1, 3, 0]>(h) "
        "f = Flatten<axis=1>(s) y = Gemm(f, w)",
        {"gw": rand(1, 9, 5), "gr": rand(1, 9, 3), "w": rand(48, 3)},
    ),
    "both directions": (
        't = Transpose<perm=[2, 0, 1]>(c) h, e = GRU<hidden_size=3, direction="bidirectional">(t, gw, gr) s = '
        "ReduceMean<axes=[0, 1], keepdims=0>(h) "
        "y = Identity(s)",
        {"gw": rand(2, 9, 5), "gr": rand(2, 9, 3)},
    ),
    "running sum": ("s = CumSum(c, i2) f = Flatten(s) y = Gemm(f, w)", {"w": rand(80, 3), "i2": np.int64(2)}),
    "padding before the head": (
        "p = Pad(c, pads) q = Tanh(p) f = Flatten(q) y = Gemm(f, w)",
        {"w": rand(105, 3), "pads": ints(0, 0, 2, 0, 0, 3)},
    ),
    "mirrored padding": (
        'p = Pad<mode="reflect">(c, pads) f = Flatten(p) y = Gemm(f, w)',
        {"w": rand(100, 3), "pads": ints(0, 0, 2, 0, 0, 2)},
    ),
    "a shape that is computed": (
        "n = Shape<start=0, end=1>(x) q = Concat<axis=0>(n, m1) f = Reshape(c, q) y = Gemm(f, w)",
        {"w": rand(80, 3), "m1": ints(-1)},
    ),
    "a count of frames": (
        "n = Shape<start=2>(c) q = Cast<to=1>(n) g = ReduceSum<keepdims=0>(c, i2) d = Div(g, q) y = Gemm(d, w)",
        {"w": rand(5, 3), "i2": ints(2)},
    ),
    "branches": (
        "g = ReduceMax<axes=[2], keepdims=0>(c) o = ReduceSum<keepdims=0>(g) t = Less(z, o) "
        "y = If(t) <then_branch = yes () => (float[1, 3] u) { u = Gemm(g, w) }, else_branch = no () => (float[1, "
        "3] v) { s = Flatten(c) v = Gemm(s, w2) }>",
        {"w": rand(5, 3), "w2": rand(80, 3), "z": np.float32(3)},
    ),
    "quantised by its range": (
        "f = Flatten(c) q, s, z = DynamicQuantizeLinear(f) d = DequantizeLinear(q, s, z) y = Gemm(d, w)",
        {"w": rand(80, 3)},
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str):
    body, weights = HEADS[name]
    made = slides(
        text(CONVS.replace("{s}", "1") + body, opset=21 if name == "group norm" else 17, **K, **weights),
        delay=0,
        pulses=(1, 7, None),
    )
    (window,) = made.spec["head"]["windows"]
    assert (window["frames"], window["rate"], window["edges"]) == (16, [1, 1], [0, 0])
    assert made.spec["state_bytes"] == 2 * 4 * 4 + 2 * 6 * 4 + 15 * 5 * 4


@pytest.mark.parametrize("frames", [24, 12])
def test_inputs_at_two_rates(frames: int):
    """The second input has two frames for each of the first; without a length of their own, as many as the window
    asks for.
    """
    body = (
        "a = Conv<strides=[2]>(z, k2, b2) s = Add(x, a) c = Conv(s, k1, b1) f = ReduceMax<axes=[2], "
        "keepdims=0>(c) y = Gemm(f, w)"
    )
    weights = {"k2": rand(4, 2, 2), "b2": rand(4), "k1": K["k1"], "b1": K["b1"], "w": rand(6, 3)}
    fixed = text(body, inputs=f"float[1, 4, {frames}] x, float[1, 2, {2 * frames}] z", **weights)
    slides(fixed, delay=0, axes={"x": 2, "z": 2}, frames=frames, pulses=(1, 7, None))
    free = text(body, inputs="float[1, 4, T] x, float[1, 2, S] z", **weights)
    slides(free, delay=0, axes={"x": 2, "z": 2}, frames=frames, head=f"window={frames}", pulses=(1, 7, None))


def test_streams_of_other_delays_and_rates():
    """A short and a long branch, the other at half the rate: their windows begin at the same frame."""
    model = text(
        "a = Conv(x, k1, b1) l = Conv(a, k5) s = Conv<strides=[2]>(x, k2, b2) f = Flatten(l) g = Flatten(s) j = "
        "Concat<axis=1>(f, g) y = Gemm(j, w)",
        k1=K["k1"],
        b1=K["b1"],
        k5=rand(2, 6, 5),
        k2=rand(3, 4, 2),
        b2=rand(3),
        w=rand(2 * 14 + 3 * 10, 3),
    )
    made = slides(model, delay=0)
    assert [(w["wire"], w["frames"], w["rate"]) for w in made.spec["head"]["windows"]] == [
        ("l", 14, [1, 1]),
        ("s", 10, [1, 2]),
    ]
    assert all(w["edges"] == [0, 0] for w in made.spec["head"]["windows"])


def test_windows_begin_at_whole_steps_of_the_body():
    """Down and up again: frames at odd places are others, so windows of an odd lag begin one frame earlier."""
    model = text(
        "a = Conv<strides=[2]>(x, k2, b2) u = ConvTranspose<strides=[2]>(a, t) c = Conv(u, k3) f = Flatten(c) y = "
        "Gemm(f, w)",
        k2=rand(3, 4, 2),
        b2=rand(3),
        t=rand(3, 2, 2),
        k3=rand(2, 2, 2),
        w=rand(38, 3),
    )
    slides(model, delay=0, pulses=(2, 6, 40, None))
    odd = text(
        "a = Conv<strides=[2]>(x, k2, b2) u = ConvTranspose<strides=[2]>(a, t) c = Conv(u, k3) f = Flatten(c) y = "
        "Gemm(f, w)",
        inputs="float[1, 4, 21] x",
        k2=rand(3, 4, 2),
        b2=rand(3),
        t=rand(3, 2, 2),
        k3=rand(2, 2, 2),
        w=rand(38, 3),
    )
    slides(odd, delay=1, frames=21, pulses=(2, 6, 40, None))


def test_the_input_itself():
    """The head reads frames of the input beside those of the body; or nothing streams, and it reads only these."""
    model = text(
        "a = Conv(x, k1, b1) g = GlobalMaxPool(a) h = GlobalAveragePool(x) j = Concat<axis=1>(g, h) f = Flatten(j) "
        "y = Gemm(f, w)",
        k1=K["k1"],
        b1=K["b1"],
        w=rand(10, 3),
    )
    assert [w["wire"] for w in slides(model, delay=0).spec["head"]["windows"]] == ["x", "a"]
    whole = text("f = Flatten(x) y = Gemm(f, w)", w=rand(80, 3))
    slides(whole, delay=0)
    assert pulsify(whole, pulse=3, axes={"x": 2}, head="window").spec["state_bytes"] == (CLIP - 3) * 4 * 4


def test_other_inputs_and_outputs():
    """A static input of the head, frames beside the result, and two results."""
    model = text(
        "a = Conv(x, k1, b1) r = Relu(a) g = ReduceMean<axes=[2], keepdims=0>(r) s = MatMul(v, m) h = Add(g, s) y "
        "= Gemm(h, w) z = Softmax(y)",
        inputs=f"float[1, 4, {CLIP}] x, float[1, 2] v",
        outputs="float[1, 3] y, float[1, 6, 18] r, float[1, 3] z",
        k1=K["k1"],
        b1=K["b1"],
        m=rand(2, 6),
        w=rand(6, 3),
    )
    made = slides(model, delay=0)
    assert [(o["name"], o["kind"]) for o in made.spec["outputs"]] == [("y", "window"), ("r", "stream"), ("z", "window")]
    assert made.spec["outputs"][1]["delay"] == 2


def test_sizes_of_a_clip():
    """A length that leaves the model is that of a clip, always."""
    made = slides(
        text(
            "c = Conv(x, k1, b1) y = Softmax<axis=2>(c) n = Shape(c)",
            outputs="float[1, 6, 18] y, int64[3] n",
            k1=K["k1"],
            b1=K["b1"],
        ),
        delay=0,
    )
    assert [(o["name"], o["kind"]) for o in made.spec["outputs"]] == [("y", "window"), ("n", "static")]


def test_an_input_of_as_many_values_is_no_stream():
    model = text(
        "c = Conv(x, k1, b1) g = ReduceMax<axes=[2], keepdims=0>(c) q = MatMul(v, m) h = Add(g, q) y = Gemm(h, w)",
        inputs=f"float[1, 4, {CLIP}] x, float[1, {CLIP}] v",
        k1=K["k1"],
        b1=K["b1"],
        m=rand(CLIP, 6),
        w=rand(6, 3),
    )
    with pytest.raises(AmbiguousAxis):
        pulsify(model, pulse=1, head="window")
    assert [i["kind"] for i in slides(model, delay=0).spec["inputs"]] == ["stream", "static"]


@pytest.mark.parametrize(
    "flat",
    [
        "f = Flatten(c)",
        "f = Reshape(c, rest)",
        "n = Shape<start=0, end=1>(x) q = Concat<axis=0>(n, size) f = Reshape(c, q)",
        "n = Shape<start=0, end=1>(x) q = Concat<axis=0>(n, m1) f = Reshape(c, q)",
        "s = Softmax(c) n = Shape<start=0, end=1>(s) q = Concat<axis=0>(n, m1) f = Reshape(s, q)",
    ],
)
def test_rows(flat: str):
    """Rows of a batch slide on their own: one begins anew while the other goes on."""
    model = text(
        CONVS.replace("{s}", "1") + flat + " y = Gemm(f, w)",
        inputs=f"float[N, 4, {CLIP}] x",
        outputs="float[N, 3] y",
        **K,
        w=rand(80, 3),
        rest=ints(-1, 80),
        size=ints(80),
        m1=ints(-1),
    )
    made = slides(model, delay=0, rows=2, pulses=(1, 3, None))
    assert made.spec.get("independent_rows", True) and made.spec["outputs"][0]["shape"] == ["N", 3]


def test_rows_that_a_head_mixes():
    model = text(
        CONVS.replace("{s}", "1")
        + "f = Flatten(c) m = ReduceMean<axes=[0], keepdims=1>(f) d = Sub(f, m) y = Gemm(d, w)",
        inputs=f"float[N, 4, {CLIP}] x",
        outputs="float[N, 3] y",
        **K,
        w=rand(80, 3),
    )
    spec = pulsify(model, pulse=1, head="window").spec
    assert (spec["independent_rows"], spec["shared_by"]) == (False, ["m"])


def test_rows_of_a_fixed_number_begin_together():
    model = text(
        CONVS.replace("{s}", "1") + "f = Flatten(c) y = Gemm(f, w)",
        inputs=f"float[2, 4, {CLIP}] x",
        outputs="float[2, 3] y",
        **K,
        w=rand(80, 3),
    )
    spec = slides(model, delay=0, pulses=(1, None)).spec
    assert (spec["independent_rows"], spec["shared_by"]) == (False, ["f", "y"])


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_opsets(opset: int):
    model = text(
        CONVS.replace("{s}", "2") + "f = Flatten(c) y = Gemm(f, w, b)", opset=opset, **K, w=rand(40, 3), b=rand(3)
    )
    slides(model, delay=0, pulses=(2, 4, None))


def test_a_model_of_any_length():
    body = CONVS.replace("{s}", "1") + "g = GlobalAveragePool(c) f = Flatten(g) y = Gemm(f, w)"
    model = text(body, inputs="float[1, 4, T] x", **K, w=rand(5, 3))
    made = slides(model, delay=0, head="window=30", frames=30, pulses=(1, 7, None))
    assert "fixed_length" not in made.spec
    with pytest.raises(UsageError, match="window=FRAMES"):
        pulsify(model, pulse=1, axes={"x": 2}, head="window")
    with pytest.raises(UsageError, match="exported for 20 frames"):
        pulsify(text(body, **K, w=rand(5, 3)), pulse=1, axes={"x": 2}, head="window=30")


PADDED = (
    "a = Conv<pads=[1, 1]>(x, k1, b1) r = Relu(a) p = MaxPool<kernel_shape=[2], strides=[2]>(r) c = "
    "Conv<pads=[1, 1]>(p, k2, b2) "
)


@pytest.mark.parametrize("pulse", [2, 6, 40])
def test_a_body_with_padding(pulse: int):
    """In the middle of a stream a window's outer frames see their neighbours: head on the last frames of the body's
    own stream.
    """
    w = rand(50, 3)
    model = text(PADDED + "f = Flatten(c) y = Gemm(f, w)", **K, w=w)
    made = pulsify(model, pulse=pulse, axes={"x": 2}, head="window")
    told = made.spec["head"]
    assert (told["exact"], told["delay"], told["padding"]) == (False, 4, ["a", "c"])
    assert told["windows"] == [{"wire": "c", "axis": 2, "frames": 10, "rate": [1, 2], "edges": [2, 2]}]
    assert verify(model, made).ok
    whole = session(
        text(
            PADDED.replace("c = ", "y = "), inputs="float[1, 4, T] x", outputs="float[1, 5, M] y", **K
        ).SerializeToString(),
        plain=True,
    )
    arrays = drawn(made, 120 + 2 * pulse)
    frames = whole.run(None, arrays)[0]
    alone = session(model.SerializeToString(), plain=True)
    compared = differ = 0
    for k, got in enumerate(streamed(made, arrays, [pulse] * (120 // pulse)), 1):
        start = k * pulse - CLIP - 4
        if start >= 0:
            want = frames[:, :, start // 2 : start // 2 + 10].reshape(1, 50) @ w
            assert np.allclose(got["y"], want, rtol=0, atol=1e-4)
            differ += not np.allclose(
                got["y"], alone.run(None, {"x": arrays["x"][:, :, start : start + CLIP]})[0], rtol=0, atol=1e-2
            )
            compared += 1
    assert compared and differ == compared


def test_verify_sees_a_wrong_window(monkeypatch: pytest.MonkeyPatch):
    for body, frames in ((CONVS.replace("{s}", "1"), 16), (PADDED, 10)):
        model = text(body + "f = Flatten(c) y = Gemm(f, w)", **K, w=rand(5 * frames, 3))
        made = pulsify(model, pulse=2, axes={"x": 2}, head="window")
        made.spec["head"]["delay"] += 2
        made.model.metadata_props["pulsify.spec"] = json.dumps(made.spec)
        found = verify(model, made)
        assert not found.ok and "output y differs" in found.message


def test_stream_session():
    model = text(CONVS.replace("{s}", "1") + "f = Flatten(c) y = Gemm(f, w)", **K, w=rand(80, 3))
    batch = session(model.SerializeToString(), plain=True)
    x = rand(1, 4, 50)
    for pulse in (4, None):
        stream = StreamSession(pulsify(model, pulse=pulse, axes={"x": 2}, head="window"))
        for _ in range(2):
            assert stream.push(x[:, :, :19]) is None
            assert np.allclose(stream.push(x[:, :, 19:20]), batch.run(None, {"x": x[:, :, :20]})[0], atol=1e-4)
            assert np.allclose(stream.push(x[:, :, 20:44]), batch.run(None, {"x": x[:, :, 24:44]})[0], atol=1e-4)
            with pytest.raises(UsageError):
                stream.flush()
            stream.reset()


def test_refused_without_it():
    model = text(CONVS.replace("{s}", "1") + "f = Flatten(c) y = Gemm(f, w)", **K, w=rand(80, 3))
    with pytest.raises(CannotStream) as caught:
        pulsify(model, pulse=1, axes={"x": 2})
    assert "--head window" in caught.value.blockers[0].hint


def test_usage():
    model = text(CONVS.replace("{s}", "2") + "f = Flatten(c) y = Gemm(f, w)", **K, w=rand(40, 3))
    options: list[tuple[dict[str, Any], str]] = [
        ({"head": "clip"}, "write it as window"),
        ({"head": "window=x"}, "write it as window"),
        ({"head": "window=0"}, "one frame at least"),
        ({"end_of_stream": True}, "no last frame"),
        ({"batch": 2}, "--batch"),
        ({"states": {"x": "y"}}, "--state"),
        ({"left_context": 3}, "--left-context"),
    ]
    for more, message in options:
        with pytest.raises(UsageError, match=message):
            pulsify(model, **{"pulse": 2, "axes": {"x": 2}, "head": "window", **more})
    with pytest.raises(PulseDoesNotFit):
        pulsify(model, pulse=3, axes={"x": 2}, head="window")
    with pytest.raises(UsageError, match="streams frame by frame"):
        pulsify(
            text("y = Conv(x, k1, b1)", outputs="float[1, 6, 18] y", k1=K["k1"], b1=K["b1"]),
            pulse=2,
            axes={"x": 2},
            head="window",
        )
    with pytest.raises(AmbiguousAxis):
        pulsify(text("r = Relu(x) f = Flatten(r) y = Gemm(f, w)", w=rand(80, 3)), pulse=2, head="window")
    assert pulsify(model, pulse=2, head="window").spec["inputs"][0]["axis"] == 2


def test_inspect():
    model = text(CONVS.replace("{s}", "2") + "f = Flatten(c) y = Gemm(f, w)", **K, w=rand(40, 3))
    found = inspect(model, head="window").document
    assert found["pulse"] == 2 and found["head"]["exact"] and found["blockers"] == []


def test_fixtures_on_the_command_line(tmp_path: Path, capfd):
    out = tmp_path / "p.onnx"
    for name, exact in (("keyword_40", True), ("tagger_64", False)):
        model = FIXTURES / f"{name}.onnx"
        code, shown, _ = run(capfd, "convert", model, "-o", out, "--pulse", 8, "--head", "window")
        assert code == 0 and "verified" in shown and ("would pad" in shown) != exact
        spec = json.loads((tmp_path / "p.pulse.json").read_text())
        assert spec["head"]["exact"] == exact and spec["head"]["frames"] == int(name[-2:])
        code, shown, _ = run(capfd, "verify", model, out, "--json", "--frames", 200, "--seed", 2)
        assert code == 0 and json.loads(shown)["compared"] > 20
        assert run(capfd, "inspect", model, "--head", "window", "--json")[0] == run(capfd, "inspect", out)[0] == 0
        assert run(capfd, "convert", model, "-o", out, "--pulse", 8, "--head", "window", "--end-of-stream")[0] == 2
        assert run(capfd, "convert", model, "-o", out, "--pulse", 9, "--head", "window")[0] == 4
    code, _, told = run(capfd, "convert", FIXTURES / "keyword_40.onnx", "-o", out, "--pulse", 8)
    assert code == 3 and "--head window" in told and "Flatten" in told


def test_a_recording(tmp_path: Path, capfd):
    np.savez(tmp_path / "r.npz", x=rand(1, 8, 300))
    assert (
        run(capfd, "convert", FIXTURES / "tagger_64.onnx", "-o", tmp_path / "p.onnx", "--pulse", 8, "--head", "window")[
            0
        ]
        == 0
    )
    assert run(capfd, "verify", FIXTURES / "tagger_64.onnx", tmp_path / "p.onnx", "--input", tmp_path / "r.npz")[0] == 0


def test_the_same_bytes_twice():
    model = onnx.load(FIXTURES / "tagger_64.onnx")
    made = [pulsify(model, pulse=8, head="window").proto().SerializeToString(deterministic=True) for _ in range(2)]
    assert made[0] == made[1]


def test_a_number_with_two_readings_is_left_to_the_head():
    """Two 4s in the shape: either may be the frames, so the head reads what comes before as it is."""
    model = text(
        "a = Conv<pads=[1, 1]>(x, k1, b1) g = Reshape(a, s) r = Relu(g) f = Flatten(r) y = Gemm(f, w)",
        inputs="float[1, 4, 6] x",
        k1=rand(6, 4, 3),
        b1=rand(6),
        s=ints(1, 6, 6),
        w=rand(36, 3),
    )
    made = pulsify(model, pulse=2, axes={"x": 2}, head="window")
    assert verify(model, made).ok


def test_a_row_begins_anew():
    """The window of a row that starts again fills up as that of a new stream does, while the other slides on."""
    for body, frames in ((CONVS.replace("{s}", "1"), 16), (PADDED, 10)):
        model = text(
            body + "f = Flatten(c) y = Gemm(f, w)",
            inputs=f"float[N, 4, {CLIP}] x",
            outputs="float[N, 3] y",
            **K,
            w=rand(5 * frames, 3),
        )
        made = pulsify(model, pulse=2, axes={"x": 2}, head="window")
        assert made.spec.get("independent_rows", True)
        arrays = drawn(made, 120, rows=2)
        alone = [
            streamed(made, {"x": arrays["x"][row : row + 1, :, start:]}, [2] * 30) for row, start in ((0, 0), (1, 10))
        ]
        runner = PulseRunner(made)
        for k in range(30):
            if k == 5:
                runner.restart(1)
            got = runner.step({"x": arrays["x"][:, :, 2 * k : 2 * k + 2]})["y"]
            assert np.allclose(got[0], alone[0][k]["y"][0], atol=1e-5)
            if k >= 5:
                assert np.allclose(got[1], alone[1][k - 5]["y"][0], atol=1e-5)
