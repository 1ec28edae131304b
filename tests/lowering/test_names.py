"""Names of the source that the pulsed model would like for itself, and values that are in the way of one another."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx.api import pulsify, verify
from pulsify_onnx.errors import InvalidModel
from testing.oracle import check, parse, rand, session

W = {"w": rand(3, 3, 3), "b": rand(3)}


@pytest.mark.parametrize(
    "model",
    [
        "agraph (float[1,3,T] valid_frames) => (float[1,3,U] y) { y = Conv<pads=[1,1]>(valid_frames, w, b) }",
        "agraph (float[1,3,T] x) => (float[1,3,U] valid_frames) { valid_frames = Conv<pads=[1,1]>(x, w, b) }",
        "agraph (float[1,3,T] x) => (float[1,3,U] y) { valid_frames = Conv<pads=[1,1]>(x, w, b) y = "
        "Conv<pads=[1,1]>(valid_frames, w, b) }",
        "agraph (float[1,3,T] valid_frames) => (float[1,3,U] valid_frames_1) { valid_frames_1 = "
        "Conv<pads=[1,1]>(valid_frames, w, b) }",
    ],
)
def test_valid_frames(model):
    """The sidecar tells another name where the model has this one."""
    pulsed = check(parse(model, **W), pulses=(1, 7))
    taken = {v["name"] for v in (*pulsed.spec["inputs"], *pulsed.spec["outputs"])}
    assert pulsed.spec["valid_frames_input"] not in taken
    assert ("valid_frames" in taken) == (pulsed.spec["valid_frames_input"] != "valid_frames")
    assert verify(parse(model, **W), pulsed).ok


def test_valid_frames_is_a_weight():
    check(
        parse(
            "agraph (float[1,3,T] x) => (float[1,3,U] y) { y = Conv<pads=[1,1]>(x, valid_frames, b) }",
            valid_frames=W["w"],
            b=W["b"],
        ),
        pulses=(1, 7),
    )


@pytest.mark.parametrize(
    "first, second",
    [
        ("past_000_x", "present_000_x"),
        ("present_000_x", "past_000_x"),
        ("past_000_clock", "past_001_seen"),
        ("pulsify/0", "pulsify/1"),
        ("pulsify/const_0", "pulsify/output_y"),
        ("pulsify/present_0", "pulsify/Conv_0"),
        ("clock", "seen"),
    ],
)
def test_names_of_states_and_of_inner_tensors(first, second):
    text = """agraph (float[1,3,T] "A") => (float[1,3,U] "B", float[1,3,V] y) {
        c = Conv<pads=[1,1]>("A", w, b) "B" = Conv<pads=[2,2]>(c, w, b) "B/in" = Relu(c) y = Conv<pads=[1,1]>("B/in", w, b) }"""
    model = parse(text.replace('"A"', "a__").replace('"B/in"', "d__").replace('"B"', "b__"), **W)
    names = {"a__": first, "b__": second, "d__": f"{second}/in"}
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    pulsed = check(model, pulses=(1, 7))
    onnx.checker.check_model(pulsed.proto(), full_check=True)


@pytest.mark.parametrize(
    "inner", ["past_000_clock", "present_000_clock", "past_001_seen", "present_001_seen", "past_002_x", "present_002_x"]
)
def test_a_state_has_one_tag(inner):
    """An inner tensor that has the name of one side moves both."""
    model = parse(
        f"agraph (float[1,3,T] x) => (float[1,3,U] y) {{ {inner} = Conv<pads=[1,1]>(x, w, b) y = "
        f"Conv<pads=[1,1]>({inner}, w, b) }}",
        **W,
    )
    pulsed = check(model, pulses=(1, 7))
    tags = [(s["input"].removeprefix("past_"), s["output"].removeprefix("present_")) for s in pulsed.spec["states"]]
    assert all(past == present for past, present in tags) and inner not in {
        name for s in pulsed.spec["states"] for name in (s["input"], s["output"])
    }


@pytest.mark.parametrize("label", ("pulse", "pulse_x2", "pulse_"))
def test_a_dimension_that_is_called_pulse(label):
    """The frames of a pulse have a label that no other dimension has."""
    model = parse(
        f"agraph (float[{label},3,T] x) => (float[{label},3,U] y) {{ a = Conv<pads=[1,1]>(x, w, b) y = Relu(a) }}", **W
    )
    pulsed = pulsify(model, pulse=None, axes={"x": 2}, end_of_stream=True)
    batch, _, frames = (d.dim_param for d in pulsed.proto().graph.input[0].type.tensor_type.shape.dim)
    assert batch == label and frames.startswith("pulse") and frames != label
    assert verify(model, pulsed).ok


@pytest.mark.parametrize("end", (False, True))
def test_an_output_that_is_an_input_and_tells_no_shape(end, tmp_path):
    model = parse("agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,T] x) { y = Conv<pads=[1,1]>(x, w, b) }", **W)
    model.graph.output[1].type.tensor_type.ClearField("shape")
    pulsed = pulsify(model, pulse=4, end_of_stream=end)
    assert [(o["name"], o["delay"]) for o in pulsed.spec["outputs"]] == [("y", 1), ("x", 0)]
    assert verify(model, pulsed).ok
    onnx.save(model, tmp_path / "m.onnx")
    assert pulsify(tmp_path / "m.onnx", pulse=4, end_of_stream=end).proto().graph == pulsed.proto().graph


def test_an_output_that_is_the_input_alone():
    check(
        parse("agraph (float[1,3,T] x) => (float[1,3,T] x, float[1,3,T] y) { y = Identity(x) }"),
        pulses=(1, 7),
        delays={"x": 0, "y": 0},
    )


def test_an_output_that_is_listed_twice():
    model = parse("agraph (float[1,3,T] x) => (float[1,3,T] y, float[1,3,T] z) { y = Relu(x) z = Identity(y) }")
    model.graph.output[1].name = "y"
    with pytest.raises(InvalidModel, match="output 'y' appears twice"):
        pulsify(model, pulse=4)


@pytest.mark.parametrize("size", ("Shape(c)", "Size(c)"))
def test_a_size_that_no_input_tells(size):
    """A value that does not stream, of a size that only running it tells."""
    model = parse(
        f"""agraph (float[1,6,T] x, float[1,6,T2] z) => (float[1,6,T] y, float o) {{
        c = Concat<axis=2>(z, z)
        s = {size}
        t = Reshape(s, all)
        n = ConstantOfShape(t)
        o = ReduceSum<keepdims=0>(n)
        y = Add(x, o) }}""",
        all=np.array([-1]),
    )
    model.graph.output[1].type.tensor_type.shape.ClearField("dim")
    check(model, axes={"x": 2}, pulses=(1, 7), statics={"z": rand(1, 6, 5)})


@pytest.mark.parametrize(
    "text",
    [
        "big = ConstantOfShape(size)",
        "big = Expand(one, size)",
        "big = Tile(ones, size)",
        "k = Squeeze(size) big = Range(zero, k, step)",
    ],
)
def test_constants_too_large_to_fold_are_not_made(text):
    """Sixteen gigabytes of them: they are left to whoever runs the model."""
    model = parse(
        f"agraph (float[1,3,T] x) => (float[1,3,T] y) {{ {text} c = Cast<to=1>(big) s = ReduceMax<keepdims=0>(c) y "
        "= Add(x, s) }",
        size=np.array([2**32]),
        one=np.float32(1),
        ones=np.ones(1, np.float32),
        zero=np.int64(0),
        step=np.int64(1),
    )
    assert pulsify(model, pulse=4).spec["outputs"][0]["delay"] == 0


def test_a_constant_loop_of_many_rounds_is_not_run():
    model = parse(
        """agraph (float[1,3,T] x) => (float[1,3,T] y) {
        o, q = Loop<body = b (int64 i, bool c0, float v0) => (bool c1, float v1, float v2) { c1 = Identity(c0) v1 = Sin(v0) v2 = Identity(v0) }>(n, c, start)
        s = ReduceSum<keepdims=0>(q)
        y = Add(x, s) }""",
        n=np.int64(2**40),
        c=np.array(True),
        start=np.float32(1),
    )
    pulsed = pulsify(model, pulse=4)
    assert pulsed.spec["outputs"][0]["delay"] == 0
    session(pulsed.proto().SerializeToString(), plain=True)
