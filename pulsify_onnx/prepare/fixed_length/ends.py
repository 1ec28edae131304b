"""Pads that may have been computed from the length of the export: those that fill the last window of a stride, or the
last chunk.

A number of frames that is always the same, and one that fills up what the length leaves open, are alike at the length
of the export. Where they differ at the end of the stream only, a stream that never ends is the same in both readings.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Static, Stream
from pulsify_onnx.errors import Blocker, refuse
from pulsify_onnx.prepare.fixed_length.export import ENDING, EXPORT, FILL, NUMBER, Export, offered
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.traits import Trait, has
from pulsify_onnx.rules.kit.views import by_attribute, pads_of

MANY = 16
"""So many frames more after the end than before the start are no lookahead of a convolution."""

PARAMETERS = {"pytorch"}
"""Producers in which the padding of a convolution is a parameter, the same on both sides, and never follows the
length.
"""


@dataclass(frozen=True)
class Padding:
    """Frames put `before` and `after` a stream of `frames` by a node, for which the input or attribute `constant` is to
    blame.

    `zeros`: what is put there is constant. `writable`: its numbers are a constant that can be computed instead. `by`:
    how, where it is not the window itself.
    """

    node: str
    op_type: str
    constant: str
    before: int
    after: int
    frames: int
    zeros: bool = True
    writable: bool = False
    by: Trait | None = None


def filling(export: Export, raw: ir.Node, node: Node) -> Blocker | None:
    """The padding that may be there to fill up the last window of the strided `node`, where the two readings differ at
    the end only.

    Refuses `node` where they differ at the start.
    """
    x, y = node.fact(0), export.facts.get(node.outputs[0])
    if not isinstance(x, Stream) or not isinstance(y, Stream) or y.rate >= x.rate or (x.rate / y.rate).denominator != 1:
        return None
    if not _filled(export, x, y):
        return None
    doubts = (
        _doubt(export, node, found, int(x.rate / y.rate), export.at(y.extent))
        for found in _paddings(export, raw, node, x)
    )
    return next((doubt for doubt in doubts if doubt is not None), None)


def _doubt(export: Export, node: Node, found: Padding, stride: int, count: int) -> Blocker | None:
    """Whether a padding in front of `count` windows may be computed."""
    before, after, extra = found.before, found.after, -found.frames % stride
    told = (
        f"its constant {found.constant!r} pads {found.frames} frames with {before} before and {after} after, which "
        "may be numbers "
        f"or what fills the last of {count} windows, {stride} frames apart"
    )
    if count == -(-found.frames // stride):
        own = found.by is None
        halves = after - before in (0, 1, -1 if own else 0)
        starts = {(before + after - extra + e + (before > after)) // 2 for e in range(stride)}
        if halves and before + after and len(starts) > 1 and found.zeros and "strides" in node.attributes:
            if export.said(node.name, (NUMBER,)) is None:
                refuse(
                    f"{told}: another number at the start for another length",
                    offered(f"{EXPORT}, and with pads that do not follow it", node.name, (NUMBER,)),
                )
            return None
        doubtful = (before != after or not own) and (halves or after == extra or after - extra in (before, before - 1))
    else:
        doubtful = after > before
    return _ending(export, found, told, stride) if doubtful else None


def multiples(export: Export) -> list[Blocker]:
    """Paddings that may be there to bring the length to a multiple of what the streams behind them are strided by."""
    found = []
    for node in export.source.model.graph:
        padding = _put(export, node)
        if padding is None or padding.before > padding.after or padding.before == padding.after != 0:
            continue
        x = export.facts[node.outputs[0].name or ""]
        behind = [export.facts.get(name) for name in _behind(node)]
        factors = [x.rate / f.rate for f in behind if isinstance(f, Stream) and isinstance(x, Stream)]
        most = max((int(f) for f in factors if f.denominator == 1), default=1)
        whole = padding.frames + padding.before + padding.after
        more = padding.after - padding.before
        told = (
            f"its constant {padding.constant!r} pads {padding.frames} frames with {padding.before} before and "
            f"{padding.after} after, which may be"
        )
        if most > 1 and more < most and whole % most == 0:
            found.append(
                _ending(export, padding, f"{told} numbers or what makes {whole} frames, a multiple of {most}", most)
            )
        elif more >= MANY:
            found.append(_ending(export, padding, f"{told} numbers or what makes {whole} frames of any stream"))
    return [blocker for blocker in found if blocker is not None]


def _ending(export: Export, padding: Padding, told: str, multiple: int = 0) -> Blocker | None:
    """What blocks streams that end, unless it was said which reading is meant; `multiple`: what the frames may be
    filled up to.
    """
    fills = padding.writable and multiple > 0 and padding.after >= -padding.frames % multiple
    choices = (NUMBER, FILL) if fills else (NUMBER,)
    said = export.said(padding.node, choices)
    if said is None:
        return Blocker(
            padding.node,
            padding.op_type,
            f"{told}: streams of another length would end in another way",
            offered(ENDING, padding.node, choices),
        )
    if said == FILL:
        export.filling[padding.node] = multiple
    return None


def _filled(export: Export, x: Stream, y: Stream) -> bool:
    """Whether the export would have a window less with a frame less."""
    shorter = next((t for t in range(export.frames - 1, 0, -1) if x.extent.at(t) < export.at(x.extent)), None)
    return shorter is None or y.extent.at(shorter) < export.at(y.extent)


def _paddings(export: Export, raw: ir.Node, node: Node, x: Stream) -> list[Padding]:
    """What a window of `raw` puts around the stream by itself, and with the nodes before it."""
    parts = []
    value = raw.inputs[0]
    while value is not None and (made := value.producer()) is not None:
        part = _put(export, made)
        if part is not None:
            parts.append(part)
        elif made.domain or not has(
            made, Trait.FRAMES_APART
        ):  # such operators may stand between a pad and the window that it fills
            break
        value = next(
            (v for v in made.inputs if v is not None and isinstance(export.facts.get(v.name or ""), Stream)), None
        )
    own = [0, 0]
    pads = node.ints("pads") if not has(node, Trait.PADS) else None
    k = x.axis - x.rank + len(pads or ()) // 2
    if pads and 0 <= k < len(pads) // 2:
        own = [pads[k], pads[k + len(pads) // 2]]
    alone = Padding(node.name, node.op_type, "pads", own[0], own[1], export.at(x.extent))
    found = [alone] if own[0] != own[1] or (own[0] and export.source.model.producer_name not in PARAMETERS) else []
    if parts:
        blamed = next((p for p in parts if p.after), parts[0])
        before, after = own[0] + sum(p.before for p in parts), own[1] + sum(p.after for p in parts)
        writable = blamed.writable and len(parts) == 1 and own == [0, 0]
        found.append(
            Padding(
                blamed.node,
                blamed.op_type,
                blamed.constant,
                before,
                after,
                parts[-1].frames,
                blamed.zeros,
                writable,
                blamed.by,
            )
        )
        found += [
            part for part in parts if len(parts) > 1 and part.by is Trait.PADS
        ]  # one alone may be computed, before or after numbers
    return found


def _put(export: Export, made: ir.Node) -> Padding | None:
    """The frames that a Pad, or a Concat with constants, puts around a stream."""
    facts = [None if v is None else export.facts.get(v.name or "") for v in made.inputs]
    if not has(made, Trait.PADS, Trait.JOINS) or not isinstance(export.facts.get(made.outputs[0].name or ""), Stream):
        return None
    node = export.walk.node(made)
    if has(made, Trait.PADS):
        x = facts[0]
        if not isinstance(x, Stream):
            return None
        pads, _, mode = pads_of(node, x.rank)
        before, after = pads[x.axis]
        if before.constant is None or after.constant is None or min(before.constant, after.constant) < 0:
            return None
        if not before.terms and not after.terms and any(p.terms for pair in pads for p in pair):
            return None
        constant = "pads" if by_attribute(node, "pads") else node.inputs[1]
        writable = not by_attribute(node, "pads") and len(pads) == x.rank and node.fact(3) is None
        return Padding(
            node.name,
            node.op_type,
            constant or "pads",
            before.constant,
            after.constant,
            export.at(x.extent),
            mode == "constant",
            writable,
            Trait.PADS,
        )
    at = [k for k, f in enumerate(facts) if isinstance(f, Stream)]
    x = facts[at[0]] if len(at) == 1 else None
    if not isinstance(x, Stream) or len(facts) < 2 or node.axis(x.rank) != x.axis:
        return None
    sizes = [f.shape[x.axis].constant if isinstance(f, Static) else None for f in facts]
    if any(s is None for k, s in enumerate(sizes) if k != at[0]):
        return None
    before_, after_ = (sum(s or 0 for s in part) for part in (sizes[: at[0]], sizes[at[0] + 1 :]))
    constant = node.inputs[-1] if at[0] + 1 < len(facts) else node.inputs[0]
    return Padding(node.name, node.op_type, constant or "", before_, after_, export.at(x.extent), by=Trait.JOINS)


def _behind(node: ir.Node) -> list[str]:
    """Names of all values that depend on `node`."""
    seen: dict[str, None] = {}
    waiting = list(node.outputs)
    while waiting:
        value = waiting.pop()
        for user, _ in value.uses():
            for out in user.outputs:
                if out.name and out.name not in seen:
                    seen[out.name] = None
                    waiting.append(out)
    return list(seen)
