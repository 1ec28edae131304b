"""Layers at the corners of operators: short streams, odd windows, conditions on the length, lanes that are mixed,
names that collide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from testing import networks as plain
from testing.blocks import interpolated_by_index, padded_blocks
from testing.builder import Builder, Invalid, Lengths, Network, Wire
from testing.networks import Layer
from testing.oracle import session
from testing.quantised_networks import QUANTISED

FAR = 2**31 - 1


def _frames(b: Builder, x: Wire) -> str:
    return str(b.node("Gather", b.node("Shape", x.name), b.constant(np.asarray(2, np.int64)), axis=0))


def _measured(b: Builder, x: Wire, make: Callable[[], str]) -> tuple[str, Lengths, int | None]:
    """The output of the nodes that `make` adds, and its frames and bins as onnxruntime has them: it is not always as
    the standard says.
    """
    before = len(b.nodes)
    name = make()
    dims = [1, x.channels, "T"] + ([] if x.bins is None else [x.bins])
    graph = helper.make_graph(
        b.nodes[before:],
        "probe",
        [helper.make_tensor_value_info(x.name, TensorProto.FLOAT, dims)],
        [helper.make_empty_tensor_value_info(name)],
        initializer=b.weights,
    )
    found = []
    try:
        run = session(
            helper.make_model(
                graph, opset_imports=[helper.make_opsetid("", b.opset)], ir_version=10
            ).SerializeToString(),
            plain=True,
        )
        for n in x.lengths:
            found.append(
                run.run(None, {x.name: np.zeros([int(n) if d == "T" else d for d in dims], np.float32)})[0].shape
            )
    except Exception:  # the operator does not take it, or not at every length
        raise Invalid from None
    return name, b.grown(np.asarray([shape[2] for shape in found], np.int64)), None if x.bins is None else found[0][3]


def length_condition(b: Builder) -> None:
    """One thing or another, by a comparison of the number of frames."""
    x = b.any((3,))
    limit = b.constant(np.asarray(b.pick(1, 2, 3, 5, 8), np.int64))
    holds = b.node(b.pick("Greater", "Less", "Equal"), _frames(b, x), limit)
    kind = b.pick("If", "Where", "Mul")
    if kind == "If":
        sides = {}
        for side, op_type in (("then_branch", "Tanh"), ("else_branch", "Neg")):
            name = f"{side}_{b.count}"
            value = helper.make_tensor_value_info(
                name, TensorProto.FLOAT, ["N" if b.lanes else 1, x.channels, f"B{b.count}"]
            )
            sides[side] = helper.make_graph([helper.make_node(op_type, [x.name], [name])], side, [], [value])
        name = b.node("If", holds, **sides)
    elif kind == "Where":
        name = b.node("Where", holds, x.name, b.node("Neg", x.name))
    else:
        name = b.node("Mul", x.name, b.node("Cast", holds, to=TensorProto.FLOAT))
    b.wire(name, x)


def length_minimum(b: Builder) -> None:
    """The first frames, or all where there are not so many."""
    x = b.any((3,))
    limit = b.pick(2, 4, 7)
    if b.opset < 12 or x.lengths.min() > limit > x.lengths.max():
        raise Invalid
    end = b.node("Unsqueeze", b.node("Min", _frames(b, x), b.constant(np.asarray(limit, np.int64))), b.ints(0))
    first = b.node("Slice", x.name, b.ints(0), end, b.ints(2))
    b.heads.append((b.mean(first, 2, 0), (1, x.channels)))


def _with_bins(b: Builder, x: Wire) -> Wire:
    if x.bins is not None or b.chance(0.5):
        return x
    return b.wire(b.node("Mul", b.node("Unsqueeze", x.name, b.ints(3)), b.weight(1, x.channels, 1, 3)), x, bins=3)


def ceil_pool(b: Builder) -> None:
    """A pool that rounds its windows up, along time or across it, its stride larger than its kernel now and then."""
    x = _with_bins(b, b.any())
    k, s = [b.pick(1, 2, 3), b.pick(1, 2, 3)], [b.pick(1, 1, 2, 3), b.pick(1, 2, 2, 3)]
    if x.bins is None:
        k, s = k[:1], s[:1]
    make = b.pick("MaxPool", "AveragePool")
    more = {"count_include_pad": int(b.chance(0.5))} if make == "AveragePool" else {}
    name, lengths, bins = _measured(
        b, x, lambda: str(b.node(make, x.name, kernel_shape=k, strides=s, ceil_mode=1, **more))
    )
    b.wire(name, x, lengths=lengths, bins=bins, rate=x.rate / s[0])


def same_odd(b: Builder) -> None:
    """auto_pad with a dilation, a stride or a kernel shorter than its stride."""
    x = b.any((3,))
    k, d, s = b.pick(1, 2, 3, 5), b.pick(1, 2, 3), b.pick(1, 1, 2, 3)
    if s > 1 and any(x.lengths % s):
        s = 1
    make = b.pick("Conv", "MaxPool", "AveragePool", "LpPool")
    attributes: dict[str, Any] = {"auto_pad": b.pick("SAME_UPPER", "SAME_LOWER"), "strides": [s], "kernel_shape": [k]}
    if d > 1:
        attributes["dilations"] = [d]
    inputs = [x.name, b.weight(2, x.channels, k)] if make == "Conv" else [x.name]
    name, lengths, _ = _measured(b, x, lambda: str(b.node(make, *inputs, **attributes)))
    b.wire(name, x, lengths=lengths, channels=2 if make == "Conv" else x.channels, rate=x.rate / s)


def crop_resample(b: Builder) -> None:
    """Frames cut off at an end, then resampled: along time, or across it."""
    x = _with_bins(b, b.any())
    first, last = b.pick(0, 0, 1, 2), b.pick(0, 1, 1, 3)
    lengths = b.grown(x.lengths - first - last)
    if b.chance(0.5):
        pads = [0, 0, -first, 0, 0, -last] if x.bins is None else [0, 0, -first, 0, 0, 0, -last, 0]
        cut = b.node("Pad", x.name, b.ints(*pads))
    else:
        cut = b.node("Slice", x.name, b.ints(first), b.ints(-last if last else FAR), b.ints(2))
    y = b.wire(cut, x, lengths=lengths)
    along, across = (b.pick(1, 2), 2) if x.bins is not None else (b.pick(2, 2, 3), 1)
    if x.bins is None and b.chance(0.3):
        name = b.node("ConvTranspose", y.name, b.weight(x.channels, 2, 3), strides=[2])
        b.wire(name, y, channels=2, lengths=b.grown(lengths * 2 + 1), rate=x.rate * 2)
        return
    scales = b.constant(np.asarray([1, 1, along] + ([] if x.bins is None else [across]), np.float32))
    how = {"mode": b.pick("nearest", "linear", "cubic")}
    how["coordinate_transformation_mode"] = b.pick("asymmetric", "half_pixel", "pytorch_half_pixel")
    if how["mode"] == "nearest":
        how["nearest_mode"] = b.pick("floor", "round_prefer_floor")
    name, lengths, bins = _measured(b, y, lambda: str(b.node("Resize", y.name, "", scales, **how)))
    b.wire(name, y, lengths=lengths, bins=bins, rate=x.rate * along)


def last_frames(b: Builder) -> None:
    """The last frames, some of them or in another order."""
    x = b.any((3,))
    k, step = b.pick(1, 2, 3, 5, 9), b.pick(1, 1, 2, 3)
    kind = b.pick("forward", "backward", "between", "gather", "mean")
    if kind == "backward":
        name = b.node("Slice", x.name, b.ints(-1), b.ints(-1 - k), b.ints(2), b.ints(-step))
    elif kind == "between":
        name = b.node("Slice", x.name, b.ints(-1 - k), b.ints(-1), b.ints(2), b.ints(step))
    elif kind == "gather":
        if x.lengths.min() < k:
            raise Invalid
        name = b.node("Gather", x.name, b.ints(*[-1 - j for j in range(0, k, step)]), axis=2)
    else:
        name = b.node("Slice", x.name, b.ints(-k), b.ints(FAR), b.ints(2), b.ints(step))
    b.heads.append((b.mean(name, 2, 0), (1, x.channels)) if kind == "mean" else (name, (1, x.channels, None)))


def first_again(b: Builder) -> None:
    """The first frames, read again: before the stream, or at every frame."""
    x = b.any((3,))
    k = b.pick(1, 2, 4)
    if x.lengths.min() < k:
        raise Invalid
    first = b.node("Slice", x.name, b.ints(0), b.ints(k), b.ints(2))
    kind = b.pick("before", "shared", "head")
    if kind == "before":
        b.wire(b.node("Concat", first, x.name, axis=2), x, lengths=b.grown(x.lengths + k))
    elif kind == "shared":
        b.wire(b.node(b.pick("Sub", "Add"), x.name, b.mean(first, 2, 1)), x)
    else:
        b.heads.append((first, (1, x.channels, k)))


def edge_by_hand(b: Builder) -> None:
    """The first frame before the stream and the last one after it, so often or up to a multiple."""
    x = b.any((3,))
    before, after = b.pick(0, 1, 2, 5), b.pick(0, 1, 3, 4)
    how = b.pick("Tile", "Gather", "Concat", *(["Expand"] if b.opset >= 8 else []))

    def copies(first: bool, count: int) -> list[str]:
        if how == "Gather":
            return [b.node("Gather", x.name, b.ints(*[0 if first else -1] * count), axis=2)]
        frame = b.node("Slice", x.name, b.ints(0 if first else -1), b.ints(1 if first else FAR), b.ints(2))
        if how == "Concat":
            return [frame] * count
        to = (1, 1, count) if how == "Tile" or b.lanes else (1, x.channels, count)
        return [b.node(how, frame, b.ints(*to))]

    parts = [*(copies(True, before) if before else []), x.name]
    lengths = x.lengths + before
    if b.opset >= 10 and b.chance(0.3):  # Mod
        unit = b.pick(2, 3, 4)
        more = b.node("Mod", b.node("Neg", b.node("Unsqueeze", _frames(b, x), b.ints(0))), b.ints(unit))
        last = b.node("Slice", x.name, b.ints(-1), b.ints(FAR), b.ints(2))
        parts.append(b.node("Expand", last, b.node("Concat", b.ints(1, 1), more, axis=0)))
        lengths = lengths + -x.lengths % unit
    elif after:
        parts += copies(False, after)
        lengths = lengths + after
    if len(parts) == 1:
        raise Invalid
    b.wire(b.node("Concat", *parts, axis=2), x, lengths=b.grown(lengths))


def written(b: Builder) -> None:
    """Frames written over others by index: a range of them, or every other one."""
    x = b.any((3,))
    if b.opset < 11 or b.lanes:
        raise Invalid
    n, other = _frames(b, x), b.node(b.pick("Tanh", "Neg"), x.name)

    def number(value: int) -> str:
        return b.constant(np.asarray(value, np.int64))

    def into(y: str, start: int, stop: str, step: int, new: str) -> str:
        at = b.node("Range", number(start), stop, number(step))
        if b.chance(0.5):
            rows = b.node("Expand", b.node("Reshape", at, b.ints(1, 1, -1)), b.ints(1, x.channels, 1))
            return str(b.node("ScatterElements", y, rows, new, axis=2))
        first, entries = (b.node("Transpose", v, perm=[2, 0, 1]) for v in (y, new))
        done = b.node("ScatterND", first, b.node("Unsqueeze", at, b.ints(1)), entries)
        return str(b.node("Transpose", done, perm=[1, 2, 0]))

    if b.chance(0.3):
        long = b.node("Mul", n, number(2))
        shape = b.node("Concat", b.ints(1, x.channels), b.node("Unsqueeze", long, b.ints(0)), axis=0)
        y = into(b.node("ConstantOfShape", shape), 0, long, 2, x.name)
        y = into(y, 1, long, 2, other) if b.chance(0.7) else y
        b.wire(y, x, lengths=b.grown(x.lengths * 2), rate=x.rate * 2)
        return
    start, left = b.pick(0, 1, 1, 2, 4), b.pick(0, 0, 1, 2)
    b.grown(x.lengths - start - left)
    first = b.pick(*range(start + left + 1))
    new = b.node("Slice", other, b.ints(first), b.ints(first - start - left or FAR), b.ints(2))
    b.wire(into(x.name, start, b.node("Sub", n, number(left)), 1, new), x)


def log_sum_so_far(b: Builder) -> None:
    """Sums of exponentials so far, in the space of logarithms: less the maximum over the stream, and that again."""
    x = b.any()
    bounded = b.node("Tanh", x.name)
    inputs, axes = ([bounded], {"axes": [2]}) if b.opset < 18 else ([bounded, b.ints(2)], {})
    top = b.node("ReduceMax", *inputs, **axes, keepdims=1)
    powers = b.node("Exp", b.node("Sub", bounded, top))
    sums = b.node("Log", b.node("CumSum", powers, b.constant(np.asarray(2, np.int64))))
    b.wire(b.node("Mul", b.node("Add", *b.pick((sums, top), (top, sums))), b.constant(np.float32(0.3))), x)


def beside_nothing(b: Builder) -> None:
    """Channels beside a slice or a part of a Split that has none."""
    x = b.any()
    if b.chance(0.5):
        empty, rest = b.node("Slice", x.name, b.ints(0), b.ints(0), b.ints(1)), b.node("Tanh", x.name)
    elif b.opset >= 13:
        empty, rest = b.node("Split", x.name, b.ints(0, x.channels), outputs=2, axis=1)
    else:
        raise Invalid
    b.wire(b.node("Concat", *b.pick((empty, rest), (rest, b.node("Neg", empty))), axis=1), x)


def _of_input(b: Builder, x: Wire, op_type: str) -> str:
    """The input of which `x` is another layout, if it is made of one by such a node."""
    made = next((n for n in b.nodes if n.output[0] == x.name), None)
    return "x" if made is not None and made.op_type == op_type and made.input[0] == "x" else ""


def flat_rows(b: Builder) -> None:
    """Operators on [rows, T]."""
    x = b.any((3,))
    if x.channels != 1:
        raise Invalid
    t = _of_input(b, x, "Unsqueeze") or b.node("Squeeze", x.name, b.ints(1))
    kind = b.pick("Resize", "Resize", "Pad", "Slice", "CumSum", "Add", "Softplus")
    lengths, rate = x.lengths, x.rate
    if kind == "Resize":
        how = {
            "mode": b.pick("nearest", "linear"),
            "coordinate_transformation_mode": b.pick("half_pixel", "asymmetric"),
        }
        if how["mode"] == "nearest":
            how |= {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        t, lengths, rate = (
            b.node(kind, t, "", b.constant(np.asarray([1, 2], np.float32)), **how),
            b.grown(lengths * 2),
            rate * 2,
        )
    elif kind == "Pad":
        before, after = b.pick(-1, 0, 1, 2), b.pick(-1, 0, 1, 2)
        lengths = b.grown(lengths + before + after)
        b.grown(lengths - max(before, 0) - max(after, 0))
        t = b.node(
            kind,
            t,
            b.ints(0, before, 0, after),
            mode="constant" if min(before, after) < 0 else b.pick("constant", "edge"),
        )
    elif kind == "Slice":
        t, lengths = b.node(kind, t, b.ints(1), b.ints(FAR), b.ints(1)), b.grown(lengths - 1)
    elif kind == "CumSum":
        t = b.node("Mul", b.node(kind, t, b.constant(np.asarray(1, np.int64))), b.constant(np.float32(0.1)))
        b.stationary = False
    elif kind == "Add":
        t = b.node(kind, t, b.weight(1))
    else:
        t = b.node(kind, t)
    b.wire(b.node("Unsqueeze", t, b.ints(1)), x, lengths=lengths, rate=rate)


def lanes_mixed(b: Builder) -> None:
    """Something that every row of the batch has a share in."""
    if not b.lanes:
        raise Invalid
    x = b.any((3,))
    kind = b.pick("mean", "softmax", "sum of rows", "cropped", "repeated", "largest")
    if kind in ("cropped", "repeated"):
        b.heads.append((_other_rows(b, x, kind), (None, x.channels, None)))
        return
    if kind == "mean":
        total = b.node("ReduceSum", x.name, b.ints(0), keepdims=1)
        name = b.node("Sub", x.name, total if b.chance(0.6) else b.mean(x.name, 0, 1))
    elif kind == "softmax":
        if b.opset < 13:
            raise Invalid
        name = b.node("Softmax", x.name, axis=0)
    elif kind == "sum of rows":
        name = b.node("CumSum", x.name, b.constant(np.asarray(0, np.int64)))
    else:
        name = b.node(
            "Max",
            x.name,
            b.node(
                "ReduceMax", x.name, *([b.ints(0)] if b.opset >= 18 else []), **({} if b.opset >= 18 else {"axes": [0]})
            ),
        )
    b.wire(name, x)


def _other_rows(b: Builder, x: Wire, kind: str) -> str:
    if kind == "cropped" and _of_input(b, x, "Unsqueeze"):
        return str(b.node("Unsqueeze", b.node("Pad", "x", b.ints(-1, 0, 0, 0)), b.ints(1)))
    if kind == "cropped":
        return str(
            b.node("Pad", x.name, b.ints(-1, 0, 0, 0, 0, 0))
            if b.chance(0.5)
            else b.node("Slice", x.name, b.ints(1), b.ints(FAR), b.ints(0))
        )
    return str(b.node("Tile", x.name, b.ints(2, 1, 1)) if b.chance(0.5) else b.node("Concat", x.name, x.name, axis=0))


CORNERS: tuple[tuple[Layer, float], ...] = (
    (length_condition, 0.4),
    (length_minimum, 0.2),
    (ceil_pool, 0.8),
    (same_odd, 0.4),
    (crop_resample, 0.8),
    (last_frames, 0.6),
    (first_again, 0.6),
    (padded_blocks, 0.3),
    (interpolated_by_index, 0.3),
    (edge_by_hand, 0.6),
    (written, 0.6),
    (log_sum_so_far, 0.3),
    (beside_nothing, 0.2),
)
"""Layers that any network may have."""

ROWWISE = (
    tuple((layer, weight) for layer, weight in plain.LAYERS if layer not in (plain.glue, plain.interleave)) + CORNERS
)
"""Layers of networks of any number of rows: every row is a stream of its own."""

LANES: tuple[tuple[Layer, float], ...] = (*ROWWISE, (flat_rows, 1.5))
ALL: tuple[tuple[Layer, float], ...] = (*plain.LAYERS, *CORNERS)


# what is wrong with a model as a whole


def _named(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output, *(n.input for a in node.attribute for n in a.g.node)):
            for k, name in enumerate(names):
                names[k] = new if name == old else name
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = new if value.name == old else value.name


NAMES = (
    "valid_frames",
    "valid_frames_1",
    "past_000_x",
    "present_000_x",
    "past_000_clock",
    "pulse",
    "clock",
    "seen",
    "T",
    "N",
)
"""Names that the tool itself might give."""


def colliding_names(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Inputs, outputs, weights and values between that have names of the tool's own."""
    taken = [
        model.graph.input[0].name,
        model.graph.output[0].name,
        *(n.output[0] for n in model.graph.node[:3]),
        *(w.name for w in model.graph.initializer[:2]),
    ]
    places = [str(name) for name in rng.permutation(sorted(set(taken)))[:3]]
    for old, new in zip(places, rng.permutation(NAMES)):
        _named(model, old, str(new))


def input_as_output(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """An input that is an output too, or goes through a node that does nothing, its shape said or not."""
    value = onnx.ValueInfoProto()
    value.CopyFrom(model.graph.input[0])
    if rng.random() < 0.5:
        value.type.tensor_type.ClearField("shape")
    if rng.random() < 0.5:
        value.name = "through"
        model.graph.node.append(helper.make_node("Identity", [model.graph.input[0].name], ["through"], name="through"))
    model.graph.output.append(value)


def one_value_twice(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Two outputs that are one value."""
    first = model.graph.output[0]
    again = onnx.ValueInfoProto()
    again.CopyFrom(first)
    again.name = "again"
    source = next(
        n.input[0] if n.op_type == "Identity" and rng.random() < 0.5 else n.output[0]
        for n in model.graph.node
        if first.name in n.output
    )
    model.graph.node.append(helper.make_node("Identity", [source], ["again"], name="again"))
    model.graph.output.append(again)


WHOLE = (colliding_names, input_as_output, one_value_twice)
"""What is done to a model as a whole."""


# whole networks


def _layout(rng: np.random.Generator, family: str, kind: str) -> str:
    if family != "lanes":
        return "NCT"
    return "NT" if kind == "flat_rows" else str(rng.choice(["NCT", "NT", "TNC"], p=[0.4, 0.4, 0.2]))


FAMILIES = {"new": 0.4, "old": 0.2, "lanes": 0.2, "whole": 0.1, "quantised": 0.1}
"""Families of networks and how often each is drawn."""

OLD = (7, 8, 9, 9, 10, 10, 11, 12)
FEW = (plain.conv, plain.pad, plain.cut, plain.pool, plain.pointwise, plain.join, plain.rank)


def varied(seed: int, size: int | None = None, kind: str = "") -> tuple[Network, str]:
    """A network of one family by its seed, and the family's name; of `kind` alone, a layer or a family, where that
    is given.
    """
    rng = np.random.default_rng([seed, 77])
    family = (
        kind
        if kind in FAMILIES
        else "lanes"
        if kind in ("lanes_mixed", "flat_rows")
        else str(rng.choice(list(FAMILIES), p=list(FAMILIES.values())))
    )
    layers = {"lanes": LANES, "quantised": QUANTISED}.get(family, ALL)
    opsets = OLD if family == "old" else (13, 17, 21) if family == "quantised" else plain.OPSETS
    special = next(
        (
            (layer, weight)
            for layer, weight in (*LANES, *ALL, (lanes_mixed, 1.0))
            if getattr(layer, "__name__", "") == kind
        ),
        None,
    )
    if special is not None:
        layers = ((special[0], 3.0), *((layer, 0.3) for layer in FEW))
    elif family == "lanes" and rng.random() < 0.15:
        layers = (*layers, (lanes_mixed, 0.5))
    size = size or (int(rng.integers(1, 5)) if kind else None)
    net = plain.network(seed, size, layers, opsets=opsets, lanes=family == "lanes", layout=_layout(rng, family, kind))
    for change in WHOLE if special is None else ():
        if kind == change.__name__ or (family == "whole" and rng.random() < 0.4):
            change(net.model, rng)
            net = replace(net, kinds=net.kinds | {change.__name__})
    return net, family


KINDS = tuple(
    sorted(
        {
            *FAMILIES,
            *(getattr(f, "__name__", "") for f in (*(layer for layer, _ in (*CORNERS, *LANES)), lanes_mixed, *WHOLE)),
        }
    )
)
"""What may be asked for."""
