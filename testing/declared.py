"""Shapes that a graph declares against those that onnx infers, and those that come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

Dims = Sequence["int | str | None"]


def dims(value: onnx.ValueInfoProto) -> Dims | None:
    """The dimensions of a value: numbers, names, None for what is not known; None where not even their number is."""
    kind = value.type.tensor_type
    return (
        [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
        if kind.HasField("shape")
        else None
    )


def inferred(proto: onnx.ModelProto) -> dict[str, Dims | None]:
    """Shapes of the outputs of a graph by their name, as they follow from those of its inputs; what it declares
    itself is not asked.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    return {v.name: dims(v) for v in onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output}


def untrue(proto: onnx.ModelProto) -> Iterator[str]:
    """What outputs of a graph are declared to be, and are not."""
    found = inferred(proto)
    for value in proto.graph.output:
        want, got = dims(value), found[value.name]
        if want is None:
            yield f"{value.name} has no shape"
        elif got is not None and (len(want) != len(got) or any(_differ(a, b) for a, b in zip(want, got))):
            yield f"{value.name} is declared {list(want)}, but is {list(got)}"


def _differ(a: int | str | None, b: int | str | None) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a != b
