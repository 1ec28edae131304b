"""Numbers of an export of one length: those that were kept are told, and a reading answers what a refusal asks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_fixed_length import PADS, STRIDED, fixed, ints, text

from pulsify_onnx.api import inspect, pulsify, verify
from pulsify_onnx.errors import AmbiguousAxis, CannotStream, UsageError
from pulsify_onnx.report.tables import notes
from pulsify_onnx.verification.check import verify as verify_stream
from testing.command import run
from testing.oracle import rand, refused
from testing.twins import folded, static

POOLED = "y = AveragePool<kernel_shape=[8], strides=[8]>(x)"


def kept(model: onnx.ModelProto, axis: int = 2, **options: object) -> list[tuple[str, str, float, str]]:
    made = pulsify(model, pulse=None, axes={"x": axis}, **options)
    assert verify(model, made).ok
    return [(k["op_type"], k["what"], k["value"], k["why"]) for k in made.spec["fixed_length"]["kept"]]


@pytest.mark.parametrize(
    ("body", "frames", "told"),
    [
        (
            POOLED,
            64,
            [
                ("AveragePool", "kernel_shape", 8, "what makes 8 windows of T = 64"),
                ("AveragePool", "strides", 8, "what makes 8 windows of T = 64"),
            ],
        ),
        (
            "y = MaxPool<kernel_shape=[10], strides=[9]>(x)",
            64,
            [
                ("MaxPool", "kernel_shape", 10, "what makes 7 windows of T = 64"),
                ("MaxPool", "strides", 9, "what makes 7 windows of T = 64"),
            ],
        ),
        ("y = Mul(x, k)", 64, [("Mul", "k", 0.125, "1/sqrt T of T = 64")]),
        ("y = Slice(x, eight, far, two)", 64, [("Slice", "eight", 8, "1/8 of T = 64")]),
        ("y = Conv<pads=[20, 20]>(x, wide)", 40, [("Conv", "kernel_shape", 41, "T + 1")]),
        ("y = AveragePool<kernel_shape=[8], strides=[5]>(x)", 64, []),
        ("y = Mul(x, k)", 60, []),
        ("y = Relu(x)", 64, []),
    ],
)
def test_numbers_that_may_follow_the_length_are_listed(body: str, frames: int, told: list[tuple[str, str, float, str]]):
    model = fixed(
        text(body, k=np.float32(0.125), eight=ints(8), far=ints(2**62), two=ints(2), wide=rand(4, 4, 41)), frames
    )
    assert kept(model) == told


def test_notes_on_stderr_and_in_the_sidecar(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    onnx.save(fixed(text(POOLED), 64), tmp_path / "m.onnx")
    code, out, err = run(
        capfd, "convert", tmp_path / "m.onnx", "-o", tmp_path / "p.onnx", "--pulse", "8", "--axis", "x=2", "--json"
    )
    assert (
        code == 0
        and "note: 2 numbers" in err
        and "note:" not in out
        and json.loads(out)["spec"]["fixed_length"]["kept"]
    )
    told = json.loads((tmp_path / "p.pulse.json").read_text())["fixed_length"]
    assert told["length"] == {"x": 64} and [k["value"] for k in told["kept"]] == [8, 8]
    fixed_length = pulsify(tmp_path / "m.onnx", pulse=8, axes={"x": 2}).sidecar.fixed_length
    many = replace(fixed_length, kept=fixed_length.kept[:1] * 13)
    assert len(notes(many)) == 12 and "3 more" in notes(many)[-1]
    code, _, err = run(capfd, "inspect", tmp_path / "m.onnx", "--axis", "x=2")
    assert code == 0 and "what makes 8 windows" in err


def test_refused_exports_have_their_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    model = fixed(text("y = Mul(x, k)", k=np.float32(1 / 64)), 64)
    onnx.save(model, tmp_path / "m.onnx")
    code, out, err = run(capfd, "inspect", tmp_path / "m.onnx", "--axis", "x=2", "--json")
    document = json.loads(out)
    assert (
        code == 3 and [b["op_type"] for b in document["blockers"]] == ["Mul"] and document["inputs"][0]["name"] == "x"
    )
    assert "=number" in document["blockers"][0]["hint"] and "=number" in err
    with pytest.raises(AmbiguousAxis):  # an axis that only a question keeps from streaming counts
        inspect(model)


def test_a_number_that_was_asked_for():
    model = fixed(text("h = Mul(x, k) y = Relu(h)", k=np.float32(1 / 64)), 64)
    name = model.graph.node[0].name or model.graph.node[0].output[0]
    refused(model, "is 0.015625", axes={"x": 2}, op_type="Mul")
    made = pulsify(model, pulse=None, axes={"x": 2}, readings={name: "number"})
    assert verify(model, made).ok and made.spec["fixed_length"]["readings"] == {name: "number"}
    for readings, said in (
        ({name: "share"}, "--reading h=number"),
        ({"nothing": "number"}, "no such node"),
        ({name: "half"}, "one of number, share, fill"),
        ({name: "number", "y": "number"}, "nothing asks for it"),
    ):
        with pytest.raises(UsageError, match=said):
            pulsify(model, pulse=None, axes={"x": 2}, readings=readings)
    with pytest.raises(UsageError, match="not exported for one length"):
        pulsify(text("h = Mul(x, k) y = Relu(h)", k=np.float32(1)), pulse=None, readings={"h": "number"})


def test_a_size_that_is_a_share():
    """Sizes that are joined from the shape and a number."""
    body = (
        "s = Shape(x) t = Slice(s, zero, two, zero) n = Concat<axis=0>(t, k) "
        'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , , n)'
    )
    model = fixed(text(body, zero=ints(0), two=ints(2), k=ints(128)), 64)
    refused(model, "as 128 of 64 frames, a share of them", axes={"x": 2}, op_type="Resize")
    made = pulsify(model, pulse=None, axes={"x": 2}, readings={"y": "share"}, end_of_stream=True)
    assert made.spec["outputs"][0]["frames"] == "2*T" and verify(model, made).ok


@pytest.mark.parametrize(("shape", "back", "frames"), [([1, 1, -1], "[1, 1, 4*T]", 1), ([1, 6, -1], None, 6)])
def test_flattened_and_back(shape: list[int], back: str | None, frames: int):
    """What is only written back is nothing; which axis it is written to has two readings."""
    body = "f = Reshape(x, flat) y = Reshape(f, back)"
    model = fixed(text(body, f"float[1, {frames}, 4] x", "float[1, M, N] y", flat=ints(-1), back=ints(*shape)), frames)
    refused(model, "can be read in two ways", axes={"x": 1}, op_type="Reshape")
    made = pulsify(model, pulse=None, axes={"x": 1}, readings={"y": "share"})
    assert made.spec["outputs"][0]["receptive_field"] == 1 and verify(model, made).ok


@pytest.mark.parametrize(("frames", "stride"), [(43, 5), (42, 5), (45, 7)])
def test_pads_that_fill_are_computed(frames: int, stride: int):
    """With an end of stream, a pad is the number that it was or what fills the last window, as it is said to be."""
    body = PADS.replace("before", "zero").replace("after", "e") + f" y = Conv<strides=[{stride}]>(h, k, b)"
    model = text(body, **STRIDED, s=ints(stride), k=rand(4, 4, stride))
    export = folded(static(model, frames))
    with pytest.raises(CannotStream, match="--reading h=number or --reading h=fill"):
        pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True)
    made = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True, readings={"h": "fill"})
    assert verify_stream(model, made).ok and verify(export, made).ok
    plain = pulsify(export, pulse=None, axes={"x": 2}, end_of_stream=True, readings={"h": "number"})
    assert verify(export, plain).ok
    wanted, filled, numbered = (
        m.spec["outputs"][0]["frames"] for m in (pulsify(model, pulse=None, end_of_stream=True), made, plain)
    )
    assert wanted == filled != numbered


def test_pads_that_fill_after_other_pads():
    """Half of what fills the last window stands at the start, behind a number of frames that is put there too."""
    model = fixed(
        text(
            "h = Concat<axis=2>(first, x) g = Pad(h, p) y = Conv<strides=[5]>(g, k)",
            first=np.zeros((1, 4, 1), np.float32),
            p=ints(0, 0, 1, 0, 0, 1),
            k=rand(4, 4, 6),
        ),
        588,
    )
    refused(model, "another number at the start", axes={"x": 2}, op_type="Conv")
