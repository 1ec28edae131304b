"""The check itself: it must see what is wrong, and say where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from pulsify_onnx import UsageError, pulsify
from pulsify_onnx.errors import InvalidModel, UnusableStream
from pulsify_onnx.verification.check import verify
from testing.oracle import parse, rand

STACK = """agraph (float[1,3,T] x) => (float[1,3,U] y) {
    a = Conv<pads=[1,1]>(x, w, b)
    y = Conv<pads=[1,1]>(a, w, b) }"""


def stack() -> onnx.ModelProto:
    return parse(STACK, w=rand(3, 3, 3), b=rand(3))


@dataclass
class Tampered:
    """A pulsed model as somebody left it."""

    model: onnx.ModelProto
    spec: dict[str, Any]

    def proto(self) -> onnx.ModelProto:
        return self.model


def tampered(source: onnx.ModelProto, change, **options: Any) -> Tampered:
    pulsed = pulsify(source, **{"pulse": 4, "end_of_stream": True, **options})
    model = pulsed.proto()
    change(model)
    return Tampered(model, pulsed.spec)


@pytest.mark.parametrize("pulse", [1, 4, 7, None])
@pytest.mark.parametrize("end", [False, True])
def test_a_right_stream_passes(pulse, end):
    found = verify(stack(), pulsify(stack(), pulse=pulse, end_of_stream=end))
    assert found.ok and found.max_error < 1e-5 and found.compared > 50
    if end and pulse and pulse > 1:
        assert any(n % pulse for n in found.lengths) and any(n < pulse for n in found.lengths)


def test_a_changed_weight_is_seen():
    def change(model):
        w = next(t for t in model.graph.initializer if t.name == "w")
        array = onnx.numpy_helper.to_array(w).copy()
        array[1, 1, 1] += 0.01
        w.CopyFrom(onnx.numpy_helper.from_array(array, "w"))

    found = verify(stack(), tampered(stack(), change))
    assert (
        not found.ok
        and found.output == "y"
        and found.max_error > 1e-3
        and found.frame is not None
        and "largest error" in found.message
    )


def test_a_wrong_delay_is_seen():
    def change(model):
        for prop in model.metadata_props:
            prop.value = prop.value.replace('"delay": 2', '"delay": 1')

    assert not verify(stack(), tampered(stack(), change)).ok


def test_a_delay_that_is_longer_than_it_need_be_is_told():
    waiting = parse(
        """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        p = Pad(x, more)
        c = Conv<pads=[1,1]>(p, w, b)
        y = Slice(c, start, end, axis) }""",
        more=np.asarray([0, 0, 0, 0, 0, 2]),
        start=np.asarray([0]),
        end=np.asarray([-2]),
        axis=np.asarray([2]),
        w=rand(3, 3, 3),
        b=rand(3),
    )
    assert verify(waiting, pulsify(waiting, pulse=4), measure=True).late == {}
    dead = parse(
        "agraph (float[1,3,T] x) => (float[1,3,T] y) { y = Conv<pads=[1,1]>(x, w, b) }",
        w=rand(3, 3, 3) * np.float32([1, 1, 1e-30]),
        b=rand(3),
    )
    found = verify(dead, pulsify(dead, pulse=4), measure=True)
    assert found.ok and found.late == {"y": 1} and found.as_json()["late"] == {"y": 1}


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize(
    "source",
    [
        "y = Conv<pads=[2,2], strides=[2]>(x, v, b)",
        "y = ConvTranspose<strides=[2]>(x, v, b)",
        'p = Pad<mode="reflect">(x, mirrored)\n y = Conv(p, v, b)',
        'p = Pad<mode="edge">(x, mirrored)\n c = Conv(p, v, b)\n y = Slice(c, from, to, along)',
    ],
)
def test_a_delay_that_is_needed_is_not_late(source, end):
    model = parse(
        "agraph (float[1,3,T] x) => (float[1,3,U] y) { " + source + " }",
        v=rand(3, 3, 5),
        b=rand(3),
        mirrored=np.asarray([0, 0, 6, 0, 0, 1]),
        **{"from": np.asarray([0]), "to": np.asarray([-1]), "along": np.asarray([2])},
    )
    for pulse in (1, 2, 4):
        if pulse % 2 and "strides" in source and "Transpose" not in source:
            continue
        found = verify(model, pulsify(model, pulse=pulse, end_of_stream=end), measure=True)
        assert found.ok and not found.late, (pulse, found)


def test_a_receptive_field_that_is_too_small_is_seen():
    def change(model):
        for prop in model.metadata_props:
            prop.value = prop.value.replace('"receptive_field": 5', '"receptive_field": 4')

    found = verify(stack(), tampered(stack(), change), measure=True)
    assert not found.ok and "the sidecar says that its receptive field is 4" in found.message
    assert verify(stack(), tampered(stack(), lambda model: None), measure=True).ok


def test_what_would_take_for_ever_is_not_begun():
    model = parse(
        'agraph (float[1,3,T] x) => (float[1,3,U] y) { p = Pad<mode="reflect">(x, many)\n y = Conv(p, w, b) }',
        w=rand(3, 3, 3),
        b=rand(3),
        many=np.asarray([0, 0, 1 << 20, 0, 0, 1]),
    )
    with pytest.raises(UsageError, match="verifying would take about"):
        verify(model, pulsify(model, pulse=2))


def test_a_pulsed_model_that_does_not_load_is_told_from_a_batch_model_that_does_not():
    def change(model):
        model.graph.node[0].op_type = "Nonsense"

    with pytest.raises(UnusableStream):
        verify(stack(), tampered(stack(), change))
    broken = stack()
    broken.graph.node[0].op_type = "Nonsense"
    with pytest.raises(InvalidModel) as caught:
        verify(broken, pulsify(stack(), pulse=4))
    assert not isinstance(caught.value, UnusableStream)


def test_weights_that_are_no_numbers_are_told():
    def change(model):
        w = next(t for t in model.graph.initializer if t.name == "w")
        array = onnx.numpy_helper.to_array(w).copy()
        array[0, 0, 0] = np.nan
        w.CopyFrom(onnx.numpy_helper.from_array(array, "w"))

    model = stack()
    change(model)
    for pulsed in (pulsify(model, pulse=4), pulsify(stack(), pulse=4)):
        found = verify(model, pulsed)
        assert not found.ok and "no numbers" in found.message


LIMITS = """<ir_version: 9, opset_import: ["": 17]>
agraph (float[1,T,4] x, float[1] low, float[1] high) => (float[1,U,4] y) {
    above = GreaterOrEqual(bins, low)
    below = LessOrEqual(bins, high)
    both = And(above, below)
    inside = Cast<to=1>(both)
    e = Exp(x)
    kept = Mul(e, inside)
    sum = ReduceSum(kept, two)
    y = Div(kept, sum) }"""


def test_static_inputs_drawn_out_of_their_range_are_named_with_what_was_drawn():
    model = parse(LIMITS, bins=np.float32([50, 100, 200, 400]), two=np.int64([2]))
    pulsed = pulsify(model, pulse=4)
    found = verify(model, pulsed)
    assert not found.ok and "no numbers" in found.message
    assert found.case is not None
    for name in ("low", "high"):
        assert f"{name} = {found.case.inputs[name].item():.3g}" in found.message
    assert "--input low=FILE" in found.message and "x =" not in found.message
    sensible = {"low": np.float32([60]), "high": np.float32([300])}
    assert verify(model, pulsed, recorded=sensible).ok
    half = verify(model, pulsed, recorded={"high": sensible["high"] * 0})
    assert "low =" in half.message and "high =" not in half.message


def test_too_few_flushing_pulses_are_seen():
    def change(model):
        for prop in model.metadata_props:
            prop.value = prop.value.replace('"flush_pulses": 1', '"flush_pulses": 0')

    found = verify(stack(), tampered(stack(), change))
    assert not found.ok and "flushing" in found.message


def test_a_wrong_shape_in_the_sidecar_is_seen():
    def change(model):
        for prop in model.metadata_props:
            spec = prop.value.split('"outputs"')
            prop.value = '"outputs"'.join(
                [*spec[:-1], spec[-1].replace('"shape": [1, 3, 4], "frames', '"shape": [1, 3, 5], "frames')]
            )

    found = verify(stack(), tampered(stack(), change))
    assert not found.ok and "the sidecar says" in found.message


def test_a_model_that_fails_is_seen():
    def change(model):
        model.graph.node[0].CopyFrom(
            helper.make_node("Reshape", [model.graph.node[0].input[0], "no"], list(model.graph.node[0].output))
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([7777]), "no"))

    assert not verify(stack(), tampered(stack(), change)).ok


def test_tolerances_can_be_set():
    def change(model):
        b = next(t for t in model.graph.initializer if t.name == "b")
        b.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(b) + np.float32(1e-3), "b"))

    pulsed = tampered(stack(), change)
    assert not verify(stack(), pulsed).ok
    assert verify(stack(), pulsed, atol=0.1).ok
    assert verify(stack(), pulsed, rtol=0.1).ok
    assert not verify(stack(), pulsify(stack(), pulse=4), rtol=0, atol=0).max_error > 1e-5


def test_lengths_are_such_as_the_batch_model_takes():
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv<strides=[4], kernel_shape=[4]>(x, w)
        c = ConvTranspose<strides=[4], kernel_shape=[4]>(a, w)
        y = Add(c, x) }""",
        w=rand(2, 2, 4),
    )
    found = verify(model, pulsify(model, pulse=8, end_of_stream=True))
    assert found.ok and all(n % 4 == 0 for n in found.lengths)


SHORT = {
    "a crop of more frames than there are": (
        "c = Slice(x, three, end, two)  y = Pad(c, pads)",
        4,
        {"three": [3], "end": [2**62], "two": [2], "pads": [0, 0, 0, 0, 0, 3]},
    ),
    "one frame for two": (
        "d = Conv<pads=[1,1], strides=[2]>(x, w)  u = ConvTranspose<strides=[2], pads=[1,1]>(d, v)  y = Add(u, x)",
        2,
        {},
    ),
    "a pool of none": ("p = MaxPool<kernel_shape=[4], strides=[3]>(x)  y = Conv<pads=[2,0]>(p, w)", 4, {}),
}


@pytest.mark.parametrize("name", SHORT)
def test_streams_that_are_too_short_for_the_batch_model_are_not_compared(name):
    body, least, numbers = SHORT[name]
    model = parse(
        f"agraph (float[1,2,T] x) => (float[1,2,U] y) {{ {body} }}",
        w=rand(2, 2, 3),
        v=rand(2, 2, 4),
        **{k: np.int64(v) for k, v in numbers.items()},
    )
    pulsed = pulsify(model, pulse=6, end_of_stream=True)
    assert pulsed.spec["least_frames"] == least
    found = verify(model, pulsed)
    assert found.ok and min(found.lengths) >= least


def test_nothing_to_compare_is_no_success():
    model = stack()
    pulsed = pulsify(model, pulse=4)
    model.graph.node[0].attribute[0].ints[:] = [0, 0]
    model.graph.node[0].input[1] = "w2"
    model.graph.initializer.append(onnx.numpy_helper.from_array(rand(3, 3, 5000), "w2"))
    found = verify(model, pulsed)
    assert not found.ok and "none of the lengths" in found.message


def test_prefix_outputs_are_compared():
    model = parse("agraph (float[1,3,T] x) => (float[1,3] y) { y = ReduceMax<axes=[2], keepdims=0>(x) }")
    for end in (False, True):
        found = verify(model, pulsify(model, pulse=4, end_of_stream=end))
        assert found.ok and found.compared >= 2


def test_another_model_is_no_match():
    other = parse("agraph (float[1,3,T] x) => (float[1,3,T] z) { z = Relu(x) }")
    with pytest.raises(UsageError, match="outputs"):
        verify(other, pulsify(stack(), pulse=4))
    with pytest.raises(UsageError, match="not a pulsed model"):
        verify(stack(), Tampered(stack(), {}))


def test_batch_model_is_what_it_says():
    """Onnxruntime's optimizer would fuse the padding into the pool, which pads with the least of all numbers."""
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        n = Abs(x)
        m = Neg(n)
        p = Pad(m, pads)
        y = MaxPool<kernel_shape=[3], strides=[2]>(p) }""",
        pads=np.asarray([0, 0, 0, 0, 0, 2], np.int64),
    )
    found = verify(model, pulsify(model, pulse=4, end_of_stream=True))
    assert found.ok, found.message
