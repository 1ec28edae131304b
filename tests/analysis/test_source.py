import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from pulsify_onnx.api import analyze, pulsify
from pulsify_onnx.errors import InvalidModel, PulsifyError, unexpected
from pulsify_onnx.model.load import load
from testing.oracle import check, parse, rand, refused, session


def info(name, shape=("T", 4), dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def build(nodes, inputs=None, outputs=None, initializers=(), opset=17, ir_version=8, functions=(), domains=()):
    graph = helper.make_graph(nodes, "g", inputs or [info("x")], outputs or [info("y", ("U", 4))], list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=list(functions))


def tensor(name, value):
    return onnx.numpy_helper.from_array(np.asarray(value), name)


node = helper.make_node


# files that are no models


@pytest.mark.parametrize(
    "content", [b"", b"hello, world\n", b"\x08\x08\x12", b"\xff" * 40, b"<!DOCTYPE html><html></html>", bytes(1000)]
)
def test_no_model(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModel) as caught:
        load(path)
    assert "\n" not in str(caught.value) and "model.onnx" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InvalidModel, match="no such file"):
        load(tmp_path / "none.onnx")
    with pytest.raises(InvalidModel, match="not a file"):
        load(tmp_path)


def test_truncated(tmp_path):
    data = build([node("Add", ["x", "w"], ["y"])], initializers=[tensor("w", rand(4))]).SerializeToString()
    for size in range(1, len(data), 7):
        (tmp_path / "m.onnx").write_bytes(data[:size])
        with pytest.raises(InvalidModel):
            load(tmp_path / "m.onnx")


def test_bytes_gone_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr("pulsify_onnx.analysis.walker.unexpected", unexpected)
    model = parse(
        """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        c = Constant<value_ints=[0,0,1,0,0,1]>()
        p = Pad(x, c)
        a = Conv<strides=[2]>(p, w, b)
        q = Transpose<perm=[0,2,1]>(a)
        r = MatMul(q, m)
        s = Softmax<axis=-1>(r)
        y = Transpose<perm=[0,2,1]>(s) }""",
        w=rand(4, 4, 3),
        b=rand(4),
        m=rand(4, 4),
    )
    data = model.SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            broken[at] = rng.integers(0, 256)
        (tmp_path / "m.onnx").write_bytes(bytes(broken))
        try:
            analyze(tmp_path / "m.onnx")
        except PulsifyError as problem:
            assert str(problem)


# models that make no sense


@pytest.mark.parametrize(
    "model, reason",
    [
        (build([node("Add", ["x", "lost"], ["y"])]), "reads 'lost', which nothing defines"),
        (build([node("Relu", ["x"], ["a"])]), "output 'y' is defined by nothing"),
        (build([node("Relu", ["x"], ["a"]), node("Abs", ["x"], ["a"]), node("Add", ["a", "x"], ["y"])]), "a"),
        (build([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]), "cycle"),
        (build([node("Relu", ["x"], ["y"])], inputs=[info("x"), info("x")]), "input 'x' appears twice"),
        (build([node("Relu", ["x"], ["y"])], outputs=[info("y"), info("y")]), "output 'y' appears twice"),
        (build([node("Relu", ["x"], ["y"])], inputs=[onnx.ValueInfoProto(name="x")]), "input 'x' has no type"),
        (build([node("Relu", ["x"], ["y"])], inputs=[info("x", dtype=TensorProto.UNDEFINED)]), "input 'x' has no type"),
        (
            build(
                [node("Where", ["f", "x", "x"], ["y"])],
                initializers=[TensorProto(name="f", data_type=TensorProto.BOOL, dims=[4], raw_data=b"\0\1\2\1")],
            ),
            "tensor 'f' has values that are neither true nor false",
        ),
        (build([node("Relu", ["x"], ["y"])], opset=6), "opset 6 is older than 7"),
        (build([node("Relu", ["x"], ["y"])], opset=99), "opset 99 is newer"),
    ],
)
def test_invalid(model, reason):
    with pytest.raises(InvalidModel) as caught:
        load(model)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_tensor_without_its_data():
    short = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(7))
    with pytest.raises(InvalidModel, match="tensor 'w' can't be read"):
        load(build([node("Add", ["x", "w"], ["y"])], initializers=[short]))


def test_truth_outside_of_the_file(tmp_path):
    flags = TensorProto(name="f", data_type=TensorProto.BOOL, dims=[4], data_location=TensorProto.EXTERNAL)
    flags.external_data.add(key="location", value="m.onnx")
    onnx.save(build([node("Where", ["f", "x", "x"], ["y"])], initializers=[flags]), tmp_path / "m.onnx")
    with pytest.raises(InvalidModel, match="neither true nor false"):
        load(tmp_path / "m.onnx")


def test_a_branch_whose_name_is_no_text():
    branch = helper.make_graph([node("Relu", ["x"], ["p"])], "yes", [], [info("p")])
    other = helper.make_graph([node("Neg", ["x"], ["q"])], "no", [], [info("q")])
    model = build(
        [node("If", ["flag"], ["y"], then_branch=branch, else_branch=other)],
        inputs=[info("x"), info("flag", (), TensorProto.BOOL)],
    )
    with pytest.raises(InvalidModel, match="no text"):
        load(onnx.ModelProto.FromString(model.SerializeToString().replace(b"yes", b"ye\xf3")))


def test_a_slice_of_nothing():
    with pytest.raises(PulsifyError):
        pulsify(build([node("Slice", [], ["s"]), node("Concat", ["s", "x"], ["y"], axis=0)]), pulse=2, axes={"x": 0})


def test_no_frames_at_all_are_no_length(tmp_path):
    model = parse("agraph (float[1,0,4] x, float[1,6,4] z) => (float[1,6,4] y) { y = Relu(z) }")
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(PulsifyError):
        pulsify(tmp_path / "m.onnx", pulse=2, axes={"x": 1, "z": 1})


def test_operator_of_a_function_without_a_name():
    twice = helper.make_function(
        "own", "twice", ["p"], ["q"], [node("Add", ["p", "p"], ["q"])], [helper.make_opsetid("", 17)]
    )
    data = (
        build([node("twice", ["x"], ["y"], domain="own")], functions=[twice], domains=["own"])
        .SerializeToString()
        .replace(b"Add", b"Ad\xe7")
    )
    with pytest.raises(InvalidModel):
        load(onnx.ModelProto.FromString(data))


def test_sparse_initializer():
    model = build([node("Add", ["x", "s"], ["y"])])
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(helper.make_tensor("s", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), [4])
    )
    with pytest.raises(InvalidModel):
        load(model)


def test_input_of_unknown_shape():
    refused(
        build([node("Add", ["x", "v"], ["y"])], inputs=[info("x"), info("v", None)]),
        "its shape is not known",
        axes={"x": 0},
    )


def test_no_opset():
    model = build([node("Relu", ["x"], ["y"])])
    del model.opset_import[:]
    with pytest.raises(InvalidModel):
        load(model)


# models that are odd, but fine


def test_initializers_that_are_inputs():
    model = build(
        [node("Add", ["x", "w"], ["y"])],
        inputs=[info("x"), info("w", (4,))],
        initializers=[tensor("w", rand(4))],
        ir_version=3,
    )
    pulsed = check(model)
    model.graph.initializer.append(tensor("unused", rand(3)))
    assert not analyze(model).blockers
    assert [i["name"] for i in pulsed.spec["inputs"]] == ["x"]


@pytest.mark.parametrize(
    "constant, op",
    [
        ("value_float=0.5", "Add"),
        ("value_floats=[0.5, 1.0, 2.0, 3.0]", "Add"),
        ("value=float[4] {1, 2, 3, 4}", "Mul"),
    ],
)
def test_constants(constant, op):
    check(
        parse(
            f"agraph (float[T,4] x) => (float[U,4] y) {{ c = Constant<{constant}>() y = {op}(x, c) }}".replace(
                "() y", "()\n y"
            )
        )
    )


def test_integer_constants():
    check(
        parse("""agraph (float[T,4] x) => (float[U,2] y) {
        a = Constant<value_int=2>()
        s = Constant<value_ints=[-1]>()
        z = Constant<value_ints=[0]>()
        one = Constant<value_ints=[1]>()
        k = Reshape(a, s)
        y = Slice(x, z, k, one) }""")
    )


def test_constant_output():
    check(
        parse(
            "agraph (float[T,4] x) => (float[U,4] y, float[2] c) {\n c = Constant<value_floats=[1.0, 2.0]>()\n y = "
            "Relu(x) }"
        )
    )


def test_names_empty_and_double():
    pulsed = pulsify(
        build([node("Relu", ["x"], ["a"], name="n"), node("Abs", ["a"], ["b"], name="n"), node("Neg", ["b"], ["y"])]),
        pulse=2,
    )
    session(pulsed.proto().SerializeToString())


def test_unicode_names():
    check(
        build(
            [node("Relu", ["日本"], ["größe"], name="ノード"), node("MaxPool", ["größe"], ["y é"], kernel_shape=[3])],
            inputs=[info("日本", (1, 2, "zeit"))],
            outputs=[info("y é", (1, 2, "U"))],
        )
    )


def test_names_like_ours():
    check(
        build(
            [
                node("MaxPool", ["valid_frames"], ["past_000_x"], kernel_shape=[3], name="pulsify/0"),
                node("Relu", ["past_000_x"], ["pulsify/0"]),
            ],
            inputs=[info("valid_frames", (1, 2, "T"))],
            outputs=[info("pulsify/0", (1, 2, "U"))],
        ),
        both=False,
    )


def test_input_as_output():
    check(build([node("Relu", ["x"], ["y"])], outputs=[info("x"), info("y", ("T", 4))]))
    check(build([], outputs=[info("x")]))


def test_outputs_from_one_wire():
    check(
        build(
            [node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["y"]), node("Identity", ["a"], ["z"])],
            outputs=[info("y"), info("z"), info("a")],
        )
    )


def test_dead_nodes():
    check(build([node("NonZero", ["x"], ["dead"]), node("Abs", ["x"], ["a"]), node("Relu", ["a"], ["y"])]))


def test_the_other_name_of_the_standard_domain():
    model = build([node("Relu", ["x"], ["y"], domain="ai.onnx")])
    model.opset_import[0].domain = "ai.onnx"
    assert not analyze(model).blockers


def test_unsorted_nodes():
    assert not analyze(build([node("Relu", ["a"], ["y"]), node("Abs", ["x"], ["a"])])).blockers


def test_optional_inputs_left_out():
    check(parse("agraph (float[T,4] x) => (float[U,4] y) { y = Clip(x, , m) }", m=np.float32(0.3)))


@pytest.mark.parametrize("opset", [7, 8])
def test_old_opsets(opset):
    check(
        parse(
            f'<ir_version: 3, opset_import: ["": {opset}]>'
            + """ agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        n = BatchNormalization(a, b, b, b, v)
        s = Sum(n, x)
        m = Max(s)
        p = MaxPool<kernel_shape=[3], pads=[1,1]>(m)
        q = Pad<pads=[0,0,1,0,0,1], value=0.5>(p)
        y = Conv(q, w, b) }""",
            w=rand(4, 4, 3),
            b=rand(4),
            v=np.abs(rand(4)),
        ),
        delays={"y": 3},
    )


def test_old_upsample():
    check(
        parse(
            '<ir_version: 3, opset_import: ["": 7]>'
            + """ agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        y = Upsample<scales=[1.0, 1.0, 2.0]>(a) }""",
            w=rand(4, 4, 3),
            b=rand(4),
        ),
        delays={"y": 2},
    )


# functions


def function(domain, name, inputs, outputs, nodes, attributes=(), opset=17, others=()):
    return helper.make_function(
        domain,
        name,
        inputs,
        outputs,
        nodes,
        [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in others)],
        list(attributes),
    )


def test_nested_functions_with_attributes():
    scaled = node("LeakyRelu", ["p"], ["q"])
    scaled.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    inner = function("own", "Inner", ["p"], ["q"], [scaled], ["slope"])
    outer = function(
        "own",
        "Outer",
        ["p"],
        ["q"],
        [node("Inner", ["p"], ["t"], domain="own", slope=0.3), node("Abs", ["t"], ["q"])],
        others=["own"],
    )
    check(
        build(
            [node("Outer", ["x"], ["m"], domain="own"), node("Outer", ["m"], ["y"], domain="own")],
            functions=[inner, outer],
            domains=["own"],
        )
    )


def test_function_of_another_opset():
    old = function("own", "F", ["p"], ["q"], [node("ReduceMean", ["p"], ["q"], axes=[1])], opset=13)
    model = build(
        [node("F", ["x"], ["a"], domain="own"), node("Add", ["a", "x"], ["y"])],
        functions=[old],
        domains=["own"],
        opset=18,
    )
    with pytest.raises(InvalidModel, match="has ReduceMean of opset 13"):
        load(model)
    same = function("own", "F", ["p"], ["q"], [node("Relu", ["p"], ["q"])], opset=15)
    check(
        build(
            [node("F", ["x"], ["a"], domain="own"), node("Add", ["a", "x"], ["y"])],
            functions=[same],
            domains=["own"],
            opset=17,
        )
    )


# data outside the file


def external(tmp_path, location="weights.bin"):
    model = build([node("MatMul", ["x", "w"], ["y"])], initializers=[tensor("w", rand(4, 4))])
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    changed = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for entry in changed.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (tmp_path / "m.onnx").write_bytes(changed.SerializeToString())
    return tmp_path / "m.onnx"


def test_external_data(tmp_path):
    assert not analyze(external(tmp_path)).blockers


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin"])
def test_external_data_outside_the_folder(tmp_path, location):
    (tmp_path.parent / "weights.bin").write_bytes(bytes(64))
    with pytest.raises(InvalidModel):
        load(external(tmp_path, location))


def test_external_data_missing_or_short(tmp_path):
    path = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(10))
    with pytest.raises(InvalidModel, match="cut short"):
        load(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InvalidModel, match="missing"):
        load(path)


def test_model_in_memory_is_not_changed():
    model = ir.from_proto(build([node("Relu", ["x"], ["y"])]))
    analyze(model)
    assert [n.op_type for n in model.graph] == ["Relu"] and model.graph.node(0).name in (None, "")
