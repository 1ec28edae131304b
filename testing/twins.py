"""Twins of dynamic models that were exported for one length: input shapes fixed, and all that follows from them
folded to numbers.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from pulsify_onnx.api import PulsedModel, pulsify
from pulsify_onnx.errors import UNEXPECTED, CannotStream, PulseDoesNotFit
from pulsify_onnx.verification.check import verify
from testing.builder import Builder, Invalid, Network
from testing.networks import LAYERS, Layer, network
from testing.oracle import session

ADAPTIVE = "adaptive_"
"""How a node is named that pools as many parts of the length as its name goes on to say."""

POOL = {"ReduceMean": "AveragePool", "ReduceMax": "MaxPool"}

KEPT = {
    "DequantizeLinear",
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Loop",
    "Scan",
    "If",
}


def static(model: onnx.ModelProto, frames: int) -> onnx.ModelProto:
    """`model` with every dynamic dimension of its inputs fixed to `frames`; nothing is folded."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in made.graph.input:
        for d in value.type.tensor_type.shape.dim:
            if not d.HasField("dim_value"):
                d.dim_value = frames
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    del made.graph.value_info[:]
    return pooled(made)


def pooled(model: onnx.ModelProto) -> onnx.ModelProto:
    """A static `model` in which a mean or maximum over equal parts of the length is the pool that exporters write
    for it.
    """
    made = {out: node for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        cut = (
            made.get(node.input[0])
            if node.op_type in ("ReduceMean", "ReduceMax") and node.name.startswith(ADAPTIVE)
            else None
        )
        if cut is not None:
            parts = int(node.name.split("_")[1])
            size = folded_shape(model, cut.input[0])[2] // parts
            node.CopyFrom(
                helper.make_node(
                    POOL[node.op_type], [cut.input[0]], node.output, node.name, kernel_shape=[size], strides=[size]
                )
            )
    return model


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A static `model` in which whatever depends on shapes and weights alone is an initializer, as simplifiers leave
    it.
    """
    known = {w.name for w in model.graph.initializer}
    rest: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type not in KEPT and (
            node.op_type in ("Shape", "Size", "Constant") or all(i in known for i in node.input if i)
        ):
            known |= set(node.output)
        else:
            rest.append(node)
    read = {i for n in rest for i in (*n.input, *_captured(n))} | {v.name for v in model.graph.output}
    gone = known - {w.name for w in model.graph.initializer}
    values = _values(model, sorted(gone & read))
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend(rest)
    made.graph.initializer.extend([*(w for w in model.graph.initializer if w.name in read), *values])
    return made


def padded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A static `model` with the numbers that its auto_pad comes to, as converters from other frameworks write them."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for node in made.graph.node:
        auto = next((a for a in node.attribute if a.name == "auto_pad" and a.s.startswith(b"SAME")), None)
        if auto is None or node.op_type == "ConvTranspose":
            continue
        weights = next((w for w in model.graph.initializer if len(node.input) > 1 and w.name == node.input[1]), None)
        found = {a.name: list(a.ints) for a in node.attribute}
        kernel = found.get("kernel_shape") or list(weights.dims[2:] if weights is not None else [])
        n = len(kernel)
        probe = folded_shape(model, node.input[0])[2:]
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, found.get("dilations") or [1] * n)]
        totals = [
            max((-(-size // s) - 1) * s + span - size, 0)
            for size, s, span in zip(probe, found.get("strides") or [1] * n, spans)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = small + large if auto.s == b"SAME_UPPER" else large + small
        node.attribute.remove(auto)
        node.attribute.append(helper.make_attribute("pads", pads))
    return made


def optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A static `model` as onnxruntime's basic optimisations leave it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/folded.onnx"
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


KINDS = {"static": lambda m: m, "folded": folded, "padded": lambda m: folded(padded(m)), "optimised": optimised}
"""What exporters and simplifiers make of a static model."""


def zeros(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Inputs of a static model."""
    weights = {w.name for w in model.graph.initializer}
    return {
        v.name: np.zeros(
            [d.dim_value for d in v.type.tensor_type.shape.dim],
            helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type),
        )
        for v in model.graph.input
        if v.name not in weights
    }


def folded_shape(model: onnx.ModelProto, name: str) -> tuple[int, ...]:
    """The shape of a value of a static model."""
    return _run(model, [name])[0].shape if name not in (v.name for v in model.graph.input) else zeros(model)[name].shape


def _values(model: onnx.ModelProto, names: Sequence[str]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(value, name) for name, value in zip(names, _run(model, names), strict=True)]


def _run(model: onnx.ModelProto, names: Sequence[str]) -> list[np.ndarray]:
    if not names:
        return []
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return [np.asarray(v) for v in session(probe.SerializeToString(), plain=True).run(list(names), zeros(model))]


def _captured(node: onnx.NodeProto) -> list[str]:
    return [
        i
        for a in node.attribute
        if a.type == onnx.AttributeProto.GRAPH
        for n in a.g.node
        for i in (*n.input, *_captured(n))
    ]


# networks with numbers that follow the length in ways that a stream can't tell


def filled(b: Builder) -> None:
    """A strided convolution of a stream that is padded to whole windows, at the end or on both sides."""
    x = b.any((3,))
    stride, more = b.pick(2, 3, 5), b.pick(0, 1, 2, 3)
    kernel = stride + more

    def number(v: int) -> str:
        return b.constant(np.asarray([v], np.int64))

    frames = b.node("Gather", b.node("Shape", x.name), b.ints(2), axis=0)
    extra = b.node("Mod", b.node("Neg", frames), number(stride))
    style = b.pick("causal", "both", *(["same"] if more else []))
    if style == "causal":
        before, after = number(more), extra
    elif style == "both":
        before, after = number(more - more // 2), b.node("Add", extra, number(more // 2))
    else:
        total = b.node("Add", extra, number(more))
        before = b.node("Div", total, number(2))
        after = b.node("Sub", total, before)
    pads = b.node("Concat", b.ints(0, 0), before, b.ints(0, 0), after, axis=0)
    out = b.pick(1, 2, 3)
    y = b.node("Conv", b.node("Pad", x.name, pads), b.weight(out, x.channels, kernel), b.weight(out), strides=[stride])
    b.wire(y, x, channels=out, lengths=b.grown(-(-x.lengths // stride)), rate=x.rate / stride)


def strided_same(b: Builder) -> None:
    """A strided convolution or pool with auto_pad."""
    x = b.any((3,))
    stride = b.pick(2, 3)
    kernel = stride + b.pick(1, 2, 3)
    auto, out = b.pick("SAME_UPPER", "SAME_LOWER"), b.pick(1, 2, 3)
    if b.chance(0.6):
        y = b.node("Conv", x.name, b.weight(out, x.channels, kernel), strides=[stride], auto_pad=auto)
    else:
        y, out = b.node("MaxPool", x.name, kernel_shape=[kernel], strides=[stride], auto_pad=auto), x.channels
    b.wire(y, x, channels=out, lengths=b.grown(-(-x.lengths // stride)), rate=x.rate / stride)


def shares(b: Builder) -> None:
    """The first part of the stream, a stretched one, or all of it by its number of frames."""
    x = b.any((3,))
    frames = b.node("Gather", b.node("Shape", x.name), b.ints(2), axis=0)
    kind = b.pick("half", "tail", "resized", "number")
    if kind in ("half", "tail"):
        half = b.node("Div", frames, b.ints(2))
        far = b.ints(2**31 - 1)
        y = b.node("Slice", x.name, *((b.ints(0), half) if kind == "half" else (half, far)), b.ints(2))
        lengths = x.lengths // 2 if kind == "half" else x.lengths - x.lengths // 2
        b.wire(y, x, lengths=b.grown(lengths), rate=x.rate / 2)
    elif kind == "resized":
        count = b.pick(8, 12, 24)
        sizes = b.ints(1, x.channels, count)
        b.wire(
            b.node(
                "Resize",
                x.name,
                "",
                "",
                sizes,
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            ),
            x,
            lengths=np.full_like(x.lengths, count),
        )
    else:
        number = b.node("Cast", frames, to=1)
        b.wire(b.node(b.pick("Div", "Mul"), x.name, number), x)


def adaptive(b: Builder) -> None:
    """Pools of as many windows as are asked for, whatever the length."""
    x = b.any((3,))
    fitting = [p for p in (2, 3, 4, 8) if (x.lengths % p == 0).all()]
    if not fitting:
        raise Invalid
    parts = b.pick(*fitting)
    kind = b.pick("ReduceMean", "ReduceMax")
    cut = b.node("Reshape", x.name, b.ints(0, 0, parts, -1))
    y = b.node(kind, cut, axes=[3], keepdims=0) if b.opset < 18 else b.node(kind, cut, b.ints(3), keepdims=0)
    b.nodes[-1].name = f"{ADAPTIVE}{parts}_{b.count}"
    b.wire(y, x, lengths=np.full_like(x.lengths, parts))


def scaled(b: Builder) -> None:
    """A sum by a mean times the length, and scores by the root of the length or its inverse."""
    x = b.any((3,))
    frames = b.node("Cast", b.node("Gather", b.node("Shape", x.name), b.ints(2), axis=0), to=1)
    kind = b.pick("times", "share", "root", "scores")
    number = frames if kind in ("times", "share") else b.node("Sqrt", frames)
    if b.chance(0.5):
        number = b.node("Reciprocal", number)
    if kind == "scores":  # frames that meet over the channels: queries and keys a frame apart
        q = b.node("Conv", x.name, b.weight(x.channels, x.channels, 1))
        k = b.node("Conv", x.name, b.weight(x.channels, x.channels, 2), pads=[1, 0])
        weight = b.node("Sigmoid", b.node("Mul", b.node("Mul", q, number), k))
        b.wire(b.node("Mul", x.name, weight), x)
    else:
        b.wire(b.node(b.pick("Mul", "Div"), x.name, number), x)


def interpolated(b: Builder) -> None:
    """A stream of twice as many frames, by a shape that is joined from the input's own and a number."""
    x = b.any((3,))
    factor = b.pick(2, 3)
    shape = b.node("Shape", x.name)
    head = b.node("Slice", shape, b.ints(0), b.ints(2), b.ints(0))
    last = b.node("Mul", b.node("Gather", shape, b.ints(2), axis=0), b.ints(factor))
    sizes = b.node("Concat", head, last, axis=0)
    y = b.node(
        "Resize",
        x.name,
        "",
        "",
        sizes,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    b.wire(y, x, lengths=b.grown(x.lengths * factor), rate=x.rate * factor)


TWINS: tuple[tuple[Layer, float], ...] = (
    *LAYERS,
    (filled, 1.0),
    (strided_same, 0.8),
    (shares, 0.3),
    (adaptive, 0.6),
    (scaled, 0.5),
    (interpolated, 0.5),
)


LEAST = 8
"""In exports of fewer frames every number may follow from their number."""


def attempt(net: Network, seed: int) -> tuple[str, str]:
    """A random network and its export for a random length, as any tool might leave it: (what, more).

    "kept" where it streams as the export does, and differs from the network by a number that the sidecar lists; "same"
    where the export streams as the network does at other lengths, "refused" by a reason, "none" where onnxruntime does
    not take the export; "WRONG" and "crash" are findings.
    """
    rng = np.random.default_rng(seed)
    shortest = net.lengths[0]
    low = math.ceil(shortest / net.unit)
    least = max(low, math.ceil(LEAST / net.unit))
    frames = net.unit * int(rng.integers(least, least + (25 if rng.random() < 0.4 else 200)))
    kind, end, pulse = (
        str(rng.choice(list(KINDS))),
        bool(rng.random() < 0.6),
        int(rng.choice([1, 1, 2, 3, 4, 5, 7, 12])),
    )
    if kind in ("padded", "optimised") and any(
        n.op_type == "Mod" or any(a.name == "auto_pad" for a in n.attribute) for n in net.model.graph.node
    ):
        # of what fills the last window nothing is left but even pads of a convolution, which count as numbers at the
        # end
        end = False
    told = f"{kind}, {frames} frames, pulse {pulse}{', end of stream' if end else ''}"
    axes = {
        v.name: k
        for v in net.model.graph.input
        for k, d in enumerate(v.type.tensor_type.shape.dim)
        if not d.HasField("dim_value")
    }
    try:
        export = KINDS[kind](static(net.model, frames))
        session(export.SerializeToString(), plain=True).run(None, zeros(export))
    except Exception as problem:
        return "none", str(problem)[:200]
    try:
        try:
            made = pulsify(export, pulse=pulse, axes=axes, end_of_stream=end)
        except PulseDoesNotFit as fits:
            made = pulsify(export, pulse=fits.smallest, axes=axes, end_of_stream=end)
    except CannotStream as refusal:
        first = refusal.blockers[0]
        return "crash" if UNEXPECTED in str(refusal) else "refused", f"{first.op_type}: {first.reason}"
    except Exception as problem:
        return "crash", f"{type(problem).__name__}: {problem}, {told}"
    lengths = {frames, shortest, *(net.unit * int(rng.integers(low, low + 40)) for _ in range(3))} if end else {0}
    for n in sorted(lengths):
        found = compared(net.model, made, n, rng)
        if "runs at none of" in found:
            return "none", found
        if found and _listed(net.model, export, made.spec["fixed_length"]["kept"]):
            return "kept", told
        if found:
            return "WRONG", f"{found} at {n} frames: {told}, {made.spec['fixed_length']}"
    return "same", told


def _listed(model: onnx.ModelProto, export: onnx.ModelProto, kept: Sequence[dict[str, object]]) -> bool:
    """Whether each number that follows the length in a way that is kept is listed, and there is one."""
    nodes = {n.name: n for n in export.graph.node}
    pools = {n.name for n in export.graph.node if n.name.startswith(ADAPTIVE) and n.op_type in POOL.values()}
    weights = {w.name for w in export.graph.initializer}
    made = {o for n in model.graph.node if n.op_type in ("Sqrt", "Reciprocal") for o in n.output}
    roots = {
        n.name
        for n in nodes.values()
        if n.op_type in ("Mul", "Div") and any(i in made and i in weights for i in n.input)
    }
    listed = {str(k["node"]) for k in kept}
    return bool(pools | roots) and pools | roots <= listed


def compared(model: onnx.ModelProto, made: PulsedModel, frames: int, rng: np.random.Generator) -> str:
    """What is wrong with the stream at that length (0: any that fits), '' where it is the dynamic model's."""
    recorded = {}
    for i in made.spec["inputs"]:
        if i["kind"] == "stream" and frames:
            shape = [frames * i["rate"][0] // i["rate"][1] if k == i["axis"] else d for k, d in enumerate(i["shape"])]
            recorded[i["name"]] = rng.standard_normal(shape).astype(i["dtype"])
    found = verify(model, made, rtol=2e-3, atol=2e-3, recorded=recorded)
    return "" if found.ok else found.message


def twin_network(seed: int, size: int | None = None) -> Network:
    """A random network with numbers that follow the length."""
    return network(seed, size, TWINS)
