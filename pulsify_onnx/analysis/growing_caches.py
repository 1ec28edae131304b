"""Caches that grow with the stream (keys and values of attention): an input that the model puts before its frames,
given back with them.

A state has a fixed size, so such a cache is none. The model may be run as it is, though, where it makes the same of a
stream however that is cut: which is established by running it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import Blocker
from pulsify_onnx.model.load import Source
from pulsify_onnx.ort import session
from pulsify_onnx.rules.kit.traits import Trait, declared, has

BEFORE, FRAMES = 3, 6
"""Frames in the cache, and after it, where the model is tried."""

LARGEST = 1 << 28
"""Bytes of weights of a model that is tried."""


@dataclass(frozen=True)
class Cache:
    """A graph input that has the frames so far, the output that has those of the pulse, too, and the node that puts
    them together.
    """

    input: str
    output: str
    node: str
    op_type: str


def growing(source: Source) -> list[Cache]:
    """The caches of a model that grow with the stream."""
    found: dict[str, Cache] = {}
    outputs = {id(v): v.name or "" for v in source.model.graph.outputs}
    for node in source.model.graph:
        concat = has(node, Trait.JOINS) and len(node.inputs) == 2
        for k, j in ((0, 0),) if concat else declared(node, Trait.CACHES, ()):
            past = _root(node.inputs[k] if k < len(node.inputs) else None)
            present = next(_given(node.outputs[j], outputs), None) if j < len(node.outputs) else None
            if past is None or present is None or past.shape is None or not any(v is past for v in source.inputs):
                continue
            moving = tuple(a for a, d in enumerate(past.shape) if not isinstance(d, int))
            along = _axis(node.inputs[0], node.attributes["axis"].as_int(), past, len(past.shape)) if concat else None
            if not moving or (along is not None and along not in moving):
                continue
            others = _inputs(node.inputs[1], source) if concat else []
            if concat and (not others or any(v is past for v in others)):  # a stream beside itself or beside a constant
                continue
            found.setdefault(past.name or "", Cache(past.name or "", present, node.name or "", node.op_type))
    return list(found.values())


def _root(value: ir.Value | None) -> ir.Value | None:
    """The tensor that `value` is a part of, or a form."""
    while value is not None and (node := value.producer()) is not None and has(node, Trait.FORM):
        value = node.inputs[0] if node.inputs else None
    return value


def _axis(value: ir.Value | None, axis: int, root: ir.Value, rank: int) -> int | None:
    """The axis of `root`, of `rank`, that `axis` of a form of it is; None where that is not told by the operators
    between.
    """
    while value is not root:
        node = value.producer() if value is not None else None
        if node is None or not has(node, Trait.AXIS):
            return None
        axis = declared(node, Trait.AXIS)(node.attributes, axis, rank)
        value = node.inputs[0]
    return axis % rank


def _inputs(value: ir.Value | None, source: Source) -> list[ir.Value]:
    """The graph inputs that `value` is computed from."""
    seen, todo = {id(value)}, [value]
    found = []
    while todo:
        at = todo.pop()
        if any(at is v for v in source.inputs) and at is not None:
            found.append(at)
        node = at.producer() if at is not None else None
        for v in node.inputs if node is not None else ():
            if id(v) not in seen:
                seen.add(id(v))
                todo.append(v)
    return found


def _given(value: ir.Value, outputs: Mapping[int, str]) -> Iterator[str]:
    """The graph outputs that `value` is a part of, or that are a form of it."""
    todo = [value]
    while todo:
        found = todo.pop()
        if id(found) in outputs:
            yield outputs[id(found)]
        todo += [out for node, _ in found.uses() if has(node, Trait.FORM, Trait.JOINS) for out in node.outputs]


def refused(source: Source, caches: Sequence[Cache]) -> tuple[Blocker, ...]:
    """Why a model with growing caches has no states of a fixed size, and what to do with it."""
    fixed = (
        "for states of a fixed size, export it without the cache and convert that, with --left-context N if "
        "its attention has no window of its own"
    )
    whole = _streams(source, caches)
    blockers = []
    for cache in caches:
        back = f"feed {cache.output} back as {cache.input}, of 0 frames at first"
        told = f"run it as it is: {back}"
        if whole is not None:
            told = (
                f"the model streams as it is, at pulses of any size: {back}"
                if whole
                else f"{told}; but what it makes of a frame depends on where pulses begin"
            )
        blockers.append(
            Blocker(
                cache.node,
                cache.op_type,
                f"its cache {cache.input} grows with the stream: {cache.output} has all the frames so far",
                f"{told}; {fixed}",
                cache.input,
            )
        )
    return tuple(blockers)


def _streams(source: Source, caches: Sequence[Cache]) -> bool | None:
    """Whether the model makes the same of a stream however it is cut into pulses; None where it can't be tried."""
    pairs = {c.input: c.output for c in caches}
    labels = {str(d.value) for c in caches for d in _shape(source, c.input) if not isinstance(d, int)}
    axes: dict[str, int] = {}
    for value in source.inputs:
        name, shape = value.name or "", _shape(source, value.name or "")
        if name in pairs:
            continue
        own = [
            a for a, d in enumerate(shape) if not isinstance(d, int) and (d.value is None or str(d.value) not in labels)
        ]
        if len(own) != 1 or value.dtype is None or not value.dtype.is_floating_point():
            return None
        axes[name] = own[0]
    shared = {str(_shape(source, n)[a].value) for n, a in axes.items()}  # type: ignore[union-attr]
    if (
        len(shared) != 1
        or sum(v.const_value.nbytes for v in source.model.graph.initializers.values() if v.const_value is not None)
        > LARGEST
    ):
        return None
    try:
        return _tried(source, pairs, axes)
    except Exception:
        return None


def _shape(source: Source, name: str) -> tuple[int | ir.SymbolicDim, ...]:
    return tuple(next(v for v in source.inputs if v.name == name).shape or ())


def _tried(source: Source, pairs: Mapping[str, str], axes: Mapping[str, int]) -> bool:
    rng = np.random.default_rng(0)
    batch = {
        str(d.value) for n in axes for a, d in enumerate(_shape(source, n)) if not isinstance(d, int) and a != axes[n]
    }
    run = session(ir.to_proto(source.model).SerializeToString(), severity=4, plain=True)
    names = [o.name for o in run.get_outputs()]

    def draw(name: str) -> Array:
        sizes = [
            d if isinstance(d, int) else FRAMES if a == axes.get(name) else 2 if str(d.value) in batch else BEFORE
            for a, d in enumerate(_shape(source, name))
        ]
        dtype = next(v.dtype for v in source.inputs if v.name == name)
        assert dtype is not None
        return rng.standard_normal(sizes).astype(dtype.numpy())

    given, past = {name: draw(name) for name in axes}, {name: draw(name) for name in pairs}
    want = dict(zip(names, run.run(None, {**given, **past})))
    parts: dict[str, list[Array]] = {name: [] for name in names}
    at = 0
    for count in (1, 2, FRAMES - 3):
        got = dict(
            zip(
                names,
                run.run(None, {**{n: np.take(x, range(at, at + count), axes[n]) for n, x in given.items()}, **past}),
            )
        )
        past, at = {name: got[output] for name, output in pairs.items()}, at + count
        for name in names:
            parts[name].append(got[name])
    for name in names:
        found = parts[name][-1] if name in pairs.values() else _joined(parts[name], want[name])
        if found.shape != want[name].shape or not np.allclose(
            found, want[name], rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(want[name]).max(initial=0)))
        ):
            return False
    return True


def _joined(parts: list[Array], want: Array) -> Array:
    moving = [a for a, d in enumerate(want.shape) if d != parts[0].shape[a]]
    return np.concatenate(parts, moving[0]) if len(moving) == 1 else parts[-1]
