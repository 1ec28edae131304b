"""Every rule that a pulsed graph keeps is named where a graph breaks it, and what a graph declares is true."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from pulsify_onnx import analyze, pulsify
from pulsify_onnx.errors import BrokenRule
from pulsify_onnx.lowering.check import CHECKS, check
from pulsify_onnx.lowering.lower import lower
from pulsify_onnx.lowering.states import Lowered
from pulsify_onnx.model.load import load
from testing import ROOT
from testing.oracle import parse, rand

FIXTURES = sorted((ROOT / "fixtures").glob("*.onnx"))
CONV = "agraph (float[1,4,T] x) => (float[1,4,U] y) { a = Conv<pads=[1,1]>(x, w)\n y = Conv<pads=[1,1]>(a, w) }"


def lowered() -> Lowered:
    source = load(parse(CONV, w=rand(4, 4, 3)))
    return lower(analyze(source).at(2), source, 2)


def unread(found: Lowered) -> None:
    found.model.graph.append(ir.Node("", "Relu", [found.model.graph.inputs[0]], name="relu"))


def constant(found: Lowered) -> None:
    found.model.graph.register_initializer(ir.Value(name="left", const_value=ir.tensor([1.0])))


def nameless(found: Lowered) -> None:
    found.model.graph[0].name = None


def twice(found: Lowered) -> None:
    nodes = list(found.model.graph)
    nodes[0].name = nodes[1].name


def tensor_twice(found: Lowered) -> None:
    nodes = list(found.model.graph)
    nodes[0].outputs[0].name = nodes[1].outputs[0].name


def other_shape(found: Lowered) -> None:
    found.states[0].output.shape = ir.Shape([1, 4, 7])


BREAK = {unread: "everything is read", constant: "everything is read", nameless: "every node has a name", twice: "every name is there once",
         tensor_twice: "every name is there once", other_shape: "states come back as they went in"}


def test_every_rule_is_tried():
    assert set(BREAK.values()) == {rule.name for rule in CHECKS}


@pytest.mark.parametrize("broken", BREAK, ids=lambda f: f.__name__)
def test_a_broken_rule_is_named(broken):
    found = check(lowered())
    broken(found)
    with pytest.raises(BrokenRule) as problem:
        check(found)
    assert problem.value.rule == BREAK[broken] and problem.value.stage == "lowering"


def declared(value: onnx.ValueInfoProto) -> list[int | str | None]:
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_declared_shapes_are_true(path):
    source = load(path)
    try:
        pulse = analyze(source).pulse_multiple
    except Exception as problem:
        pytest.skip(str(problem))
    proto = pulsify(source, pulse=pulse, end_of_stream=True).proto()
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output}
    compared = 0
    for value in proto.graph.output:
        found = inferred[value.name]
        if found.type.tensor_type.HasField("shape"):
            want, got = declared(value), declared(found)
            assert len(want) == len(got), value.name
            assert all(a == b for a, b in zip(want, got) if isinstance(a, int) and isinstance(b, int)), f"{value.name} is declared {want}, but is {got}"
            compared += 1
    assert compared
