"""The caller's model is the caller's: whatever is asked about it, its bytes stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from pulsify_onnx.api import analyze, inspect, pulsify, verify
from pulsify_onnx.model.load import load
from testing.families import FAMILIES
from testing.oracle import check, parse, rand


def _tensor(name: str, *values: float) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)


def branches(flag: bool = True, deep: bool = False) -> onnx.ModelProto:
    """Two branches whose initializers have one name, with other values; with `deep`, inside another If."""

    def branch(name: str, value: float) -> onnx.GraphProto:
        out = onnx.helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, None)
        nodes = [
            onnx.helper.make_node("Constant", [], ["k"], value=_tensor("k", 10 * value)),
            onnx.helper.make_node("Mul", ["x", "w"], ["t"]),
            onnx.helper.make_node("Add", ["t", "k"], [f"{name}_out"]),
        ]
        return onnx.helper.make_graph(nodes, name, [], [out], [_tensor("w", value)])

    def choice(out: str, yes: onnx.GraphProto, no: onnx.GraphProto) -> onnx.NodeProto:
        return onnx.helper.make_node("If", ["flag"], [out], then_branch=yes, else_branch=no)

    node = choice("y", branch("yes", 2), branch("no", 3))
    if deep:

        def outer(name: str, by: float) -> onnx.GraphProto:
            out = onnx.helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, None)
            return onnx.helper.make_graph(
                [
                    choice("c", branch("a", by), branch("b", -by)),
                    onnx.helper.make_node("Add", ["c", "w"], [f"{name}_y"]),
                ],
                name,
                [],
                [out],
                [_tensor("w", by + 1)],
            )

        node = choice("y", outer("left", 2), outer("right", 3))
    given = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, "T"])]
    weights = [onnx.numpy_helper.from_array(np.asarray(flag), "flag")]
    graph = onnx.helper.make_graph(
        [node], "g", given, [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, "U"])], weights
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def asked() -> onnx.ModelProto:
    """The same where the condition is an input."""
    model = branches(deep=True)
    del model.graph.initializer[:]
    model.graph.input.append(onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    return model


def unnamed() -> onnx.ModelProto:
    """Constants, inside a function too, whose tensors have no names, or all the same one."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "own": 1]>
        agraph (float[1,3,T] x) => (float[1,3,T] y) { a = own.scale(x) b = own.scale(a) c = Constant<value=float[1] {2.0}>() y = Mul(b, c) }
        <domain: "own", opset_import: ["": 17]> scale (x) => (y) { k = Constant<value=float[1] {3.0}>() t = Mul(x, k) y = Relu(t) }""")
    return model


def doubled() -> onnx.ModelProto:
    """A node's tensor attribute that is named like a tensor of the graph."""
    model = parse("agraph (float[1,3,T] x) => (float[1,3,T] y) { a = Mul(x, w) y = Add(a, c) }", w=rand(3, 1))
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["c"], value=_tensor("w", 1.5)))
    return model


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    **FAMILIES,
    "branches": branches,
    "the other branch": lambda: branches(False),
    "deep branches": lambda: branches(deep=True),
    "asked": asked,
    "unnamed": unnamed,
    "doubled": doubled,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_bytes_stay(name: str) -> None:
    model = MODELS[name]()
    before = model.SerializeToString(deterministic=True)
    least = analyze(model).pulse_multiple
    inspect(model)
    verify(model, pulsify(model, pulse=least, end_of_stream=True))
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", MODELS)
def test_the_names_in_a_model_of_onnx_ir_stay(name: str) -> None:
    model = ir.from_proto(MODELS[name]())
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    pulsify(model, pulse=None)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("deep", (False, True))
@pytest.mark.parametrize("flag", (False, True))
def test_branches_whose_initializers_have_one_name(flag: bool, deep: bool) -> None:
    check(branches(flag, deep), pulses=(1, 4), length=9)
    check(asked(), pulses=(1, 4), length=9, statics={"flag": np.asarray(flag)})


def test_external_data(tmp_path) -> None:
    model = parse(
        "agraph (float[1,3,T] x) => (float[1,4,U] y) { y = Conv<pads=[1,1]>(x, w, b) }", w=rand(4, 3, 3), b=rand(4)
    )
    path = tmp_path / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0, location="m.data")
    read = onnx.load(path)
    before = read.SerializeToString(deterministic=True)
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    inspect(read)
    assert verify(path, pulsify(path, pulse=4, end_of_stream=True)).ok
    assert read.SerializeToString(deterministic=True) == before
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files


def test_weights_are_shared_with_the_caller() -> None:
    """Reading a model takes no memory for its weights again."""
    model = parse(
        "agraph (float[1,3,T] x) => (float[1,4,U] y) { y = Conv<pads=[1,1]>(x, w, b) }", w=rand(4, 3, 3), b=rand(4)
    )
    source = load(model)
    other = rand(4, 3, 3, seed=5)
    model.graph.initializer[0].raw_data = other.tobytes()
    assert np.array_equal(source.constant("w"), other)
