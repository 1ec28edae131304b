"""Exports of one length stream as their dynamic twins do, or are refused by the name of the number that has two readings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from oracle import check, parse, rand, refused
from test_cli import run

from pulsify_onnx.api import PulsedModel, inspect, pulsify, verify
from pulsify_onnx.errors import AmbiguousAxis, CannotStream
from pulsify_onnx.fixed_length import settle
from pulsify_onnx.plan import Options
from pulsify_onnx.source import load

FIXTURES = sorted(p for p in (Path(__file__).parent.parent / "fixtures").rglob("*.onnx") if p.parent.name != "clips")


def fixed(model: onnx.ModelProto, frames: int, folded: Path | None = None) -> onnx.ModelProto:
    """`model` for that number of frames only, with shape arithmetic folded by onnxruntime into a file of `folded`."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in made.graph.input:
        for d in value.type.tensor_type.shape.dim:
            if not d.HasField("dim_value"):
                d.dim_value = frames
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    del made.graph.value_info[:]
    if folded is None:
        return made
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded / "folded.onnx")
    ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folded / "folded.onnx")


def twins(model: onnx.ModelProto, frames: int, folded: Path | None, axes: dict[str, int] | None = None) -> PulsedModel:
    """The stream of the fixed export is that of the dynamic model; both as the sidecar says and frame by frame."""
    wanted = pulsify(model, pulse=None, end_of_stream=True)
    axes = axes or {i["name"]: i["axis"] for i in wanted.spec["inputs"] if i["kind"] == "stream"}
    got = pulsify(fixed(model, frames, folded), pulse=None, axes=axes, end_of_stream=True)
    told = ("name", "kind", "axis", "rate", "delay", "frames", "receptive_field")
    for a, b in zip(got.spec["outputs"], wanted.spec["outputs"], strict=True):
        assert {k: a.get(k) for k in told} == {k: b.get(k) for k in told}
    assert verify(model, got).ok
    return got


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("fold", [False, True], ids=["plain", "folded"])
def test_fixtures(path: Path, fold: bool, tmp_path: Path):
    twins(onnx.load(path), 64, tmp_path if fold else None)


def text(body: str, inputs: str = "float[1, 4, T] x", outputs: str = "float[1, 4, M] y", **weights: np.ndarray) -> onnx.ModelProto:
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
    export = fixed(text("r = Reshape(x, s) y = Relu(r)", inputs="float[T] x", outputs="float[M, 4] y", s=ints(3, 4)), 12)
    refused(export, "its constant 's' can be read in two ways for other lengths than 12: as [-1, 4] or as [3, -1]", axes={"x": 0}, op_type="Reshape")


def test_chunks_that_weights_settle():
    said = {"inputs": "float[T] x", "outputs": "float[M, 2] y", "w": rand(4, 2)}
    export = fixed(text("r = Reshape(x, s) y = MatMul(r, w)", **said, s=ints(3, 4)), 12)
    made = pulsify(export, pulse=None, axes={"x": 0}, end_of_stream=True)
    assert made.spec["pulse_multiple"] == 4
    assert verify(text("r = Reshape(x, s) y = MatMul(r, w)", **said, s=ints(-1, 4)), made).ok


def test_crops():
    """A convolution that is padded on both sides and cut to the length of the input; what is cut elsewhere has two readings."""
    body = "c = Conv<pads=[2, 2]>(x, k, b) y = Slice(c, i, j, a)"
    said = {"k": rand(4, 4, 3), "b": rand(4, seed=1), "i": ints(0), "a": ints(2)}
    export = fixed(text(body, **said, j=ints(12)), 12)
    made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
    assert made.spec["outputs"][0]["delay"] == 0
    assert verify(text(body, **said, j=ints(-2)), made).ok
    refused(fixed(text(body, **said, j=ints(11)), 12), "its constant 'j' can be read in two ways", axes={"x": 2}, op_type="Slice")


def test_constants_with_a_frame_each():
    zeros = np.zeros((1, 1, 12), np.float32)
    row = np.broadcast_to(rand(1, 4, 1), (1, 4, 12))
    ramp = np.arange(12, dtype=np.float32).reshape(1, 1, 12)
    for body, table, now in (("y = Add(x, t)", row, "y = Add(x, t)"), ("y = Concat<axis=1>(x, t)", zeros, None), ("y = Add(x, t)", ramp, None)):
        export = fixed(text(body, outputs="float[1, N, M] y", t=np.ascontiguousarray(table)), 12)
        made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
        assert verify(export, made).ok
        if now:
            assert verify(text(now, t=rand(1, 4, 1)), made).ok
    check(text("s = Shape<start=2, end=3>(x) u = Squeeze(s) r = Range(o, u, l) p = Cast<to=1>(r) y = Add(x, p)", o=np.int64(0), l=np.int64(1)))


@pytest.mark.parametrize(("table", "reason"), [
    (rand(1, 4, 12), "its constant 't' has other values for each of 12 frames"),
    (np.linspace(0, 1, 12, dtype=np.float32), "its constant 't'"),
    (np.arange(12, dtype=np.float32)[::-1].copy(), "counts over 12 frames in a way that may depend on their number"),
    (np.arange(12, dtype=np.float32) / 4, "counts over 12 frames in a way that may depend on their number"),
])
def test_tables_of_one_length(table: np.ndarray, reason: str):
    refused(fixed(text("y = Add(x, t)", t=table), 12), reason, axes={"x": 2}, op_type="Add")


def test_counts_of_frames():
    body = "s = ReduceSum(x, a) y = Div(s, n)"
    for n in (12.0, 11.0):
        export = fixed(text(body, outputs="float[1, 4, 1] y", a=ints(2), n=np.float32(n)), 12)
        refused(export, f"its constant 'n' is {n:g}, which may be a number or follow from the 12 frames", axes={"x": 2}, op_type="Div")
    pulsify(fixed(text(body, outputs="float[1, 4, 1] y", a=ints(2), n=np.float32(5)), 12), pulse=None, axes={"x": 2})


def test_one_frame_of_all():
    export = fixed(text("y = AveragePool<kernel_shape=[12]>(x)"), 12)
    refused(export, "it makes one frame of all 12 frames of the export", axes={"x": 2}, op_type="AveragePool")


MASK = "q = Transpose<perm=[0, 2, 1]>(x) s = MatMul(q, x) m = {} p = Softmax(m) y = MatMul(p, q)"
INDEX = np.arange(12)


@pytest.mark.parametrize(("shown", "delay"), [
    ((INDEX[None] <= INDEX[:, None]) & (INDEX[None] > INDEX[:, None] - 3), 0),
    (abs(INDEX[None] - INDEX[:, None]) <= 2, 2),
    ((INDEX[None] // 3 <= INDEX[:, None] // 3) & (INDEX[None] // 3 >= INDEX[:, None] // 3 - 1), 0),
], ids=["left", "band", "chunks"])
@pytest.mark.parametrize("form", ["Add(s, t)", "Where(t, s, low)"])
def test_masks(shown: np.ndarray, delay: int, form: str):
    table = shown if form.startswith("Where") else np.where(shown, 0, -np.inf).astype(np.float32)
    export = fixed(text(MASK.format(form), outputs="float[1, M, 4] y", t=table, low=np.float32(-np.inf)), 12)
    made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
    assert made.spec["outputs"][0]["delay"] == delay
    assert verify(export, made).ok


def test_masks_of_no_band():
    table = np.where(np.random.default_rng(0).random((12, 12)) < 0.5, 0, -9).astype(np.float32)
    refused(fixed(text(MASK.format("Add(s, t)"), outputs="float[1, M, 4] y", t=table), 12), "its constant 't' is a table of 12 × 12 frames",
            axes={"x": 2}, op_type="Add")


def test_dynamic_input_and_a_number_all_the_same():
    """What is left of a dynamic axis where an exporter wrote one shape down: the model runs at that length only."""
    model = text("h = Transpose<perm=[0, 2, 1]>(x) y = Reshape(h, s)", outputs="float[1, M, 2, 2] y", s=ints(1, 12, 2, 2))
    made = pulsify(model, pulse=None, end_of_stream=True)
    assert made.spec["fixed_length"] == {"frames": 12, "constants": [
        {"node": "y", "constant": "s", "was": "[1, 12, 2, 2]", "now": "[1, 0, 2, 2]"}]}
    assert verify(model, made).ok


def test_command_line(tmp_path: Path, capfd):
    body = "c = Conv<pads=[1, 1]>(x, k) y = Reshape(c, s)"
    onnx.save(fixed(text(body, k=rand(4, 4, 3), s=ints(1, 4, 12)), 12), tmp_path / "m.onnx")
    code, out, _ = run(capfd, "convert", tmp_path / "m.onnx", "-o", tmp_path / "p.onnx", "--pulse", 4)
    assert code == 0 and "exported for 12 frames, streams any number: 1 constant read anew" in out
    assert run(capfd, "verify", tmp_path / "m.onnx", tmp_path / "p.onnx")[0] == 0
    assert json.loads((tmp_path / "p.pulse.json").read_text())["fixed_length"]["frames"] == 12
    assert run(capfd, "inspect", tmp_path / "m.onnx", "--axis", "x=1")[0] == 3
    assert inspect(tmp_path / "m.onnx").document["fixed_length"]["frames"] == 12
