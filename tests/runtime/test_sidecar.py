"""The typed sidecar: the document is what it always was, and everything in it is told apart by type."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from pulsify_onnx import PulsedModel, UsageError, pulsify
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.runtime.runner import PulseRunner
from pulsify_onnx.runtime.sidecar import (
    FixedLength,
    KeptNumber,
    LeftContext,
    PrefixOutput,
    ReadAnew,
    Sidecar,
    StaticInput,
    StreamInput,
    StreamOutput,
    WindowOutput,
    schema,
)
from testing.oracle import parse, rand

CONV = "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Conv<pads=[1,1], strides=[2]>(x, w, b) }"
MIXED = """agraph (float[N,3,T] x, float[1,3,1] g) => (float[N,3,T] y, float[N,3] m) {
    s = Add(x, g)
    y = Identity(s)
    m = ReduceMean<axes=[2], keepdims=0>(s) }"""
AHEAD = "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Slice(x, s, e, i) }"
DENSE = "agraph (float[1,4,6] x) => (float[1,2] y) { f = Flatten(x)\n y = MatMul(f, w) }"


def conv(**options) -> PulsedModel:
    return pulsify(parse(CONV, w=rand(4, 4, 3), b=rand(4)), pulse=4, **options)


@pytest.mark.parametrize("options", [{}, {"end_of_stream": True}, {"batch": 3}, {"batch": "dynamic"}])
def test_a_document_and_back(options):
    made = conv(**options)
    text = json.dumps(made.spec)
    assert json.dumps(Sidecar.from_json(json.loads(text)).to_json()) == text
    assert PulseRunner(made).sidecar == made.sidecar == Sidecar.from_json(made.spec)


def test_keys_stand_as_they_always_did():
    spec = conv(batch="dynamic").spec
    assert list(spec) == [
        "format",
        "tool",
        "source",
        "pulse",
        "pulse_multiple",
        "inputs",
        "valid_frames_input",
        "valid_frames_shape",
        "outputs",
        "states",
        "state_bytes",
        "flush_pulses",
        "least_frames",
        "source_batch",
    ]
    assert list(spec["inputs"][0]) == ["name", "kind", "axis", "dtype", "shape", "frames_per_pulse", "rate", "row_axis"]
    assert list(spec["outputs"][0]) == [
        "name",
        "kind",
        "axis",
        "dtype",
        "shape",
        "frames_per_pulse",
        "rate",
        "delay",
        "receptive_field",
        "frames",
        "row_axis",
    ]
    assert list(spec["states"][0]) == ["input", "output", "dtype", "shape", "bytes", "node", "role"]
    assert spec["outputs"][0]["rate"] == [1, 2] and spec["outputs"][0]["frames"] == "floor((T + 1)/2)"


def test_what_it_says_has_types():
    told = conv(end_of_stream=True).sidecar
    (x,), (y,) = told.inputs, told.outputs
    assert isinstance(x, StreamInput) and (x.rate, x.axis, x.count(5), x.fits(5)) == (1, 2, 5, True)
    assert isinstance(y, StreamOutput) and (y.rate, y.count(5)) == (Fraction(1, 2), 2)
    assert y.frames == (Length.symbol("T") + 1).floordiv(2) and [y.total(n) for n in (0, 1, 5)] == [0, 1, 3]
    assert told.ends and told.step == 4 and not conv().sidecar.ends
    assert replace(y, frames=None).total(5) is None
    assert replace(x, rate=Fraction(2, 3)).fits(3) and not replace(x, rate=Fraction(2, 3)).fits(4)


def test_kinds_are_told_apart():
    told = Sidecar.from_json(json.loads(json.dumps(pulsify(parse(MIXED), pulse=2, axes={"x": 2}).spec)))
    assert list(map(type, told.inputs)) == [StreamInput, StaticInput] and list(map(type, told.outputs)) == [
        StreamOutput,
        PrefixOutput,
    ]
    assert told.stream_inputs == told.inputs[:1] and told.stream_outputs == told.outputs[:1]
    assert told.row_axes == {"x": 0, "g": None, "y": 0, "m": 0}


def test_a_head_is_told_of():
    made = pulsify(parse(DENSE, w=rand(24, 2)), pulse=2, head="window", axes={"x": 2})
    told = Sidecar.from_json(json.loads(json.dumps(made.spec)))
    assert (
        told == made.sidecar
        and told.head is not None
        and told.head.full == 6
        and isinstance(told.outputs[0], WindowOutput)
    )


def test_frames_that_never_come_are_told():
    model = parse(AHEAD, **{k: rand(1).astype("int64") * 0 + v for k, v in {"s": 1, "e": 2**31 - 1, "i": 2}.items()})
    made = pulsify(model, pulse=2)
    assert Sidecar.from_json(made.spec).to_json() == made.spec


def test_rare_parts_are_read_and_written():
    told = replace(
        conv().sidecar,
        fixed_length=FixedLength(
            frames=9,
            length={"x": 9},
            constants=(ReadAnew(node="r", constant="shape", was="9", now="T"),),
            kept=(
                KeptNumber(node="p", op_type="Pad", what="pads", value=0.5, why="T/18"),
                KeptNumber(node="p", op_type="Pad", what="pads", value=3, why="T/3"),
            ),
        ),
        approximation=LeftContext(left_context=3, nodes=("a", "b")),
    )
    document = json.loads(json.dumps(told.to_json()))
    assert "readings" not in document["fixed_length"]
    assert Sidecar.from_json(document) == told
    assert [type(k["value"]) for k in document["fixed_length"]["kept"]] == [float, int]


@pytest.mark.parametrize(
    "path, value, says",
    [
        (("pulse",), "4", "pulse is '4'"),
        (("outputs", 0, "delay"), None, r"outputs\[0\].delay is None"),
        (("outputs", 0, "kind"), "odd", r"outputs\[0\] is"),
        (("outputs", 0, "frames"), "T ** 2", "is no length"),
        (("inputs", 0, "rate"), [1, 0], r"inputs\[0\].rate"),
        (("states",), {}, "states is"),
        (("tool",), [], "tool is no object"),
    ],
)
def test_what_is_no_sidecar_is_named(path, value, says):
    document = json.loads(json.dumps(conv().spec))
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(UsageError, match=says):
        Sidecar.from_json(document)


def test_what_is_missing_is_named_and_what_is_new_is_passed_over():
    document = json.loads(json.dumps(conv().spec))
    older = {k: v for k, v in document.items() if k != "least_frames"}
    assert Sidecar.from_json({**older, "steady": "later.onnx"}).least_frames == 1
    with pytest.raises(UsageError, match="flush_pulses is missing"):
        Sidecar.from_json({k: v for k, v in document.items() if k != "flush_pulses"})


def fits(document: object, form: dict) -> bool:
    """Whether a document is as the schema says, for the words that it uses."""
    if "anyOf" in form:
        return any(fits(document, f) for f in form["anyOf"])
    if "const" in form:
        return document == form["const"]
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    named = [form["type"]] if isinstance(form.get("type"), str) else form.get("type", [])
    if named and not any(isinstance(document, kinds[k]) for k in named):
        return False
    if isinstance(document, dict):
        more = form.get("additionalProperties")
        return set(form.get("required", [])) <= set(document) and all(
            fits(v, form.get("properties", {}).get(k, more or {})) for k, v in document.items()
        )
    if isinstance(document, list):
        return form.get("minItems", 0) <= len(document) <= form.get("maxItems", len(document)) and all(
            fits(v, form.get("items") or form.get("prefixItems", [{}] * len(document))[k])
            for k, v in enumerate(document)
        )
    return True


def test_the_schema_is_that_of_the_documents():
    form = schema()
    assert list(form["properties"])[:5] == ["format", "tool", "source", "pulse", "pulse_multiple"]
    for made in (
        conv(),
        conv(batch=2, end_of_stream=True),
        pulsify(parse(MIXED), pulse=None, axes={"x": 2}),
        pulsify(parse(DENSE, w=rand(24, 2)), pulse=2, head="window", axes={"x": 2}),
    ):
        assert fits(made.spec, form)
    assert not fits({**conv().spec, "states": None}, form)
    assert not fits({**conv().spec, "outputs": [{**conv().spec["outputs"][0], "kind": "odd"}]}, form)
    assert "flush_pulses" in form["required"] and "head" not in form["required"]
    json.dumps(form)


def test_it_needs_the_standard_library_only():
    code = (
        "import sys, pulsify_onnx.runtime.sidecar\nassert not {'numpy', 'onnx', 'onnx_ir', 'onnxruntime'} & "
        "set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
