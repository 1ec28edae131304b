"""Exports of one length stream as their dynamic twins do, or are refused by the name of the number that has two
readings.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from pulsify_onnx.algebra.plan import Options
from pulsify_onnx.api import PulsedModel, inspect, pulsify, verify
from pulsify_onnx.errors import AmbiguousAxis, CannotStream
from pulsify_onnx.model.load import load
from pulsify_onnx.prepare.fixed_length import settle
from pulsify_onnx.verification.check import verify as verify_stream
from testing import ROOT
from testing.command import run
from testing.oracle import check, parse, rand, refused
from testing.twins import attempt, folded, optimised, static, twin_network

FIXTURES = sorted(p for p in (ROOT / "fixtures").rglob("*.onnx") if p.parent.name != "clips")


def fixed(model: onnx.ModelProto, frames: int, fold: bool = False) -> onnx.ModelProto:
    """`model` for that number of frames only, with shape arithmetic folded by onnxruntime where asked."""
    made = static(model, frames)
    return optimised(made) if fold else made


def twins(model: onnx.ModelProto, frames: int, fold: bool, axes: dict[str, int] | None = None) -> PulsedModel:
    """The stream of the fixed export is that of the dynamic model; both as the sidecar says and frame by frame."""
    wanted = pulsify(model, pulse=None, end_of_stream=True)
    axes = axes or {i["name"]: i["axis"] for i in wanted.spec["inputs"] if i["kind"] == "stream"}
    got = pulsify(fixed(model, frames, fold), pulse=None, axes=axes, end_of_stream=True)
    told = ("name", "kind", "axis", "rate", "delay", "frames", "receptive_field")
    for a, b in zip(got.spec["outputs"], wanted.spec["outputs"], strict=True):
        assert {k: a.get(k) for k in told} == {k: b.get(k) for k in told}
    assert verify(model, got).ok
    return got


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("fold", [False, True], ids=["plain", "folded"])
def test_fixtures(path: Path, fold: bool):
    twins(onnx.load(path), 64, fold)


def text(
    body: str, inputs: str = "float[1, 4, T] x", outputs: str = "float[1, 4, M] y", **weights: np.ndarray
) -> onnx.ModelProto:
    return parse(f"agraph ({inputs}) => ({outputs}) {{ {body} }}", **weights)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


RESHAPES = {
    "split channels": ([1, 2, 2, -1], [1, 2, 2, 12], [1, 4, -1], [1, 4, 12]),
    "length is the channels too": ([1, 4, 1, -1], [1, 4, 1, 12], [1, 4, -1], [1, 4, 12]),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_reshapes(name: str):
    there, baked, back, told = RESHAPES[name]
    body = "c = Conv<pads=[1, 1]>(x, k, b) h = Reshape(c, there) r = Relu(h) y = Reshape(r, back)"
    weights = {"k": rand(4, 4, 3), "b": rand(4, seed=1)}
    model = text(body, **weights, there=ints(*there), back=ints(*back))
    export = fixed(text(body, **weights, there=ints(*baked), back=ints(*told)), 12)
    made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
    assert verify(model, made).ok and verify(export, made).ok
    assert made.spec["outputs"][0]["delay"] == 1
    assert [c["was"] for c in made.spec["fixed_length"]["constants"]] == [str(baked), str(told)]


def test_length_of_the_channels():
    """12 frames of 12 channels: the order of elements says which 12 is which."""
    body = "h = Transpose<perm=[0, 2, 1]>(x) r = Reshape(h, s) y = Softmax<axis=3>(r)"
    said = {"inputs": "float[1, 12, T] x", "outputs": "float[1, M, 3, 4] y"}
    export = fixed(text(body, **said, s=ints(1, 12, 3, 4)), 12)
    made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
    assert verify(text(body, **said, s=ints(1, -1, 3, 4)), made).ok


def test_readings_of_equal_numbers():
    """A constant on the other axis tells that it is no stream; without one both axes may be."""
    said = {"inputs": "float[1, 12, T] x", "outputs": "float[1, 12, M] y"}
    one = fixed(text("y = Conv<pads=[1, 1]>(x, k)", **said, k=rand(12, 12, 3)), 12)
    found = settle(load(one), {}, Options())
    assert found is not None and found.axes == {"x": 2} and found.frames == 12
    with pytest.raises(AmbiguousAxis) as caught:
        pulsify(fixed(text("y = Relu(x)", **said), 12), pulse=None)
    assert caught.value.options == ("--axis x=1", "--axis x=2")


def test_no_reading_streams():
    export = fixed(text("y = Softmax<axis=2>(x)", inputs="float[1, 1, T] x", outputs="float[1, 1, M] y"), 12)
    refused(export, "it is taken over the whole stream", axes={"x": 2})
    with pytest.raises(CannotStream) as caught:
        pulsify(export, pulse=None)
    assert caught.value.blockers[0].op_type == "Softmax"


def test_chunks_have_two_readings():
    """[12] as [3, 4] may be any number of chunks of 4, or 3 chunks of any size."""
    export = fixed(
        text("r = Reshape(x, s) y = Relu(r)", inputs="float[T] x", outputs="float[M, 4] y", s=ints(3, 4)), 12
    )
    refused(
        export,
        "its constant 's' can be read in two ways for other lengths than 12: as [-1, 4] or as [3, -1]",
        axes={"x": 0},
        op_type="Reshape",
    )


def test_chunks_that_weights_settle():
    said = {"inputs": "float[T] x", "outputs": "float[M, 2] y", "w": rand(4, 2)}
    export = fixed(text("r = Reshape(x, s) y = MatMul(r, w)", **said, s=ints(3, 4)), 12)
    made = pulsify(export, pulse=None, axes={"x": 0}, end_of_stream=True)
    assert made.spec["pulse_multiple"] == 4
    assert verify(text("r = Reshape(x, s) y = MatMul(r, w)", **said, s=ints(-1, 4)), made).ok


def test_crops():
    """A convolution that is padded on both sides and cut to the length of the input; what is cut elsewhere has two
    readings.
    """
    body = "c = Conv<pads=[2, 2]>(x, k, b) y = Slice(c, i, j, a)"
    said = {"k": rand(4, 4, 3), "b": rand(4, seed=1), "i": ints(0), "a": ints(2)}
    export = fixed(text(body, **said, j=ints(12)), 12)
    made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
    assert made.spec["outputs"][0]["delay"] == 0
    assert verify(text(body, **said, j=ints(-2)), made).ok
    refused(
        fixed(text(body, **said, j=ints(11)), 12),
        "its constant 'j' can be read in two ways",
        axes={"x": 2},
        op_type="Slice",
    )


def test_constants_with_a_frame_each():
    zeros = np.zeros((1, 1, 12), np.float32)
    row = np.broadcast_to(rand(1, 4, 1), (1, 4, 12))
    ramp = np.arange(12, dtype=np.float32).reshape(1, 1, 12)
    for body, table, now in (
        ("y = Add(x, t)", row, "y = Add(x, t)"),
        ("y = Concat<axis=1>(x, t)", zeros, None),
        ("y = Add(x, t)", ramp, None),
    ):
        export = fixed(text(body, outputs="float[1, N, M] y", t=np.ascontiguousarray(table)), 12)
        made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
        assert verify(export, made).ok
        if now:
            assert verify(text(now, t=rand(1, 4, 1)), made).ok
    check(
        text(
            "s = Shape<start=2, end=3>(x) u = Squeeze(s) r = Range(o, u, l) p = Cast<to=1>(r) y = Add(x, p)",
            o=np.int64(0),
            l=np.int64(1),
        )
    )


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (rand(1, 4, 12), "its constant 't' has other values for each of 12 frames"),
        (np.linspace(0, 1, 12, dtype=np.float32), "its constant 't'"),
        (
            np.arange(12, dtype=np.float32)[::-1].copy(),
            "counts over 12 frames in a way that may depend on their number",
        ),
        (np.arange(12, dtype=np.float32) / 4, "counts over 12 frames in a way that may depend on their number"),
    ],
)
def test_tables_of_one_length(table: np.ndarray, reason: str):
    refused(fixed(text("y = Add(x, t)", t=table), 12), reason, axes={"x": 2}, op_type="Add")


def test_counts_of_frames():
    body = "s = ReduceSum(x, a) y = Div(s, n)"
    for n in (12.0, 11.0):
        export = fixed(text(body, outputs="float[1, 4, 1] y", a=ints(2), n=np.float32(n)), 12)
        refused(
            export,
            f"its constant 'n' is {n:g}, which may be a number or follow from the 12 frames",
            axes={"x": 2},
            op_type="Div",
        )
    pulsify(fixed(text(body, outputs="float[1, 4, 1] y", a=ints(2), n=np.float32(5)), 12), pulse=None, axes={"x": 2})


def test_one_frame_of_all():
    export = fixed(text("y = AveragePool<kernel_shape=[12]>(x)"), 12)
    refused(export, "it makes one frame of all 12 frames of the export", axes={"x": 2}, op_type="AveragePool")


MASK = "q = Transpose<perm=[0, 2, 1]>(x) s = MatMul(q, x) m = {} p = Softmax(m) y = MatMul(p, q)"
INDEX = np.arange(12)


@pytest.mark.parametrize(
    ("shown", "delay"),
    [
        ((INDEX[None] <= INDEX[:, None]) & (INDEX[None] > INDEX[:, None] - 3), 0),
        (abs(INDEX[None] - INDEX[:, None]) <= 2, 2),
        ((INDEX[None] // 3 <= INDEX[:, None] // 3) & (INDEX[None] // 3 >= INDEX[:, None] // 3 - 1), 0),
    ],
    ids=["left", "band", "chunks"],
)
@pytest.mark.parametrize("form", ["Add(s, t)", "Where(t, s, low)"])
def test_masks(shown: np.ndarray, delay: int, form: str):
    table = shown if form.startswith("Where") else np.where(shown, 0, -np.inf).astype(np.float32)
    export = fixed(text(MASK.format(form), outputs="float[1, M, 4] y", t=table, low=np.float32(-np.inf)), 12)
    made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
    assert made.spec["outputs"][0]["delay"] == delay
    assert verify(export, made).ok


def test_masks_of_no_band():
    table = np.where(np.random.default_rng(0).random((12, 12)) < 0.5, 0, -9).astype(np.float32)
    refused(
        fixed(text(MASK.format("Add(s, t)"), outputs="float[1, M, 4] y", t=table), 12),
        "its constant 't' is a table of 12 × 12 frames",
        axes={"x": 2},
        op_type="Add",
    )


def test_dynamic_input_and_a_number_all_the_same():
    """What is left of a dynamic axis where an exporter wrote one shape down: the model runs at that length only."""
    model = text(
        "h = Transpose<perm=[0, 2, 1]>(x) y = Reshape(h, s)", outputs="float[1, M, 2, 2] y", s=ints(1, 12, 2, 2)
    )
    made = pulsify(model, pulse=None, end_of_stream=True)
    assert made.spec["fixed_length"] == {
        "frames": 12,
        "length": {"x": 12},
        "kept": [],
        "constants": [{"node": "y", "constant": "s", "was": "[1, 12, 2, 2]", "now": "[1, 0, 2, 2]"}],
    }
    assert verify(model, made).ok


def test_weights_in_a_file_of_their_own(tmp_path: Path):
    body = "c = Conv<pads=[1, 1]>(x, k) y = Reshape(c, s)"
    onnx.save(
        fixed(text(body, k=rand(4, 4, 3), s=ints(1, 4, 12)), 12),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    made = pulsify(tmp_path / "m.onnx", pulse=4, axes={"x": 2})
    assert verify(tmp_path / "m.onnx", made).ok
    made.save(tmp_path / "p.onnx")
    assert verify(tmp_path / "m.onnx", tmp_path / "p.onnx").ok


def test_command_line(tmp_path: Path, capfd):
    body = "c = Conv<pads=[1, 1]>(x, k) y = Reshape(c, s)"
    onnx.save(fixed(text(body, k=rand(4, 4, 3), s=ints(1, 4, 12)), 12), tmp_path / "m.onnx")
    code, out, _ = run(capfd, "convert", tmp_path / "m.onnx", "-o", tmp_path / "p.onnx", "--pulse", 4)
    assert code == 0 and "exported for 12 frames, streams any number: 1 constant read anew" in out
    assert run(capfd, "verify", tmp_path / "m.onnx", tmp_path / "p.onnx")[0] == 0
    assert json.loads((tmp_path / "p.pulse.json").read_text())["fixed_length"]["frames"] == 12
    assert run(capfd, "inspect", tmp_path / "m.onnx", "--axis", "x=1")[0] == 3
    assert inspect(tmp_path / "m.onnx").document["fixed_length"]["frames"] == 12


def stream_as(model: onnx.ModelProto, frames: int, end: bool = False) -> PulsedModel:
    """The stream of the folded export of `frames` frames, which is that of `model` at other lengths."""
    made = pulsify(folded(static(model, frames)), pulse=None, axes={"x": 2}, end_of_stream=end)
    assert verify_stream(model, made).ok
    return made


PADS = "i = Shape<start=2, end=3>(x) m = Neg(i) e = Mod(m, s) p = Concat<axis=0>(z, before, z, after) h = Pad(x, p)"
STRIDED = {"z": ints(0, 0), "zero": ints(0), "b": rand(4, seed=1)}


@pytest.mark.parametrize(("frames", "kernel", "stride"), [(40, 4, 2), (41, 4, 2), (40, 10, 5), (43, 10, 5), (40, 2, 2)])
def test_pads_that_fill_the_last_window(frames: int, kernel: int, stride: int):
    """What is put at the end may follow the length: streams that never end are the same, streams that end are
    refused.
    """
    body = PADS.replace("before", "c").replace("after", "e") + f" y = Conv<strides=[{stride}]>(h, k, b)"
    model = text(body, **STRIDED, s=ints(stride), c=ints(kernel - stride), k=rand(4, 4, kernel))
    made = stream_as(model, frames)
    assert made.spec["outputs"][0]["delay"] == 0
    refused(folded(static(model, frames)), "or what fills the last of", axes={"x": 2}, op_type="Pad", end=True)


@pytest.mark.parametrize("frames", [40, 41])
def test_pads_of_both_sides_that_fill_the_last_window(frames: int):
    """Half of what is put there stands at the start, where it would be another number for other lengths."""
    both = "t = Add(e, one) l = Div(t, two) r = Sub(t, l) "
    body = (
        PADS.replace("before", "l").replace("after", "r").replace("p = ", both + "p = ")
        + " y = Conv<strides=[2]>(h, k, b)"
    )
    model = text(body, **STRIDED, s=ints(2), one=ints(1), two=ints(2), k=rand(4, 4, 3))
    refused(folded(static(model, frames)), "another number at the start", axes={"x": 2}, op_type="Conv")
    for length, pads, kernel in ((41, "[1, 0]", 2), (40, "[0, 1]", 3), (41, "[1, 1]", 3)):
        export = fixed(text(f"y = Conv<strides=[2], pads={pads}>(x, k)", k=rand(4, 4, kernel)), length)
        refused(export, "its constant 'pads'", axes={"x": 2}, op_type="Conv")
    export.producer_name = "pytorch"
    assert verify(export, pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)).ok


@pytest.mark.parametrize(
    ("before", "after", "kernel", "stride"),
    [(2, 0, 3, 1), (2, 0, 3, 2), (1, 1, 3, 1), (8, 8, 16, 4), (3, 0, 4, 3), (1, 1, 4, 3)],
)
def test_pads_that_are_numbers(before: int, after: int, kernel: int, stride: int):
    """Padding of a convolution, and of windows around their middle."""
    body = f"h = Pad(x, p) y = Conv<strides=[{stride}]>(h, k, b)"
    stream_as(text(body, b=rand(4), p=ints(0, 0, before, 0, 0, after), k=rand(4, 4, kernel)), 40, end=True)
    stream_as(
        text(f"y = Conv<strides=[{stride}], pads=[2, 2]>(x, k, b)", b=rand(4), k=rand(4, 4, kernel)), 40, end=True
    )


def test_pads_to_one_length():
    export = fixed(text("h = Pad(x, p) y = Relu(h)", p=ints(0, 0, 0, 0, 0, 24)), 40)
    pulsify(export, pulse=None, axes={"x": 2})
    refused(
        export, "which may be numbers or what makes 64 frames of any stream", axes={"x": 2}, op_type="Pad", end=True
    )


def test_pads_to_a_multiple():
    """Frames after the end that make it whole chunks; the crop to the input's length gives them away where there are
    none.
    """
    chunks = (
        "g = Transpose<perm=[0, 2, 1]>(h) r = Reshape(g, wide) t = MatMul(r, w) f = Reshape(t, narrow) q = "
        "Transpose<perm=[0, 2, 1]>(f)"
    )
    body = PADS.replace("before", "zero").replace("after", "e") + " " + chunks + " y = Slice(q, zero, i, two)"
    model = text(body, **STRIDED, s=ints(4), two=ints(2), wide=ints(1, -1, 16), narrow=ints(1, -1, 4), w=rand(16, 16))
    for frames in (40, 42):
        export = folded(static(model, frames))
        stream_as(model, frames)
        refused(
            export,
            "streams of another length would end in another way" if frames == 42 else "cuts nothing off 40 frames",
            axes={"x": 2},
            end=True,
        )


def test_a_decoder_is_cropped_to_whole_frames():
    body = (
        "d = ConvTranspose<strides=[5]>(x, k) n = Shape<start=2, end=3>(d) e = Sub(n, five) y = Slice(d, zero, e, two)"
    )
    made = stream_as(text(body, k=rand(4, 4, 10), five=ints(5), zero=ints(0), two=ints(2)), 24, end=True)
    assert made.spec["outputs"][0]["rate"] == [5, 1]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "i = Shape<start=2, end=3>(x) h = Div(i, two) y = Slice(x, zero, h, two)",
            "cuts at 20 of 40 frames, which may be a number or a share",
        ),
        (
            "i = Shape<start=2, end=3>(x) h = Div(i, two) y = Slice(x, h, i, two)",
            "cuts at 20 of 40 frames, which may be a number or a share",
        ),
        (
            "i = Shape<start=2, end=3>(x) h = Sub(i, four) p = Concat<axis=0>(h, four) z, y = Split<axis=2>(x, p)",
            "nothing says which of them grows",
        ),
        (
            'y = Resize<nearest_mode="floor", coordinate_transformation_mode="asymmetric">(x, , , sizes)',
            "20 of 40 frames, a share of them, or as 20",
        ),
        (
            "i = Shape<start=2, end=3>(x) f = Cast<to=1>(i) y = Div(x, f)",
            "is 40, which may be a number or follow from the 40 frames",
        ),
        (
            "i = Shape<start=2, end=3>(x) f = Cast<to=1>(i) g = Sqrt(f) y = Mul(x, g)",
            "is 6.32456, which may be a number or follow from the 40 frames",
        ),
        (
            "i = Shape<start=2, end=3>(x) u = ConvTranspose<strides=[2]>(x, k2) y = Slice(u, i, far, two)",
            "cuts at 40 of 80 frames",
        ),
    ],
)
def test_numbers_that_follow_the_length_in_part(body: str, reason: str):
    model = text(body, two=ints(2), zero=ints(0), four=ints(4), sizes=ints(1, 4, 20), far=ints(2**62), k2=rand(4, 4, 2))
    refused(folded(static(model, 40)), reason, axes={"x": 2})


def test_sizes_that_a_join_settles():
    """Stretched to the length of the stream that it meets."""
    body = (
        "d = MaxPool<kernel_shape=[2], strides=[2]>(x) "
        'u = Resize<nearest_mode="floor", coordinate_transformation_mode="asymmetric">(d, , , sizes) y = Add(u, x)'
    )
    export = fixed(text(body, sizes=ints(1, 4, 40)), 40)
    made = pulsify(export, pulse=None, axes={"x": 2})
    assert made.spec["pulse_multiple"] == 2 and verify(export, made).ok


DISTANCE = (
    "c = Shape<start=2, end=3>(x) n = Squeeze(c) i = Range(o, n, l) r = Unsqueeze(i, one) k = Unsqueeze(i, "
    "zero) d = Sub(k, r) "
)
BAND = "lo = Less(minus, d) hi = Less(d, l) open = And(lo, hi) "
HEADS = (
    "t = Transpose<perm=[0, 2, 1]>(x) h = Reshape(t, apart) q = Transpose<perm=[0, 2, 1, 3]>(h) v = "
    "Transpose<perm=[0, 2, 3, 1]>(h) s = MatMul(q, v) "
)
SUM = " p = Softmax(m) w = MatMul(p, q) f = Transpose<perm=[0, 2, 1, 3]>(w) y = Reshape(f, together)"
SAID = {
    "o": np.int64(0),
    "l": np.int64(1),
    "one": ints(1),
    "zero": ints(0),
    "minus": np.int64(-5),
    "low": np.float32(-np.inf),
    "apart": ints(1, -1, 2, 2),
    "together": ints(1, -1, 4),
    "slope": rand(2, 1, 1),
    "near": rand(2, 9),
    "four": np.int64(4),
    "down": np.int64(-4),
}
BIASES = {
    "by distance": "b = Abs(d) g = Cast<to=1>(b) bias = Mul(g, slope) ",
    "clipped": "b = Clip(d, down, four) g = Add(b, four) bias = Gather<axis=1>(near, g) ",
}


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("one", [False, True], ids=["two tables", "one table"])
def test_biases_by_distance(bias: str, one: bool):
    ends = (
        "a = Where(open, bias, low) " + HEADS + "m = Add(s, a)"
        if one
        else HEADS + "a = Add(s, bias) m = Where(open, a, low)"
    )
    model = text(DISTANCE + BAND + BIASES[bias] + ends + SUM, outputs="float[1, M, 4] y", **SAID)
    assert stream_as(model, 40, end=True).spec["outputs"][0]["delay"] == 0
    wave = text(
        DISTANCE
        + BAND
        + BIASES["by distance"].replace("b = Abs(d) g = Cast<to=1>(b)", "b = Cast<to=1>(d) g = Sin(b)")
        + HEADS
        + "a = Add(s, bias) m = Where(open, a, low)"
        + SUM,
        outputs="float[1, M, 4] y",
        **SAID,
    )
    refused(folded(static(wave, 40)), "its constant 'bias' is a table of 40 × 40 frames", axes={"x": 2}, op_type="Add")


def test_masks_of_attention_in_one_node():
    body = (
        DISTANCE + BAND + "t = Transpose<perm=[0, 2, 1]>(x) y = Attention<q_num_heads=2, kv_num_heads=2>(t, t, t, open)"
    )
    model = parse(
        '<ir_version: 10, opset_import: ["": 23]> agraph (float[1, 4, T] x) => (float[1, M, 4] y) {' + body + "}",
        **SAID,
    )
    assert stream_as(model, 40, end=True).spec["outputs"][0]["delay"] == 0


def test_the_batch_is_no_length():
    """[N, 40, 4] is a batch of N; [N, 40] may be N frames."""
    body = "h = Relu(x) y = MatMul(h, w)"
    found = settle(load(text(body, "float[N, 40, 4] x", "float[N, 40, 2] y", w=rand(4, 2))), {}, Options())
    assert found is not None and found.axes == {"x": 1}
    with pytest.raises(AmbiguousAxis) as caught:
        pulsify(text("y = Relu(x)", "float[N, 40] x", "float[N, 40] y"), pulse=None)
    assert caught.value.options == ("--axis x=1", "--axis x=0")


@pytest.mark.parametrize("seed", range(24))
def test_random_twins(seed: int):
    """Random networks, exported for one length as any tool might leave them."""
    what, told = attempt(twin_network(seed, 1 + seed % 8), seed)
    assert what in ("same", "kept", "refused", "none"), told


ROWS = {
    "as a constant": "",
    "expanded": "h = Expand(rows, size)",
    "expanded from one layer": "h = Expand(row, size)",
    "expanded and passed on": "g = Identity(rows) e = Expand(g, size) h = Identity(e)",
    "expanded by a computed shape": "n = Shape(t) f = Gather(n, one) v = Concat<axis=0>(one, f, five) h = Expand(rows, v)",
}


@pytest.mark.parametrize("kind", ROWS)
def test_initial_states_that_are_the_same_for_every_frame(kind: str):
    """A recurrence within frames, which are its batch: as many rows as the export has frames, all of them equal."""
    body = f"""s = Reshape(x, flat) t = Transpose<perm=[1, 0, 2]>(s) {ROWS[kind]}
        r = GRU<hidden_size=5>(t, w, u, , , h) q = Squeeze(r, one) y = Transpose<perm=[1, 0, 2]>(q)"""
    row = rand(5, seed=3)
    model = text(
        body,
        "float[1, 12, 6, 3] x",
        "float[12, 6, 5] y",
        w=rand(1, 15, 3),
        u=rand(1, 15, 5, seed=1),
        flat=ints(12, 6, 3),
        one=ints(1),
        five=ints(5),
        size=ints(1, 12, 5),
        row=np.broadcast_to(row, (12, 5)),
        rows=np.broadcast_to(row, (1, 12, 5)),
        **({} if ROWS[kind] else {"h": np.broadcast_to(row, (1, 12, 5))}),
    )
    made = pulsify(model, pulse=4, axes={"x": 1}, end_of_stream=True)
    assert not any(s["role"] == "recurrent" for s in made.spec["states"])
    assert verify(model, made).ok


def test_initial_states_of_frames_of_their_own():
    body = """s = Reshape(x, flat) t = Transpose<perm=[1, 0, 2]>(s) h = Expand(rows, size)
        r = GRU<hidden_size=5>(t, w, u, , , h) q = Squeeze(r, one) y = Transpose<perm=[1, 0, 2]>(q)"""
    model = text(
        body,
        "float[1, 12, 6, 3] x",
        "float[12, 6, 5] y",
        w=rand(1, 15, 3),
        u=rand(1, 15, 5, seed=1),
        flat=ints(12, 6, 3),
        one=ints(1),
        size=ints(1, 12, 5),
        rows=rand(1, 12, 5),
    )
    with pytest.raises(CannotStream, match="values for each of 12 frames"):
        pulsify(model, pulse=4, axes={"x": 1})


@pytest.mark.parametrize("back", [(1, 1, 4), (1, 1, -1)])
@pytest.mark.parametrize("between", ["g = Relu(f)", "g = Mul(f, two)"])
def test_a_reshape_of_one_frame_with_two_good_readings_is_refused(back: tuple[int, ...], between: str):
    """The frame may be the first or the second dimension of 1."""
    body = f"f = Reshape(x, flat) {between} y = Reshape(g, back)"
    model = text(body, "float[1, 1, 4] x", "float[1, 1, 4] y", flat=ints(-1), back=ints(*back), two=np.float32(2))
    refused(model, "can be read in two ways for other lengths than 1", axes={"x": 1}, op_type="Reshape")
    assert verify(model, pulsify(model, pulse=2, axes={"x": 2})).ok


def test_a_reshape_of_one_frame_that_keeps_its_place():
    body = "f = Reshape(x, apart) g = Relu(f) y = Reshape(g, back)"
    model = text(body, "float[1, 1, 4] x", "float[1, 1, 4] y", apart=ints(1, 1, 2, 2), back=ints(1, 1, 4))
    made = pulsify(model, pulse=2, axes={"x": 1})
    assert made.spec["outputs"][0]["axis"] == 1 and verify(model, made).ok
