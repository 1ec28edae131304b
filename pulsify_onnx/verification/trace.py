"""Where a stream goes wrong first: every tensor of the batch model against the one that carries it in the pulsed model.

The plan, computed again, says which tensor of the pulsed graph carries each tensor of the source, and at what delay.
Both models are run with all of these as outputs. Tensors that the pulsed graph has no equal of (a padded tensor is only
an index shift, attention scores are never whole) are passed over.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Fact, Running, Static, Stream
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.arrays import Array
from pulsify_onnx.model.load import Source
from pulsify_onnx.ort import ALL_OUTPUTS
from pulsify_onnx.output import write
from pulsify_onnx.runtime.runner import take
from pulsify_onnx.verification.check import Case, Check, opened


@dataclass(frozen=True)
class FirstDifference:
    """The first node, in topological order, whose output differs: at ``frame`` (of the batch tensor) and ``index``."""

    node: str
    op_type: str
    wire: str
    frame: int | None
    index: tuple[int, ...]
    stream: float
    batch: float
    agreeing: int

    def as_json(self) -> dict[str, Any]:
        """As plain data; numbers that JSON has no word for are text."""
        return {
            k: list(v) if isinstance(v, tuple) else v if not isinstance(v, float) or np.isfinite(v) else str(v)
            for k, v in asdict(self).items()
        }

    def __str__(self) -> str:
        where = "" if self.frame is None else f" at frame {self.frame}"
        return (
            f'the first node that differs is {self.op_type} "{self.node}" (output {self.wire}){where}, index '
            f"{list(self.index)}: "
            f"{self.stream:.6g} in the stream, {self.batch:.6g} in the batch model; {self.agreeing} tensors before "
            "it agree"
        )


def first_difference(
    source: Source, plan: Plan, pulsed: ir.Model, case: Case, rtol: float | None = None, atol: float | None = None
) -> FirstDifference | None:
    """The first node whose stream differs from its batch value for the inputs of `case`; None where all that can be
    compared agree.
    """
    present = {v.name for node in pulsed.graph for v in node.outputs if v.name}
    pairs = [
        (node, out.name or "", fact)
        for node in source.model.graph
        for out in node.outputs
        if out.name
        and isinstance(fact := plan.facts.get(out.name or ""), (Stream, Running, Static))
        and fact.wire in present
    ]
    with tempfile.TemporaryDirectory(prefix="pulsify-trace-") as name:
        folder = Path(name)
        batch = _with_outputs(source.model, [wire for _, wire, _ in pairs], folder / "batch.onnx")
        stream = _with_outputs(pulsed, [fact.wire for _, _, fact in pairs], folder / "stream.onnx")
        check = Check(batch, opened(stream, plain=True), rtol=rtol, atol=atol, traced=True)
        want = dict(zip((o.name for o in check.batch.get_outputs()), check.batch.run(None, dict(case.inputs))))
        got, _ = check.stream(case.frames, case.inputs)
    agreeing = 0
    for node, wire, fact in pairs:
        found = [f for f in _compared(fact, plan, got[fact.wire], want[wire], case.frames, check.ends)]
        for mine, theirs, first, axis in found:
            error = _errors(mine, theirs)
            if error.size and error.max() > check.differences.allowed(want[wire]):
                index = tuple(
                    int(k)
                    for k in np.unravel_index(
                        int(np.argmax(error))
                        if axis is None
                        else _earliest(error, check.differences.allowed(want[wire]), axis),
                        error.shape,
                    )
                )
                at = tuple(k + first if d == axis else k for d, k in enumerate(index))
                return FirstDifference(
                    node.name or "",
                    node.op_type,
                    wire,
                    None if axis is None else at[axis],
                    at,
                    float(mine[index]),
                    float(theirs[index]),
                    agreeing,
                )
        agreeing += len(found)
    return None


def _with_outputs(model: ir.Model, names: list[str], path: Path) -> Path:
    """`model` as a file that gives tensors `names`, too."""
    copy = model.clone()
    values = {v.name: v for node in copy.graph for v in node.outputs}
    outputs = {v.name for v in copy.graph.outputs}
    for name in dict.fromkeys(names):
        if name not in outputs:
            copy.graph.outputs.append(values[name])
    for k, node in enumerate(copy.graph):
        if node.op_type in ALL_OUTPUTS:
            for j, out in enumerate(node.outputs):
                out.name = out.name or f"pulsify/unused_{k}_{j}"
    write.write(copy, path, path.name + ".data")
    return path


def _compared(
    fact: Fact, plan: Plan, got: list[Array], want: Array, frames: int, ends: bool
) -> Iterator[tuple[Array, Array, int, int | None]]:
    """What of a tensor can be compared: its frames that have come over the wire, the first of them, and their axis."""
    if got[0].dtype == np.uint8 and want.dtype == np.int8:  # carried unsigned, each 128 more
        got = [(g.astype(np.int16) - 128).astype(np.int8) for g in got]
    if isinstance(fact, Stream):
        carrier = plan.wires.get(fact.wire)
        if (
            fact.merged
            or not isinstance(carrier, Stream)
            or carrier.merged
            or got[0].ndim != want.ndim
            or carrier.axis != fact.axis
        ):
            return
        flow = np.concatenate(got, fact.axis)
        delay = int(fact.delay)
        first = max(fact.pad_before, -delay, plan.unread.get(fact.wire, 0) + int(carrier.delay) - delay)
        last = min(
            max(0, fact.extent.at(frames) - fact.pad_after.at(frames)),
            flow.shape[fact.axis] - delay,
            want.shape[fact.axis],
        )
        mine, theirs = (take(x, fact.axis, first + d, last + d) for x, d in ((flow, delay), (want, 0)))
        if last > first and mine.shape == theirs.shape:
            yield mine, theirs, first, fact.axis
    elif (isinstance(fact, Static) or ends) and got[-1].shape == want.shape:
        yield got[-1], want, 0, None


def _errors(mine: Array, theirs: Array) -> Array:
    a, b = (x.astype(np.float64) for x in (mine, theirs))
    with np.errstate(invalid="ignore"):
        errors = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return np.where(np.isnan(errors), np.inf, errors)


def _earliest(errors: Array, allowed: float, axis: int) -> int:
    """Flat index of the largest error in the first frame that has one."""
    beyond = np.moveaxis(errors > allowed, axis, 0).reshape(errors.shape[axis], -1).any(axis=1)
    frame = int(np.argmax(beyond))
    only = np.zeros_like(errors)
    index = [slice(None)] * errors.ndim
    index[axis] = slice(frame, frame + 1)
    only[tuple(index)] = errors[tuple(index)]
    return int(np.argmax(only))
