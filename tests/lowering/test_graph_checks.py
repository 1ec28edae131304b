"""Every rule that a pulsed graph keeps is named where a graph breaks it, and what a graph declares is true."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from pulsify_onnx import analyze, pulsify
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.errors import AmbiguousAxis, BrokenRule
from pulsify_onnx.lowering.check import GRAPH_RULES, check_graph
from pulsify_onnx.lowering.lower import lower
from pulsify_onnx.lowering.states import Lowered
from pulsify_onnx.model.load import load
from testing import ROOT
from testing.corners import KINDS, varied
from testing.declared import inferred, untrue
from testing.oracle import parse, rand

FIXTURES = sorted((ROOT / "fixtures").glob("*.onnx"))
CONV = "agraph (float[1,4,T] x) => (float[1,4,U] y) { a = Conv<pads=[1,1]>(x, w)\n y = Conv<pads=[1,1]>(a, w) }"


def lowered() -> tuple[Lowered, Plan]:
    source = load(parse(CONV, w=rand(4, 4, 3)))
    plan = analyze(source).at(2)
    return lower(plan, source, 2), plan


def unread(found: Lowered) -> None:
    found.model.graph.append(ir.Node("", "Relu", [found.model.graph.inputs[0]], name="relu"))


def constant(found: Lowered) -> None:
    found.model.graph.register_initializer(ir.Value(name="left", const_value=ir.tensor([1.0])))


def nameless(found: Lowered) -> None:
    found.model.graph[0].name = None


def of_no_node(found: Lowered) -> None:
    found.model.graph[0].name = "pulsify/z/Concat_0"


def twice(found: Lowered) -> None:
    nodes = list(found.model.graph)
    nodes[0].name = nodes[1].name


def tensor_twice(found: Lowered) -> None:
    nodes = list(found.model.graph)
    nodes[0].outputs[0].name = nodes[1].outputs[0].name


def other_shape(found: Lowered) -> None:
    found.states[0].output.shape = ir.Shape([1, 4, 7])


SERVES = "every node says which one of the source it serves"
BREAK = {
    unread: "everything is read",
    constant: "everything is read",
    nameless: SERVES,
    of_no_node: SERVES,
    twice: "every name is there once",
    tensor_twice: "every name is there once",
    other_shape: "states come back as they went in",
}


def test_every_rule_is_tried():
    assert set(BREAK.values()) == {rule.name for rule in GRAPH_RULES}


@pytest.mark.parametrize("broken", BREAK, ids=lambda f: f.__name__)
def test_a_broken_rule_is_named(broken):
    found, plan = lowered()
    assert check_graph(found, plan) is found
    broken(found)
    with pytest.raises(BrokenRule) as problem:
        check_graph(found, plan)
    assert problem.value.rule == BREAK[broken] and problem.value.stage == "lowering"


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_declared_shapes_are_true(path):
    try:
        found = analyze(path, end_of_stream=True)
    except AmbiguousAxis as question:
        pytest.skip(str(question))
    for pulse in (found.pulse_multiple, 3 * found.pulse_multiple, None):
        proto = found.pulsed(pulse).proto()
        assert not list(untrue(proto))
        assert any(shape is not None for shape in inferred(proto).values())


@pytest.mark.parametrize("kind", KINDS)
def test_declared_shapes_of_random_networks_are_true(kind):
    compared = 0
    for seed in range(8):
        net, _ = varied(seed, 8, kind=kind)
        for end in (False, True):
            found = analyze(net.model, axes=axes_of(net.model), end_of_stream=end)
            if found.blockers:
                continue
            for pulse in (found.pulse_multiple, 2 * found.pulse_multiple, None):
                proto = found.pulsed(pulse).proto()
                assert not list(untrue(proto)), (seed, end, pulse)
                compared += sum(shape is not None for shape in inferred(proto).values())
    assert compared >= 12


def test_shapes_that_are_not_true_are_seen():
    proto = pulsify(parse(CONV, w=rand(4, 4, 3)), pulse=2).proto()
    assert not list(untrue(proto))
    proto.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 3
    assert list(untrue(proto)) == ["y is declared [1, 4, 3], but is [1, 4, 2]"]
    proto.graph.output[1].type.tensor_type.ClearField("shape")
    assert len(list(untrue(proto))) == 2


def axes_of(model: onnx.ModelProto) -> dict[str, int]:
    return {
        v.name: k for v in model.graph.input for k, d in enumerate(v.type.tensor_type.shape.dim) if d.dim_param == "T"
    }
