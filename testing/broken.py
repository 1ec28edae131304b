"""Files gone wrong: bytes and fields of small models changed at random. A case has a number, which says all that is
random.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto, helper, numpy_helper

from testing import ROOT
from testing.families import FAMILIES
from testing.networks import network

FIXTURES = ROOT / "fixtures"

Model = onnx.ModelProto
Mutation = Callable[[Model, random.Random, Path], None]


@lru_cache(maxsize=1)
def originals() -> list[bytes]:
    """The models before the attack."""
    made = [make() for make in FAMILIES.values()] + [onnx.load(p) for p in sorted(FIXTURES.glob("*.onnx"))]
    made += [network(seed, 8).model for seed in range(12)]
    return [m.SerializeToString(deterministic=True) for m in made if m.ByteSize() < 200_000]


# bytes


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def _replaced(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.choice([1, 2, 8])):
        broken[rng.randrange(len(broken))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(broken)


def _inserted(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.choice([1, 2, 5, 60])) + data[at:]


def _removed(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice([1, 2, 9, 100]) :]


def _noise(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        [
            b"",
            rng.randbytes(rng.randrange(200)),
            b"\xff" * 1000,
            bytes(1000),
            b"PK\x03\x04" + data,
            data + data,
            data[::-1],
            b"\x3a\xff\xff\xff\xff\x7f" + data,
            b"\x3a" * 500,
            b"\x08\x08" + b"\x3a\x02" * 3000,
        ]
    )


BYTES = [_truncated, _flipped, _flipped, _replaced, _inserted, _removed, _noise]


# fields


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(a.g)


def _graph(m: Model, rng: random.Random) -> onnx.GraphProto:
    return rng.choice([*_graphs(m.graph)])


def _node(m: Model, rng: random.Random) -> onnx.NodeProto:
    nodes = [n for g in _graphs(m.graph) for n in g.node]
    return rng.choice(nodes or [onnx.NodeProto()])


def _name(m: Model, rng: random.Random) -> str:
    names = [v.name for v in [*m.graph.input, *m.graph.output, *m.graph.initializer]] + [
        n for x in m.graph.node for n in [*x.input, *x.output]
    ]
    return rng.choice([*names, "", "nowhere", "x" * 5000, "é\n\t", "a/b:0", "../../x"])


NUMBERS = [0, 1, -1, 2, -2, 3, 7, 100, -100, 2**31 - 1, -(2**31), 2**40, 2**63 - 1, -(2**63)]


def _input(m: Model, rng: random.Random, folder: Path) -> None:
    node = _node(m, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = _name(m, rng)


def _output(m: Model, rng: random.Random, folder: Path) -> None:
    node = _node(m, rng)
    if node.output:
        node.output[rng.randrange(len(node.output))] = _name(m, rng)


def _inputs(m: Model, rng: random.Random, folder: Path) -> None:
    node = _node(m, rng)
    change = rng.randrange(4)
    if change == 0 and node.input:
        del node.input[rng.randrange(len(node.input)) :]
    elif change == 1:
        node.input.extend([_name(m, rng)] * rng.choice([1, 3, 40]))
    elif change == 2 and len(node.input) > 1:
        node.input[:] = [*node.input[1:], node.input[0]]
    else:
        node.output.extend(["more"] * rng.choice([1, 5]))


def _operator(m: Model, rng: random.Random, folder: Path) -> None:
    node = _node(m, rng)
    schemas = onnx.defs.get_all_schemas()
    node.op_type = rng.choice(
        [
            rng.choice(schemas).name,
            rng.choice(["", "Nonsense", "Conv", "GRU", "If", "Loop", "Constant", "ConstantOfShape", "Shape"]),
        ]
    )
    if rng.random() < 0.2:
        node.domain = rng.choice(["com.microsoft", "ai.onnx.ml", "nowhere", "ai.onnx", "own"])


def _attribute(m: Model, rng: random.Random, folder: Path) -> None:
    owners = [n for g in _graphs(m.graph) for n in g.node if n.attribute]
    if not owners:
        return
    node = rng.choice(owners)
    a = rng.choice(node.attribute)
    change = rng.randrange(6)
    if change == 0:
        node.attribute.remove(a)
    elif change == 1:
        a.type = rng.randrange(16)
    elif change == 2:
        a.CopyFrom(
            helper.make_attribute(
                a.name or "x", rng.choice([1, 0.5, "text", [1, 2], [0.5], ["a", "b"], -1, 2**62, float("nan")])
            )
        )
    elif change == 3 and a.ints:
        a.ints[rng.randrange(len(a.ints))] = rng.choice(NUMBERS)
    elif change == 4 and a.ints:
        a.ints[:] = rng.choice([[*a.ints, 1], a.ints[:-1], [0] * len(a.ints), [-1] * len(a.ints), [*a.ints] * 3])
    else:
        a.i, a.s = (
            rng.choice(NUMBERS),
            rng.choice([b"", b"reflect", b"SAME_UPPER", b"\xff\xfe", b"cubic", b"reverse", b"bidirectional"]),
        )


def _extra_attribute(m: Model, rng: random.Random, folder: Path) -> None:
    name = rng.choice(
        [
            "axis",
            "axes",
            "strides",
            "dilations",
            "kernel_shape",
            "pads",
            "group",
            "to",
            "perm",
            "direction",
            "layout",
            "mode",
            "auto_pad",
            "hidden_size",
            "keepdims",
            "block_size",
            "ceil_mode",
            "activations",
            "value",
            "alpha",
        ]
    )
    node = _node(m, rng)
    value: Any = rng.choice(
        [rng.choice(NUMBERS), [rng.choice(NUMBERS) for _ in range(rng.randrange(1, 5))], 0.5, "text", ["a"]]
    )
    node.attribute.append(helper.make_attribute(name, value))


def _weights(m: Model, rng: random.Random, folder: Path) -> None:
    if not m.graph.initializer:
        return
    t = rng.choice(m.graph.initializer)
    change = rng.randrange(8)
    if change == 0:
        m.graph.initializer.remove(t)
    elif change == 1:
        t.data_type = rng.randrange(30)
    elif change == 2 and t.dims:
        t.dims[rng.randrange(len(t.dims))] = rng.choice(NUMBERS)
    elif change == 3:
        t.dims[:] = rng.choice([[], [*t.dims, 1], t.dims[1:], [0], [2**40, 2**40]])
    elif change == 4:
        t.raw_data = rng.choice([b"", t.raw_data[:-1], t.raw_data * 2])
    elif change == 5:
        t.name = _name(m, rng)
    elif change == 6:
        array = numpy_helper.to_array(t).copy()
        array.reshape(-1)[rng.randrange(max(1, array.size)) if array.size else 0 :][:3] = (
            rng.choice([np.nan, np.inf, 1e30, -1]) if array.dtype.kind == "f" else (rng.choice([0, 1, 2, 5, 100]))
        )
        t.CopyFrom(numpy_helper.from_array(array, t.name))
    else:
        array = numpy_helper.to_array(t)
        t.CopyFrom(numpy_helper.from_array(array.reshape(-1)[: rng.randrange(array.size + 1)], t.name))


def _external(m: Model, rng: random.Random, folder: Path) -> None:
    if not m.graph.initializer:
        return
    t = rng.choice(m.graph.initializer)
    t.data_location = TensorProto.EXTERNAL
    place = rng.choice(
        ["missing.bin", "../../../etc/passwd", "/etc/passwd", "weights.bin", "", "a\0b", ".", "model.onnx", "link.bin"]
    )
    (folder / "weights.bin").write_bytes(t.raw_data[: rng.choice([None, -1, 0])])
    if place == "link.bin":
        (folder / "link.bin").symlink_to("/etc/passwd")
    t.raw_data = b""
    del t.external_data[:]
    for key, value in [
        ("location", place),
        ("offset", str(rng.choice(NUMBERS))),
        ("length", rng.choice(["4", "-1", "x", str(2**60)])),
        ("odd", "1"),
    ]:
        if key == "location" or rng.random() < 0.4:
            t.external_data.add(key=key, value=value)


def _shape(m: Model, rng: random.Random, folder: Path) -> None:
    v = rng.choice([*m.graph.input, *m.graph.output, *m.graph.value_info] or [onnx.ValueInfoProto()])
    dims = v.type.tensor_type.shape.dim
    change = rng.randrange(6)
    if change == 0:
        v.type.tensor_type.ClearField("shape")
    elif change == 1 and dims:
        rng.choice(dims).dim_value = rng.choice(NUMBERS)
    elif change == 2 and dims:
        rng.choice(dims).dim_param = rng.choice(["T", "N", "", "a b", "T+1", "pulse", "é"])
    elif change == 3:
        dims.add().dim_value = rng.choice(NUMBERS)
    elif change == 4 and dims:
        del dims[rng.randrange(len(dims))]
    else:
        v.type.tensor_type.elem_type = rng.randrange(27)


def _value(m: Model, rng: random.Random, folder: Path) -> None:
    values = rng.choice([m.graph.input, m.graph.output])
    change = rng.randrange(5)
    if change == 0:
        del values[:]
    elif change == 1 and values:
        rng.choice(values).name = _name(m, rng)
    elif change == 2 and values:
        values.add().CopyFrom(values[0])
    elif change == 3 and values:
        rng.choice(values).type.Clear()
    elif values:
        rng.choice(values).type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None)))


def _order(m: Model, rng: random.Random, folder: Path) -> None:
    g = _graph(m, rng)
    nodes = [*g.node]
    change = rng.randrange(5)
    if change == 0:
        rng.shuffle(nodes)
    elif change == 1 and nodes:
        nodes.append(rng.choice(nodes))
    elif change == 2 and nodes:
        nodes.remove(rng.choice(nodes))
    elif change == 3:
        nodes = []
    elif len(nodes) > 1 and nodes[-1].output and nodes[0].input:
        nodes[0].input[0] = nodes[-1].output[0]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del g.node[:]
    g.node.extend(copies)


def _versions(m: Model, rng: random.Random, folder: Path) -> None:
    change = rng.randrange(5)
    if change == 0:
        m.ir_version = rng.choice([0, 1, 2, 3, 4, 50, 2**40, -1])
    elif change == 1:
        m.opset_import[0].version = rng.choice(
            [0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18, 21, 23, 24, 26, 99, 2**40, -1]
        )
    elif change == 2:
        del m.opset_import[:]
    elif change == 3:
        m.opset_import.add(domain="", version=rng.choice([7, 17, 13]))
    else:
        m.opset_import.add(domain=rng.choice(["com.microsoft", "odd"]), version=rng.choice([0, 1, 99]))


def _nested(m: Model, rng: random.Random, folder: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", [m.graph.input[0].name if m.graph.input else "x"], ["deep"])],
        "g",
        [],
        [onnx.ValueInfoProto(name="deep")],
    )
    for _ in range(rng.choice([1, 5, 20, 45])):
        node = helper.make_node(
            "If",
            ["flag"],
            ["deep"],
            then_branch=inner,
            else_branch=inner
            if rng.random() < 0.05
            else helper.make_graph([], "e", [], [onnx.ValueInfoProto(name="deep")]),
        )
        inner = helper.make_graph([node], "g", [], [onnx.ValueInfoProto(name="deep")])
    m.graph.node.extend(inner.node)
    m.graph.output.add(name="deep")
    if rng.random() < 0.7:
        m.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "flag"))


def _long(m: Model, rng: random.Random, folder: Path) -> None:
    name = m.graph.input[0].name if m.graph.input else "x"
    for k in range(rng.choice([300, 3000])):
        m.graph.node.append(
            helper.make_node(rng.choice(["Identity", "Relu", "Add"]) if k % 2 else "Relu", [name], [f"l{k}"])
        )
        name = f"l{k}"
    m.graph.output.add().CopyFrom(helper.make_tensor_value_info(name, 1, None))


def _functions(m: Model, rng: random.Random, folder: Path) -> None:
    call = rng.choice(["f", "g"])
    f = helper.make_function(
        "own",
        "f",
        ["a"],
        ["b"],
        [helper.make_node(call, ["a"], ["b"], domain="own")],
        [helper.make_opsetid("", rng.choice([17, 13, 99])), helper.make_opsetid("own", 1)],
    )
    m.functions.append(f)
    if rng.random() < 0.5:
        m.functions.append(f)
    m.opset_import.add(domain="own", version=1)
    m.graph.node.append(helper.make_node("f", [_name(m, rng)], ["fy"], domain="own"))
    m.graph.output.add(name="fy")


def _huge(m: Model, rng: random.Random, folder: Path) -> None:
    big = rng.choice([2**20, 2**31, 2**40])
    m.graph.initializer.append(numpy_helper.from_array(np.asarray([big, rng.choice([1, big])], np.int64), "big"))
    op = rng.choice(["ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "Reshape"])
    inputs = {"ConstantOfShape": ["big"], "Range": ["nought", "much", "unit"]}.get(
        op, [m.graph.input[0].name if m.graph.input else "x", "big"]
    )
    for name, value in (("nought", 0), ("much", big), ("unit", 1)):
        m.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), name))
    m.graph.node.append(helper.make_node(op, inputs, ["bigger"]))
    if rng.random() < 0.5 and m.graph.output:
        m.graph.node.append(helper.make_node("ReduceSum", ["bigger"], ["biggest"], keepdims=0))
        m.graph.output.add(name="biggest")
    else:
        m.graph.output.add(name="bigger")


def _anything(m: Model, rng: random.Random, folder: Path) -> None:
    """Some field of some message anywhere gets another value, or goes."""
    messages: list[Any] = [m]
    for message in messages:
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                messages.extend(value if hasattr(value, "append") else [value])
    message = rng.choice(messages)
    fields = [f for f, _ in message.ListFields()] if rng.random() < 0.7 else [*message.DESCRIPTOR.fields]
    if not fields:
        return
    field = rng.choice(fields)
    repeated = hasattr(getattr(message, field.name), "append")
    if rng.random() < 0.2:
        message.ClearField(field.name)
        return
    kinds = {
        FieldDescriptor.CPPTYPE_STRING: lambda: rng.choice([_name(m, rng), "", "1"]),
        FieldDescriptor.CPPTYPE_FLOAT: lambda: float("nan"),
        FieldDescriptor.CPPTYPE_DOUBLE: lambda: float("inf"),
        FieldDescriptor.CPPTYPE_INT64: lambda: rng.choice(NUMBERS),
        FieldDescriptor.CPPTYPE_INT32: lambda: rng.choice([0, 1, 7, -1, 2**31 - 1]),
        FieldDescriptor.CPPTYPE_UINT64: lambda: 2**64 - 1,
        FieldDescriptor.CPPTYPE_ENUM: lambda: rng.randrange(12),
    }
    if field.cpp_type not in kinds:
        if repeated:
            values = getattr(message, field.name)
            if values:
                values.add().CopyFrom(rng.choice(values))
        return
    value: Any = kinds[field.cpp_type]()
    if field.type == FieldDescriptor.TYPE_BYTES:
        value = str(value).encode()[:50]
    if repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


FIELDS: list[Mutation] = [
    _input,
    _input,
    _output,
    _inputs,
    _operator,
    _operator,
    _attribute,
    _attribute,
    _attribute,
    _extra_attribute,
    _extra_attribute,
    _weights,
    _weights,
    _external,
    _shape,
    _shape,
    _value,
    _order,
    _versions,
    _nested,
    _long,
    _functions,
    _huge,
    _anything,
    _anything,
    _anything,
]


def write(case: int, folder: Path) -> list[str]:
    """Write the file of a case, and what it needs beside it; gives the command line that reads it."""
    rng = random.Random(case)
    data = rng.choice(originals())
    path = folder / "model.onnx"
    if rng.random() < 0.25:
        path.write_bytes(rng.choice(BYTES)(data, rng))
    else:
        model = Model.FromString(data)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            try:
                rng.choice(FIELDS)(model, rng, folder)
            except Exception:  # protobuf itself does not take it
                continue
        path.write_bytes(model.SerializeToString())
    command = rng.choice(["convert", "convert", "convert", "inspect"])
    arguments = [command, str(path), "--pulse", rng.choice(["1", "2", "4", "8"])]
    if rng.random() < 0.5:
        arguments.append("--end-of-stream")
    if rng.random() < 0.3:
        arguments += ["--axis", rng.choice(["x=2", "x=-1", "x=0", "x=T", "x=99"])]
    return [*arguments, "-o", str(folder / "out.onnx")] if command == "convert" else arguments
