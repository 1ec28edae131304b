"""Passes over batch models, and their contracts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.plan import Options
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.errors import CannotStream, UsageError
from pulsify_onnx.model.load import load
from pulsify_onnx.prepare.dynamic_batch import MakeBatchDynamic
from pulsify_onnx.prepare.fixed_length import MakeLengthDynamic
from pulsify_onnx.prepare.left_context import CutPast
from pulsify_onnx.prepare.passes import ANY_LENGTH, HEAD, NAMED, ORDERED, Notes, Prepared, run_passes
from pulsify_onnx.prepare.split_head import SplitHead
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
    after = run_passes(before, Edit(abs_for_relu))
    assert [n.op_type for n in after.source.model.graph] == ["Abs", "Neg"] and [
        n.op_type for n in before.source.model.graph
    ] == ["Relu", "Neg"]


def unnamed(graph):
    graph[0].name = ""


def twice(graph):
    graph[0].outputs[0].name = graph.inputs[0].name


def backwards(graph):
    graph.insert_after(graph[1], graph[0])


def fixed(graph):
    graph.inputs[0].shape = ir.Shape([1, 4, 8])


@pytest.mark.parametrize(
    "edit, problem",
    [
        (unnamed, "Edit ensures that every node has a name.*a Relu has no name"),
        (twice, "Edit ensures that every node has a name.*2 values are named 'x'"),
        (backwards, "Edit ensures that every value is computed before it is read: z reads y"),
        (fixed, "Edit ensures that the stream axes that are known are of any length: x"),
    ],
)
def test_a_broken_contract_is_named(edit, problem):
    with pytest.raises(AssertionError, match=problem):
        run_passes(prepared(), Edit(edit))


def test_what_a_pass_requires_is_checked_first():
    model = prepared()
    model.source.model.graph[0].name = ""
    with pytest.raises(AssertionError, match="CutPast requires that every node has a name"):
        run_passes(model, CutPast(4))


def test_a_model_of_any_length_stays_as_it_is_and_is_read():
    model = Prepared(load(parse(FREE)))
    made = run_passes(model, MakeLengthDynamic())
    assert made.source is model.source and made.notes == Notes() and made.read is not None and made.read[0] == {"x": 2}


def test_a_model_of_one_length_becomes_one_of_any():
    model = Prepared(
        load(parse("agraph (float[1,4,16] x) => (float[1,4,14] y) { y = Conv(x, w) }", w=rand(4, 4, 3))), {"x": 2}
    )
    made = run_passes(model, MakeLengthDynamic())
    assert made.axes == {"x": 2} and made.notes.fixed_length is not None and made.notes.fixed_length.frames == 16
    assert model.source.inputs[0].shape[2] == 16 and not isinstance(made.source.inputs[0].shape[2], int)


def test_a_cut_that_finds_nothing():
    for frames, why in ((4, "no attention of this model sees the whole past"), (0, "1 is the least")):
        with pytest.raises(UsageError, match=why):
            run_passes(prepared(), CutPast(frames))


CLIPS = (
    "agraph (float[1,4,16] x) => (float[1,4] z) { y = Relu(x)  m = ReduceMax<axes=[2], keepdims=0>(y)  z = "
    "Softmax<axis=1>(m) }"
)


def test_a_model_of_clips_becomes_its_body_and_a_head():
    model = Prepared(load(parse(CLIPS)), {"x": 2})
    made = run_passes(model, SplitHead())
    assert made.axes == {"x": 2} and made.head is not None and made.head.frames == 16 and made.head.outputs == ("z",)
    assert list(made.head.windows) == ["x"] or list(made.head.windows) == ["y"]
    assert not isinstance(made.source.inputs[0].shape[2], int) and model.source.inputs[0].shape[2] == 16
    assert [v.shape[2] for v in made.head.source.inputs] == [16]


def test_a_head_of_other_frames_than_the_clips_is_refused():
    with pytest.raises(UsageError, match="the model was exported for 16 frames"):
        run_passes(Prepared(load(parse(CLIPS)), {"x": 2}), SplitHead(8))


@dataclass(frozen=True)
class LosesWindows:
    """Gives a body that has no streams for the head."""

    requires = ()
    ensures = (HEAD,)

    def __call__(self, model):
        made = SplitHead()(model)
        return replace(made, head=replace(made.head, windows={"elsewhere": next(iter(made.head.windows.values()))}))


def test_a_head_whose_windows_nothing_gives_breaks_its_contract():
    with pytest.raises(
        AssertionError, match="LosesWindows ensures that a head reads windows of streams that the body gives: elsewhere"
    ):
        run_passes(Prepared(load(parse(CLIPS)), {"x": 2}), LosesWindows())


def read(text: str, **weights) -> Prepared:
    source = load(parse(text, **weights))
    axes, plan = choose(source, {"x": 2}, Options())
    return Prepared(source, axes, read=(axes, plan))


def test_a_batch_of_two_becomes_one_of_any_size():
    model = read("agraph (float[2,4,T] x) => (float[2,4,T] y) { y = Add(x, c) }", c=np.ones((2, 4, 1), np.float32))
    made = run_passes(model, MakeBatchDynamic(2))
    assert not isinstance(made.source.inputs[0].shape[0], int) and model.source.inputs[0].shape[0] == 2
    assert made.read is not None and not made.read[1].blockers and made.axes == {"x": 2}


def test_a_batch_that_is_none_is_refused_by_its_size():
    with pytest.raises(CannotStream, match="where a batch would be, is 2, not 3"):
        run_passes(read("agraph (float[2,4,T] x) => (float[2,4,T] y) { y = Relu(x) }"), MakeBatchDynamic(3))


def test_nodes_without_constants_are_left_as_they_are():
    model = read("agraph (float[2,4,T] x) => (float[2,4,T] y) { y = Relu(x) }")
    (node,) = model.source.model.graph
    assert run_passes(model, MakeBatchDynamic(2, meeting=((node.name,),))) is model


def test_a_batch_is_made_of_a_model_that_was_read():
    with pytest.raises(AssertionError, match="MakeBatchDynamic requires that it is known how the model is read"):
        run_passes(prepared(), MakeBatchDynamic(1))
