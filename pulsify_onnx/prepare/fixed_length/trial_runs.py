"""Runs of a model of one length beside its reading for any.

At the original length both must give the same, and at two others the reading must run; a number that could be read
otherwise and runs there too is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import Blocker
from pulsify_onnx.model.load import Source
from pulsify_onnx.model.precision import TOLERANCES
from pulsify_onnx.ort import ALL_OUTPUTS, session
from pulsify_onnx.output import write
from pulsify_onnx.prepare.fixed_length.dynamic_length import DynamicLength
from pulsify_onnx.prepare.fixed_length.export import offered


def checked(source: Source, found: DynamicLength) -> DynamicLength:
    """`found`, with a blocker where it is not the original at the original length, or not the only reading at
    others.
    """
    if found.plan.blockers or not found.changes:
        return found
    problem = _problem(source, found)
    return found if problem is None else replace(found, plan=replace(found.plan, blockers=(problem,)))


def _problem(source: Source, found: DynamicLength) -> Blocker | None:
    runs = TrialRuns(source, found)
    name = ", ".join(found.axes)
    anew = _session(found.source.model)
    rows = next((n for n in (2, 1) if runs.original(found.frames, n) is not None), 1)
    want, got = runs.original(found.frames, rows), runs.run(anew, found.frames, rows)
    if want is None or got is None:
        return Blocker(
            name,
            "input",
            f"the model does not run at its own length of {found.frames} frames ({runs.error})",
            "check that the model runs",
        )
    if not all(_same(a, b) for a, b in zip(want, got)):
        return Blocker(
            name,
            "input",
            f"with a dynamic length the model gives something else at {found.frames} frames",
            "export the model with a dynamic length",
        )
    lengths = list(islice((n for n in _others(found) if _fits(found, runs.run(anew, n, rows), n)), 2))
    if len(lengths) < 2:
        return Blocker(
            name,
            "input",
            f"with the numbers that follow the length read anew, it still runs at {found.frames} frames only "
            f"({runs.error})",
            "export the model with a dynamic length",
        )
    for doubt in found.doubts:
        second = _session(doubt.model(found.source.model))
        if any(runs.run(second, n, rows) is not None for n in (2 * found.frames, *lengths)):
            return Blocker(
                doubt.node,
                doubt.op_type,
                f"its constant {doubt.constant!r} can be read in two ways for other lengths than {found.frames}: "
                f"as {doubt.told}",
                offered("export the model with a dynamic length", doubt.node, doubt.choices),
            )
    return None


def _others(found: DynamicLength) -> Iterator[int]:
    """Lengths to try beside the original one: near ones first, then those that have its divisors."""
    step = found.plan.pulse_multiple
    start = math.ceil(found.frames / step) * step
    yield from (start + step, start + 2 * step, 2 * found.frames, 3 * found.frames, found.frames + 7 * step)


def _fits(found: DynamicLength, outputs: list[Array] | None, frames: int) -> bool:
    """Whether the model ran, and its outputs have the lengths that the analysis says."""
    if outputs is None:
        return False
    facts = [found.plan.facts[name] for name in found.plan.outputs]
    return all(not isinstance(f, Stream) or x.shape[f.axis] == f.extent.at(frames) for f, x in zip(facts, outputs))


def _same(a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind in "iub":
        return bool((a == b).all())
    x, y = a.astype(np.float64), b.astype(np.float64)
    scale = float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0))
    return np.allclose(x, y, rtol=0, atol=TOLERANCES.get(str(a.dtype), 2e-4) * max(1e-3, scale) / 10, equal_nan=True)


class TrialRuns:
    """Runs a model of a fixed length, and its reading for any length, on the same random data."""

    def __init__(self, source: Source, relaxed: DynamicLength):
        self.inputs, self.relaxed = source.inputs, relaxed
        self.batch = _session(source.model)
        self.error = ""

    def arrays(self, frames: int, rows: int) -> dict[str, Array]:
        """Random inputs of a length, the same each time."""
        rng = np.random.default_rng([3, frames])
        made = {}
        for value in self.inputs:
            fact = self.relaxed.plan.facts[value.name or ""]
            shape = [d if isinstance(d, int) else rows for d in value.shape or ()]
            if isinstance(fact, Stream):
                shape[fact.axis] = fact.extent.at(frames)
            dtype = (value.dtype or ir.DataType.FLOAT).numpy()
            made[value.name or ""] = (
                rng.standard_normal(shape).astype(dtype)
                if dtype.kind not in "iub"
                else rng.integers(0, 2, shape).astype(dtype)
            )
        return made

    def original(self, frames: int, rows: int = 1) -> list[Array] | None:
        """Outputs of the original, None where it does not run."""
        return self.run(self.batch, frames, rows)

    def run(self, runner: ort.InferenceSession, frames: int, rows: int = 1) -> list[Array] | None:
        """Outputs at a length, None where it does not run there."""
        try:
            return [np.asarray(x) for x in runner.run(None, self.arrays(frames, rows))]
        except Exception as problem:
            self.error = " ".join(str(problem).split())[:200]
            return None


def runnable(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf, with a name for every output that onnxruntime wants one for."""
    proto = ir.to_proto(write.with_weights(model))
    for written, node in zip(proto.graph.node, model.graph):
        if node.op_type in ALL_OUTPUTS:
            written.output.extend([""] * (len(node.outputs) - len(written.output)))
            for k, name in enumerate(written.output):
                written.output[k] = name or f"{node.name}/unread_{k}"
    return proto


def _session(model: ir.Model) -> ort.InferenceSession:
    return session(runnable(model).SerializeToString(), severity=4, plain=True)
