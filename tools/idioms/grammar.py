"""Sentences: which exporter, which inputs, which blocks in which order, which heads. All of it follows from one
seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from . import convs, framing, planes, sequence, shapes, special
from .graph import FLOAT, PROBES, SHORT, Graph, Unwritable, Value, element

Block = Callable[[Graph, Value], Value]

BLOCKS: dict[str, Block] = {
    f.__name__: f
    for f in (
        convs.conv_bn_act,
        convs.same_conv,
        convs.strided,
        convs.causal_conv,
        convs.separable,
        convs.gated_tcn,
        convs.cropped_residual,
        convs.pool,
        convs.transposed,
        convs.conv2d,
        convs.pool2d,
        convs.fixed_kernel_up2d,
        convs.activation,
        convs.batch_norm,
        sequence.dense,
        sequence.rows_of_frames,
        sequence.recurrence,
        sequence.features_rnn,
        sequence.layer_norm,
        sequence.band_attention,
        sequence.where_positions,
        sequence.cumulative,
        sequence.ema_scan,
        sequence.squeeze_excite,
        shapes.shift,
        shapes.difference,
        shapes.stepped,
        shapes.stacked,
        shapes.neighbours,
        shapes.pixel_shuffle,
        shapes.channels,
        shapes.resize,
        shapes.repeat_frames,
        shapes.resized_features,
        shapes.u_net,
        shapes.stft_like,
        shapes.bias_mask_rows,
        special.quantised,
        special.called,
        special.branch,
        framing.unfold,
        framing.polyphase,
        framing.window_sum,
        framing.weight_norm,
        framing.einsum,
        framing.relative_attention,
        framing.attention_op,
        framing.rms_norm_op,
        framing.rotary,
        framing.stft_op,
        framing.instance_norm,
        framing.two_sums,
        framing.lstm_state_output,
        planes.pool_plane,
        planes.resize_plane,
        planes.resize_flat,
        planes.plane_unet,
        planes.depth_to_space,
        planes.rows_mixed,
        planes.reflect_conv,
        planes.same_any,
        planes.cropped_ends,
        planes.two_ends,
    )
}
DOUBLES = (
    "dense",
    "rows_of_frames",
    "layer_norm",
    "band_attention",
    "where_positions",
    "cumulative",
    "ema_scan",
    "shift",
    "difference",
    "stepped",
    "stacked",
    "neighbours",
    "channels",
    "repeat_frames",
    "bias_mask_rows",
    "branch",
    "activation",
    "unfold",
    "polyphase",
    "window_sum",
    "relative_attention",
    "rotary",
    "two_sums",
    "cropped_ends",
    "two_ends",
    "rows_mixed",
)
WIDE, LONG = 12, 6
FRONTS = ("BCT", "BCT", "BTC", "BTC", "TBC", "BT", "BCTF", "BCFT", "BTFC", "tokens", "int16")


@dataclass(frozen=True)
class Sentence:
    """All that a network is made of; `blocks` are names with a seed each, so that some can be left out and the
    others stay.
    """

    seed: int
    opset: int = 17
    dtype: str = "float32"
    style: str = "torch"
    batch: int | str = 1
    front: str = "BCT"
    second: str = ""
    blocks: tuple[tuple[str, int], ...] = ()
    heads: tuple[tuple[str, int], ...] = (("stream", 0),)
    told: bool = True
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = f" +{self.second}" if self.second else ""
        parts = " ".join([self.front + more, *[b for b, _ in self.blocks], "->", *[h for h, _ in self.heads]])
        return f"opset {self.opset} {self.dtype} {self.style} batch {self.batch}: {parts}"


@dataclass
class Input:
    """An input of the network: its stream axis (None: static), frames per frame of the first input, and what to
    draw.
    """

    name: str
    shape: list[int | str]
    dtype: Any
    axis: int | None = None
    rate: int = 1
    low: int = 0
    high: int = 0
    row: int | None = None

    def info(self, frames: str) -> onnx.ValueInfoProto:
        dims = [{1: frames}.get(self.rate, f"{self.rate}*{frames}") if d == "T" else d for d in self.shape]
        return helper.make_tensor_value_info(self.name, element(self.dtype), dims)


@dataclass
class Network:
    """A model and what is known of it without asking anybody."""

    sentence: Sentence
    model: onnx.ModelProto
    inputs: list[Input]
    coarse: bool
    skipped: list[str] = field(default_factory=list)
    empty: frozenset[int] = frozenset()
    """Short lengths at which a value has no frames left."""

    @property
    def axes(self) -> dict[str, int]:
        return {i.name: i.axis for i in self.inputs if i.axis is not None}


def draw(seed: int) -> Sentence:
    """The sentence of a seed."""
    rng = random.Random(seed)
    opset = rng.choice((7, 8, 9, 10, 11, 11, 12, 13, 13, 14, 15, 16, 17, 17, 18, 18, 19, 20, 21, 22, 23, 24))
    dtype = rng.choices(("float32", "float16", "float64"), (20, 1, 2))[0]
    names = list(DOUBLES if dtype == "float64" else BLOCKS)
    blocks: list[tuple[str, int]] = []
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5, 6))):
        name = rng.choice(names)
        blocks.append(
            ("residual" if rng.random() < 0.12 else "tap" if rng.random() < 0.06 else name, rng.randrange(2**31))
        )
    heads = [
        rng.choices(("stream", "pooled", "classes", "input"), (12, 4, 2, 1))[0]
        for _ in range(rng.choice((1, 1, 1, 2, 3)))
    ]
    return Sentence(
        seed=seed,
        opset=opset,
        dtype=dtype,
        style=rng.choices(("torch", "keras", "dynamo", "plain", "odd"), (3, 3, 3, 3, 1))[0],
        batch=rng.choice((1, 1, 1, 2, 3, "B", "B", "batch_size")),
        front=rng.choice(FRONTS),
        second=rng.choices(("", "same", "double", "static"), (14, 2, 2, 2))[0],
        blocks=tuple(blocks),
        heads=tuple((h, rng.randrange(2**31)) for h in heads),
        told=rng.random() < 0.8,
    )


def _residual(g: Graph, v: Value) -> Value:
    """One or two other blocks beside the identity or a 1x1, joined."""
    names = [n for n in (DOUBLES if g.dtype == "float64" else BLOCKS) if n not in g.without]
    y = v
    for name in g.rng.sample(names, g.rng.randint(1, 2)):
        y = BLOCKS[name](g, y)
    _fits(y)
    side = v
    if g.chance(0.2) and g.dtype != "float64":
        side = convs.conv1d(g, v, v.c, 1)
    return shapes.join(g, y, side, how="concat" if g.dtype == "float64" else "")


def _fits(v: Value) -> None:
    if min(v.usual) < 8 or max(v.usual) > LONG * PROBES[-1]:
        raise Unwritable("too short or too long")
    if v.c * v.f > 40:
        raise Unwritable("too wide")


def _narrow(g: Graph, v: Value) -> Value:
    if v.c * v.f <= WIDE:
        return v
    return sequence.linear(g, v, 4)


class _Undo:
    """Takes back what a block wrote before it found that it does not fit."""

    def __init__(self, g: Graph) -> None:
        self.g = g
        self.sizes = [len(x) for x in self._lists()]
        self.coarse = g.coarse

    def _lists(self) -> list[list[Any]]:
        return [self.g.nodes, self.g.weights, self.g.as_inputs, self.g.functions, self.g.static]

    def __call__(self) -> None:
        for some, size in zip(self._lists(), self.sizes):
            del some[size:]
        self.g.coarse = self.coarse


def _front(g: Graph, s: Sentence, x: str) -> tuple[Input, Value]:
    """The first input, and the value that the network goes on with."""
    rng, b = g.rng, s.batch
    c, f = rng.randint(1, 4), rng.randint(2, 4)
    if s.front == "tokens":
        out = Value(g.op("Gather", g.weight(7, c), x), "BTC", c, PROBES)
        return Input(x, [b, "T"], np.int64, 1, high=7, row=0), out
    if s.front == "int16":
        scaled = g.op("Div", g.float(x), g.const(3000.0))
        return Input(x, [b, "T"], np.int16, 1, low=-9000, high=9000, row=0), Value(scaled, "BT", 1, PROBES)
    sizes: dict[str, int | str] = {"B": b, "C": 1 if "F" in s.front else c, "F": f, "T": "T"}
    value = Value(x, s.front, 1 if "F" in s.front or s.front == "BT" else c, PROBES, f=f if "F" in s.front else 1)
    return Input(x, [sizes[a] for a in s.front], g.np, s.front.index("T"), row=s.front.index("B")), value


def _second(g: Graph, s: Sentence, v: Value, name: str) -> tuple[Input, Value]:
    """Another input: beside the first, at twice its rate, or a vector for the whole stream."""
    c = g.rng.randint(1, 3)
    if s.second == "static":
        g.need(9)
        v = g.to(v, "BTC")
        if g.chance(0.5):
            moved = g.op("MatMul", name, g.weight(c, v.c))
            return Input(name, [s.batch, c], g.np, row=0), replace(v, name=g.op("Add", v.name, g.unsqueeze(moved, 1)))
        shape = g.op("Concat", g.dim(v.name, 0, flat=True), g.dim(v.name, 1, flat=True), g.ints(c), axis=0)
        wide = g.op("Expand", g.unsqueeze(name, 1), shape)
        return Input(name, [s.batch, c], g.np, row=0), replace(v, name=g.op("Concat", v.name, wide, axis=2), c=v.c + c)
    rate = 2 if s.second == "double" else 1
    extra = Value(name, "BCT", c, tuple(n * rate for n in v.frames))
    if rate == 2:
        extra = convs.conv1d(g, extra, 2, 2, 2) if g.dtype != "float64" else shapes.stepped(g, extra)
    joined = shapes.join(g, v, extra, how="concat")
    return Input(name, [s.batch, c, "T"], g.np, 2, rate=rate, row=0), joined


def write(s: Sentence) -> Network:
    """The network of a sentence. Blocks that do not fit are left out."""
    g = Graph(random.Random(s.seed + 1), s.opset, s.dtype, s.style, s.batch, without=s.without)
    x = {
        "keras": "input_1:0",
        "dynamo": "arg0",
        "odd": g.rng.choice(("x", "past_000_x", "valid_frames", "0", "in put")),
    }.get(s.style, "x")
    y = {"keras": "input_2:0", "dynamo": "arg1", "odd": "present_000_x"}.get(s.style, "spk")
    time = g.rng.choice(("T", "time", "seq_len", "unk__12", "s77", "length"))
    g.taken |= {x, y}
    first, v = _front(g, s, x)
    inputs = [first]
    skipped: list[str] = []
    taps: list[Value] = []
    empty: set[int] = set()
    steps: list[tuple[str, Callable[[Graph, Value], Value]]] = []
    if s.second:

        def second(g: Graph, v: Value) -> Value:
            extra, joined = _second(g, s, v, y)
            inputs.append(extra)
            return joined

        g.rng, undo = random.Random(s.seed + 2), _Undo(g)
        try:
            v = second(g, v)
        except Unwritable:
            undo()
            del inputs[1:]
            skipped.append("second")
    steps += [(name, BLOCKS.get(name, _residual)) for name, _ in s.blocks]
    for (name, block), (_, seed) in zip(steps, s.blocks):
        g.rng, undo = random.Random(seed), _Undo(g)
        g.scope = name.replace("_", ".")
        try:
            if name == "tap":
                taps.append(v)
                continue
            made = block(g, _narrow(g, v))
            _fits(made)
            v = made
            empty |= {short for short, n in zip(SHORT, v.frames) if n < 1}
        except Unwritable:
            undo()
            skipped.append(name)
    outputs = _heads(g, s, v, taps, first, time)
    model = g.finish([i.info(time) for i in inputs], outputs)
    return Network(s, model, inputs, g.coarse, skipped, frozenset(empty))


def _heads(g: Graph, s: Sentence, v: Value, taps: list[Value], first: Input, time: str) -> list[onnx.ValueInfoProto]:
    outputs: list[onnx.ValueInfoProto] = []
    for name, seed in s.heads:
        g.rng, undo = random.Random(seed), _Undo(g)
        g.scope = "head"
        try:
            if name == "pooled":
                made, shape = special.pooled(g, v)
                outputs.append(_info(g, made, element(g.np), shape, first, outputs))
            elif name == "classes":
                made, shape, dtype, _ = special.classes(g, v)
                outputs.append(_info(g, made, dtype, shape, first, outputs))
            elif name == "input":
                if not any(o.name == first.name for o in outputs) and len(s.heads) > 1:
                    outputs.append(first.info(time))
            else:
                axes = g.rng.choice((v.axes, "BCT", "BTC", "TBC"))
                out = g.to(v, axes)
                shape = [{"B": s.batch, "C": out.c, "F": out.f, "T": "T"}[a] for a in out.axes]
                outputs.append(_info(g, out.name, element(g.np), shape, first, outputs))
        except Unwritable:
            undo()
    for tap in taps:
        shape = [{"B": s.batch, "C": tap.c, "F": tap.f, "T": "T"}[a] for a in tap.axes]
        outputs.append(_info(g, tap.name, element(g.np), shape, first, outputs))
    if not outputs:
        shape = [{"B": s.batch, "C": v.c, "F": v.f, "T": "T"}[a] for a in v.axes]
        outputs.append(_info(g, v.name, element(g.np), shape, first, outputs))
    return outputs


def _info(
    g: Graph, name: str, dtype: int, shape: list[int | str], first: Input, outputs: list[onnx.ValueInfoProto]
) -> onnx.ValueInfoProto:
    """An output under a name of its own; its shape as the exporter has it, frames under another name, or none at
    all.
    """
    if (
        name == first.name
        or g.chance(0.6)
        or any(o.name == name for o in outputs)
        or name not in {o for n in g.nodes for o in n.output}
    ):
        name = g.ops("Identity", name, names=[_free(g, outputs)])[0]
    if g.chance(0.1) and g.style != "torch":
        return (
            helper.make_tensor_value_info(name, dtype, None)
            if g.chance(0.3)
            else helper.make_tensor_value_info(name, dtype, [None] * len(shape))
        )
    dims = [None if d == "T" and g.style == "plain" else f"{name}_dim" if d == "T" else d for d in shape]
    return helper.make_tensor_value_info(name, dtype, dims)


def _free(g: Graph, outputs: list[onnx.ValueInfoProto]) -> str:
    base = {
        "keras": f"Identity_{len(outputs)}:0",
        "odd": g.rng.choice(("valid_frames", "present_000_x", "out put", "past_001_seen", "7")),
    }.get(g.style, f"y{len(outputs)}")
    while base in g.taken:
        base += "_"
    g.taken.add(base)
    return base


__all__ = ["BLOCKS", "FLOAT", "Input", "Network", "Sentence", "TensorProto", "draw", "write"]
