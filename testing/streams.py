"""Streams of any lengths on the lanes of one pulsed model, short ones too, in pulses of any sizes; whatever is past
their ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from pulsify_onnx.api import PulsedModel, analyze, pulsify
from testing.builder import Network
from testing.oracle import check, close, draw, session, take
from testing.quantised_networks import EXACT
from testing.ties import Ties

Arrays = dict[str, np.ndarray]
FILLS = (math.nan, math.inf, 99.0, -math.inf)
"""What callers leave in frames past the end."""

MOST = 5000
"""No network here has to wait longer than so many pulses."""

SIZES = (1, 2, 3, 5, 8)
"""Pulses of a dynamic model, in multiples."""


class Streams:
    """A pulsed model beside the batch model that each of its lanes must equal; both sessions are made once.

    `optimised`: whether both run as onnxruntime has them by default, or neither; only the pulsed one, unless told.
    `ties`: whether values may be rounded the other way, where sums lie between two integers.
    """

    def __init__(
        self,
        pulsed: PulsedModel,
        model: onnx.ModelProto,
        *,
        optimised: bool | None = None,
        rtol: float = 2e-3,
        ties: bool = False,
    ) -> None:
        self.pulsed, self.spec, self.rtol = pulsed, pulsed.spec, rtol
        self.ties = Ties(model, plain=not optimised) if ties else None
        waits = max(self.spec["flush_pulses"], *(o.get("delay", 0) for o in self.spec["outputs"]))
        assert waits < MOST, f"the last frame comes after {waits} pulses"
        self.batch = session(model.SerializeToString(), plain=not optimised)
        self.run = session(pulsed.proto().SerializeToString(), plain=optimised is False)
        self.names = [o.name for o in self.run.get_outputs()]
        self.inputs = [i for i in self.spec["inputs"] if i["kind"] == "stream"]
        self.ends = bool(self.spec["valid_frames_input"])
        self.step = self.spec["pulse"] or self.spec["pulse_multiple"]

    def compare(self, lengths: Sequence[int], rng: np.random.Generator) -> int:
        """Streams of `lengths` base frames side by side, one a lane, equal their batch runs; how many frames were
        compared.

        Without an end they go on past what is compared. A length that the batch model does not take makes its lane go
        unseen.
        """
        total = [n if self.ends else max(lengths) + self.margin() for n in lengths]
        fixed = {
            i["name"]: draw(rng, np.dtype(i["dtype"]), _row(i)) for i in self.spec["inputs"] if i["kind"] == "static"
        }
        data = [
            {i["name"]: draw(rng, np.dtype(i["dtype"]), _row(i, n * i["rate"][0] // i["rate"][1])) for i in self.inputs}
            for n in total
        ]
        want = [self._wanted(arrays, fixed) for arrays in data]
        if not any(want):
            return 0
        got, finite = self._stream(data, fixed, lengths, rng)
        compared = sum(
            self._lane(k, n, got, w, {**data[k], **fixed}) for k, (n, w) in enumerate(zip(lengths, want)) if w
        )
        known = all(np.isfinite(v).all() for w in want for v in w.values())
        assert finite or self.ends or not known, f"pulse {self.spec['pulse']}: finite frames made one that is no number"
        return compared

    def together(self, frames: int, rows: int, rng: np.random.Generator) -> int:
        """Lanes of one length equal the batch model on all rows at once."""
        total = frames if self.ends else frames + self.margin()
        fixed = {
            i["name"]: draw(rng, np.dtype(i["dtype"]), _row(i, rows=rows))
            for i in self.spec["inputs"]
            if i["kind"] == "static"
        }
        data = {
            i["name"]: draw(rng, np.dtype(i["dtype"]), _row(i, total * i["rate"][0] // i["rate"][1], rows))
            for i in self.inputs
        }
        want = self._wanted(data, fixed)
        apart = [{i["name"]: take(data[i["name"]], i["row_axis"], k, k + 1) for i in self.inputs} for k in range(rows)]
        got, _ = self._stream(apart, fixed, [frames] * rows, rng) if want else ({}, True)
        feeds = {**data, **fixed}
        return (
            sum(
                self._output(o, got[o["name"]], want[o["name"]], f"rows together: {o['name']}", feeds)
                for o in self.spec["outputs"]
            )
            if want
            else 0
        )

    def margin(self) -> int:
        """Base frames that a stream without an end goes on after what is compared: what came out may not know of the
        end.
        """
        delays = (o["delay"] * o["rate"][1] / o["rate"][0] for o in self.spec["outputs"] if o["kind"] == "stream")
        unit = math.lcm(12, self.spec["pulse_multiple"])
        return unit * math.ceil((math.ceil(max(delays, default=0)) + 40 * self.step) / unit)

    def _wanted(self, arrays: Arrays, fixed: Arrays) -> Arrays:
        try:
            return dict(zip((o.name for o in self.batch.get_outputs()), self.batch.run(None, {**arrays, **fixed})))
        except Exception:  # not every length suits every model
            return {}

    def _sizes(self, most: int, rng: np.random.Generator) -> list[int]:
        sizes: list[int] = []
        while sum(sizes) < most:
            sizes.append(self.step if self.spec["pulse"] else self.step * int(rng.choice(SIZES)))
        if not self.ends and sum(sizes) > most and len(sizes) > 1:
            sizes.pop()
        return sizes + [self.step] * self.spec["flush_pulses"]

    def _stream(
        self, data: Sequence[Arrays], fixed: Arrays, lengths: Sequence[int], rng: np.random.Generator
    ) -> tuple[dict[str, list[np.ndarray]], bool]:
        rows = len(data)
        fills = [FILLS[int(k)] for k in rng.permutation(len(FILLS))] * rows
        states = {
            s["input"]: np.zeros([d if isinstance(d, int) else rows for d in s["shape"]], s["dtype"])
            for s in self.spec["states"]
        }
        got: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        at, finite = 0, True
        for size in self._sizes(max(lengths), rng):
            feeds = dict(fixed)
            for i in self.inputs:
                begin, count = (n * i["rate"][0] // i["rate"][1] for n in (at, size))
                chunks = [
                    _filled(take(d[i["name"]], i["axis"], begin, begin + count), i["axis"], count, fill)
                    for d, fill in zip(data, fills)
                ]
                feeds[i["name"]] = np.concatenate(chunks, i["row_axis"]) if rows > 1 else chunks[0]
            if self.ends:
                feeds[self.spec["valid_frames_input"]] = np.asarray(
                    [min(max(n - at, 0), size) for n in lengths], np.int64
                )
            outs = dict(zip(self.names, self.run.run(None, {**feeds, **states})))
            states = {s["input"]: outs[s["output"]] for s in self.spec["states"]}
            finite = finite and all(np.isfinite(v).all() for v in outs.values() if v.dtype.kind == "f")
            for name, value in outs.items():
                got[name].append(value)
            at += size
        return got, finite

    def _lane(self, k: int, frames: int, got: Mapping[str, list[np.ndarray]], want: Arrays, feeds: Arrays) -> int:
        compared = 0
        for o in self.spec["outputs"]:
            mine = [take(g, o["row_axis"], k, k + 1) for g in got[o["name"]]] if "row_axis" in o else got[o["name"]]
            compared += self._output(
                o, mine, want[o["name"]], f"{o['name']} of {frames} frames{f', lane {k}' if k else ''}", feeds
            )
        return compared

    def _output(self, o: Mapping[str, Any], got: list[np.ndarray], want: np.ndarray, what: str, feeds: Arrays) -> int:
        what = f"pulse {self.spec['pulse']}{' with end' if self.ends else ''}: {what}"
        if o["kind"] != "stream":
            if self.ends or o["kind"] == "static":
                self._close(got[-1], want, what, feeds, o["name"])
            return 1
        axis = o["axis"]
        flow = take(np.concatenate(got, axis), axis, o["delay"], None)
        n = want.shape[axis] if self.ends else min(flow.shape[axis], want.shape[axis])
        self._close(take(flow, axis, 0, n), want, what, feeds, o["name"], axis)
        return n

    def _close(self, got: np.ndarray, want: np.ndarray, what: str, feeds: Arrays, name: str, axis: int = 0) -> None:
        """What came out is what is wanted, as far as it goes, or lies where that may be rounded to."""
        index = [slice(None)] * axis + [slice(got.shape[axis])] if got.ndim else []
        try:
            close(got, want[tuple(index)], what, self.rtol)
        except AssertionError:
            if self.ties is None:
                raise
            low, high = self.ties.between(feeds, name, want)
            close(got, np.clip(got, low[tuple(index)], high[tuple(index)]), what, self.rtol)


def _row(entry: Mapping[str, Any], frames: int = 0, rows: int = 1) -> list[int]:
    """Dimensions of an input of so many frames, of one row unless told otherwise."""
    shape = [rows if k == entry.get("row_axis") or isinstance(d, str) else d for k, d in enumerate(entry["shape"])]
    if entry["kind"] == "stream":
        shape[entry["axis"]] = frames
    return shape


def _filled(chunk: np.ndarray, axis: int, count: int, fill: float) -> np.ndarray:
    shape = list(chunk.shape)
    shape[axis] = count - chunk.shape[axis]
    value = fill if chunk.dtype.kind == "f" else chunk.dtype.kind == "b" or 99
    return np.ascontiguousarray(np.concatenate([chunk, np.full(shape, value, chunk.dtype)], axis))


def short_lengths(spec: Mapping[str, Any], unit: int, rng: np.random.Generator, most: int = 7) -> list[int]:
    """Lengths from the least one on to 3 pulses and the delay, multiples of `unit`: all where they are few, else the
    shortest and some others.
    """
    step = spec["pulse"] or 3 * spec["pulse_multiple"]
    delays = (math.ceil(o["delay"] * o["rate"][1] / o["rate"][0]) for o in spec["outputs"] if o["kind"] == "stream")
    unit = math.lcm(unit, *(i["rate"][1] for i in spec["inputs"] if i["kind"] == "stream"))
    low = math.ceil(spec.get("least_frames", 1) / unit)
    high = max(low + 1, math.ceil((3 * step + max(delays, default=0)) / unit))
    found = list(range(low, high + 1))
    if len(found) > most:
        found = found[:2] + sorted(int(n) for n in rng.choice(found[2:], most - 2, replace=False))
    return [n * unit for n in found]


def check_streams(model: onnx.ModelProto, net: Network, rng: np.random.Generator) -> str:
    """Streams of a random pulse, or of any, with and without an end, of short lengths and of a long one; AssertionError
    where they differ.

    Quantised networks agree as they stand, but for ties; where onnxruntime's optimisation makes a difference between
    stream and batch run, it is told.
    """
    axes = {
        v.name: k for v in model.graph.input for k, d in enumerate(v.type.tensor_type.shape.dim) if d.dim_param == "T"
    }
    exact = bool(net.kinds) and net.kinds <= EXACT
    multiple = analyze(model, axes=axes).pulse_multiple
    pulse, length = (
        multiple * math.ceil(int(rng.choice([1, 1, 2, 3, 4, 5, 7, 12, 32])) / multiple),
        int(rng.choice(net.lengths)),
    )
    again, dynamic, told = not net.lanes and not exact and rng.random() < 0.5, rng.random() < 0.3, ""
    both = [pulsify(model, axes=axes, pulse=None if dynamic else pulse, end_of_stream=end) for end in (False, True)]
    length = max(length, net.unit * math.ceil(both[0].spec["least_frames"] / net.unit))
    if again:
        check(model, axes=axes, pulses=(pulse,), length=length, unit=net.unit, shortest=net.lengths[0], rtol=2e-3)
    for pulsed in both:
        lengths = [*short_lengths(pulsed.spec, net.unit, rng), length]
        _stream_all(
            Streams(pulsed, model, optimised=False if exact else None, rtol=1e-6 if exact else 2e-3, ties=exact),
            lengths,
            net.lanes,
            rng,
        )
        try:
            if exact:
                _stream_all(Streams(pulsed, model, optimised=True, rtol=1e-6), lengths, net.lanes, rng)
        except AssertionError as difference:
            told = str(difference)
    return told


def _stream_all(streams: Streams, lengths: Sequence[int], lanes: bool, rng: np.random.Generator) -> None:
    """Streams of `lengths` one by one, or as lanes side by side, which are a batch where they are as long as each
    other.
    """
    apart = all("row_axis" in i for i in streams.inputs)
    if not lanes or not apart:
        for n in lengths:
            streams.compare([n], rng)
        return
    for rows in (3, 2):
        streams.together(lengths[-1], rows, rng)
    for _ in range(3 if streams.spec.get("independent_rows", True) else 0):
        streams.compare([int(n) for n in rng.choice(lengths, int(rng.integers(2, 5)))], rng)
