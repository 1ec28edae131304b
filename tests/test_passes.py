"""Passes over batch models, and their contracts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir
import pytest

from pulsify_onnx.errors import UsageError
from pulsify_onnx.model.load import load
from pulsify_onnx.prepare.fixed_length import MakeLengthDynamic
from pulsify_onnx.prepare.left_context import CutPast
from pulsify_onnx.prepare.passes import ANY_LENGTH, NAMED, ORDERED, Prepared, run
from testing.oracle import parse, rand

FREE = "agraph (float[1,4,T] x) => (float[1,4,T] z) { y = Relu(x)  z = Neg(y) }"


@dataclass(frozen=True)
class Edit:
    """Does to a copy of the model what it is told."""

    edit: object

    requires = (NAMED, ORDERED)
    ensures = (NAMED, ORDERED, ANY_LENGTH)

    def __call__(self, model):
        source = replace(model.source, model=model.source.model.clone())
        self.edit(source.model.graph)
        return replace(model, source=source)


def prepared(text: str = FREE, **axes: int) -> Prepared:
    return Prepared(load(parse(text)), axes or {"x": 2})


def test_a_pass_that_keeps_its_contract():
    def abs_for_relu(graph):
        graph[0].op_type = "Abs"

    before = prepared()
    after = run(before, Edit(abs_for_relu))
    assert [n.op_type for n in after.source.model.graph] == ["Abs", "Neg"] and [n.op_type for n in before.source.model.graph] == ["Relu", "Neg"]


def unnamed(graph):
    graph[0].name = ""


def twice(graph):
    graph[0].outputs[0].name = graph.inputs[0].name


def backwards(graph):
    graph.insert_after(graph[1], graph[0])


def fixed(graph):
    graph.inputs[0].shape = ir.Shape([1, 4, 8])


@pytest.mark.parametrize("edit, problem", [
    (unnamed, "Edit ensures that every node has a name.*a Relu has no name"),
    (twice, "Edit ensures that every node has a name.*2 values are named 'x'"),
    (backwards, "Edit ensures that every value is computed before it is read: z reads y"),
    (fixed, "Edit ensures that the stream axes that are known are of any length: x"),
])
def test_a_broken_contract_is_named(edit, problem):
    with pytest.raises(AssertionError, match=problem):
        run(prepared(), Edit(edit))


def test_what_a_pass_requires_is_checked_first():
    model = prepared()
    model.source.model.graph[0].name = ""
    with pytest.raises(AssertionError, match="CutPast requires that every node has a name"):
        run(model, CutPast(4))


def test_a_model_of_any_length_stays_as_it_is_and_is_read():
    model = Prepared(load(parse(FREE)))
    made = run(model, MakeLengthDynamic())
    assert made.source is model.source and made.notes == {} and made.read is not None and made.read[0] == {"x": 2}


def test_a_model_of_one_length_becomes_one_of_any():
    model = Prepared(load(parse("agraph (float[1,4,16] x) => (float[1,4,14] y) { y = Conv(x, w) }", w=rand(4, 4, 3))), {"x": 2})
    made = run(model, MakeLengthDynamic())
    assert made.axes == {"x": 2} and made.notes["fixed_length"]["frames"] == 16
    assert model.source.inputs[0].shape[2] == 16 and not isinstance(made.source.inputs[0].shape[2], int)


def test_a_cut_that_finds_nothing():
    for frames, why in ((4, "no attention of this model sees the whole past"), (0, "1 is the least")):
        with pytest.raises(UsageError, match=why):
            run(prepared(), CutPast(frames))
