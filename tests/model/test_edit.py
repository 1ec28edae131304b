"""The graph editor."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from pulsify_onnx.model.edit import GraphEditor, free_name, names_of
from testing.oracle import parse

MODEL = """agraph (float[1,3,T] x) => (float[1,3,T] y) { y = Relu(x) }"""


def graph() -> ir.Graph:
    found = ir.from_proto(parse(MODEL)).graph
    found[0].name = "relu"
    return found


def test_a_free_name_is_taken_from_then_on():
    taken = {"a", "a_1"}
    assert [free_name("a", taken), free_name("a", taken), free_name("b", taken)] == ["a_2", "a_3", "b"]


def test_new_nodes_and_constants_stand_before_their_node():
    g = graph()
    node = g[0]
    place = GraphEditor(g, "new/{kind}").before(node)
    row = place.constant(np.float32([1, 2, 3]))
    made = place.op("Transpose", row, perm=[0])
    node.replace_input_with(0, made)
    assert [(n.op_type, n.name) for n in g] == [("Transpose", "relu/new/node_2"), ("Relu", "relu")]
    assert (row.name, made.name) == ("relu/new/number_1", "relu/new/value_3")
    assert row.shape == (3,) and row.dtype == ir.DataType.FLOAT and g.initializers["relu/new/number_1"] is row
    assert g[0].attributes["perm"].as_ints() == (0,)


def test_names_that_the_graph_has_are_not_given_again():
    g = graph()
    g[0].outputs[0].name = "relu/new_1"
    assert GraphEditor(g, "new").before(g[0]).op("Neg", g.inputs[0]).producer().name == "relu/new_1_1"
    taken = names_of(g)
    first, second = (GraphEditor(g, "more", taken).before(g[1]).op("Abs", g.inputs[0]).name for _ in range(2))
    assert first != second and {first, second} <= taken


def test_without_a_label_names_say_nothing_of_the_node():
    g = graph()
    place = GraphEditor(g).before(g[0])
    made = place.op("Neg", g.inputs[0])
    assert "relu" not in made.name and g[0] is made.producer()
    with pytest.raises(AssertionError, match="a name from the start"):
        place.constant(np.zeros(1))


def test_a_named_constant_is_made_once():
    editor = GraphEditor(graph())
    one = editor.named("one", np.asarray(1, np.int64))
    assert editor.named("one", np.asarray(1, np.int64)) is one and one.shape == ()
