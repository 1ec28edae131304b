"""One network against its streams: convert it at some pulses, stream many lengths, compare every frame and every
word of the sidecar.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

import pulsify_onnx
from pulsify_onnx import AmbiguousAxis, CannotStream, PulseDoesNotFit, PulsifyError

from .grammar import Network
from .streaming import Array, Batch, Lane, Runner, Stream, difference, draw, lanes_of, session, sidecar

FILLS = ("nan", "inf", "99", "huge", "-inf")


@dataclass
class Result:
    """What became of a network: its kind, what is wrong with it, why it was refused, and what else was counted."""

    kind: str = "same"
    text: str = ""
    reasons: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def sign(self) -> str:
        """What failures of one cause have in common, more or less."""
        text = self.text.partition(": ")[2] or self.text
        for word in ("a state is named", "not finite", "static", "prefix", "depends on", "differs by inf", "differs"):
            if word in text:
                return f"{self.kind} {word}"
        return f"{self.kind} {_general(text)}"


class Wrong(Exception):
    """The stream, or its sidecar, is not what the contract says."""


class Broken(Exception):
    """Something else than an answer or a documented refusal."""


def check(network: Network, seed: int) -> Result:
    """Everything there is to check, at a few pulses drawn by `seed`."""
    result = Result()
    rng = random.Random(seed)
    try:
        batch = Batch(network)
        answer = _usual(network, batch, seed)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        result.kind, result.text = "unusable", str(error)[:200]
        return result
    if answer is None:
        result.kind = "unusable"
        return result
    result.counts["finite"] += all(np.isfinite(y).all() for y in answer.values() if y.dtype.kind == "f")
    try:
        for end in (True, False, True, rng.random() < 0.5):
            pulse = rng.choice((1, 2, 3, 5, 16, 200, None))
            _converted(network, batch, pulse, end, rng, result)
            if result.kind != "same":
                break
    except Wrong as error:
        result.kind, result.text = "WRONG", str(error)
    except Broken as error:
        result.kind, result.text = "CRASH", str(error)
    return result


def _usual(network: Network, batch: Batch, seed: int) -> dict[str, Array] | None:
    rows = network.sentence.batch if isinstance(network.sentence.batch, int) else 1
    return batch(draw(network.inputs, rows, 48, np.random.default_rng(seed)), 48, Lane(0, rows), {})


def answers(network: Network, seed: int) -> bool:
    """Whether the batch model loads, runs, and is sure of what it says."""
    return _usual(network, Batch(network), seed) is not None


def _converted(
    network: Network, batch: Batch, pulse: int | None, end: bool, rng: random.Random, result: Result
) -> None:
    at = f"pulse {pulse or 'dynamic'}{' with an end' if end else ''}"
    before = network.model.SerializeToString(deterministic=True)
    pulsed = _pulsify(network, pulse, end, result, at)
    if pulsed is None:
        return
    if network.model.SerializeToString(deterministic=True) != before:
        raise Wrong(f"{at}: the caller's model was changed")
    model = pulsed.proto()
    spec = sidecar(model)
    at = f"pulse {spec['pulse'] or 'dynamic'}{' with an end' if end else ''}"
    try:
        runner_session = session(model)
    except Exception as error:
        raise Broken(f"{at}: onnxruntime can't load it: {str(error)[:600]}") from None
    told = {i["name"]: i.get("axis") for i in spec["inputs"]}
    if any(told.get(name) != axis for name, axis in network.axes.items()):
        result.counts["another reading"] += 1
        result.kind, result.reasons = "refused", ["another axis was taken for time, untold"]
        return
    _words(network, model, spec, end, at)
    _streams(network, batch, runner_session, spec, end, rng, result, at)
    if isinstance(network.sentence.batch, int) and len(network.axes) == 1 and rng.random() < 0.3:
        _reach(network, batch, spec, end, result, at)


def _pulsify(network: Network, pulse: int | None, end: bool, result: Result, at: str) -> Any:
    """The pulsed model, or None where it was refused, with the reasons in `result`."""
    axes: dict[str, int | str] | None = dict(network.axes) if network.sentence.told else None
    for _ in range(3):
        try:
            return pulsify_onnx.pulsify(network.model, pulse=pulse, axes=axes, end_of_stream=end)
        except AmbiguousAxis:
            result.counts["ambiguous"] += 1
            if axes is not None:
                raise Wrong(f"{at}: the axes are told, and yet they are ambiguous") from None
            axes = dict(network.axes)
        except PulseDoesNotFit as error:
            smallest = getattr(error, "smallest", None) or _smallest(str(error))
            if pulse is not None and pulse >= smallest and pulse % smallest == 0:
                raise Wrong(f"{at}: {error}") from None
            pulse = smallest * (pulse or 1)
        except CannotStream as error:
            result.kind, result.reasons = "refused", [f"{b.op_type}: {_general(b.reason)}" for b in error.blockers]
            return None
        except PulsifyError as error:
            result.kind, result.reasons = "refused", [f"{type(error).__name__}: {_general(str(error))}"]
            return None
        except Exception as error:
            raise Broken(f"{at}: {type(error).__name__}: {str(error)[:600]}") from error
    raise Wrong(f"{at}: no pulse fits, not the one that was offered either")


def _smallest(text: str) -> int:
    return int(re.findall(r"\d+", text)[-1])


def _general(text: str) -> str:
    """A reason without the names and numbers of one network."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "…", (text.splitlines() or [""])[0])
    return re.sub(r"-?\d+", "N", text)[:110]


def _words(network: Network, model: onnx.ModelProto, spec: Mapping[str, Any], end: bool, at: str) -> None:
    """What the contract says about names, order, states and metadata."""
    source = [i.name for i in network.inputs]
    weights = {w.name for w in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in weights]
    states = [s["input"] for s in spec["states"]]
    valid = [spec["valid_frames_input"]] if end else []
    if names != source + valid + states:
        raise Wrong(f"{at}: inputs are {names}, not {source + valid + states}")
    outs = [o.name for o in network.model.graph.output]
    if [o.name for o in model.graph.output] != outs + [s["output"] for s in spec["states"]]:
        raise Wrong(f"{at}: outputs are {[o.name for o in model.graph.output]}")
    if sorted(states) != states or [s["output"] for s in spec["states"]] != sorted(s["output"] for s in spec["states"]):
        raise Wrong(f"{at}: states are not in order: {states}")
    total = 0
    for n, s in enumerate(spec["states"]):
        tag = s["input"].removeprefix(f"past_{n:03d}_")
        if not re.fullmatch(r"[A-Za-z0-9_]+", tag) or s["output"] != f"present_{n:03d}_{tag}":
            raise Wrong(f"{at}: a state is named {s['input']}, {s['output']}")
        free = [d for d in s["shape"][1:] if not isinstance(d, int)] + [d for d in s["shape"] if d == 0]
        if free or (isinstance(s["shape"][0], str) and isinstance(network.sentence.batch, int)):
            raise Wrong(f"{at}: state {s['input']} has the shape {s['shape']}")
        if all(isinstance(d, int) for d in s["shape"]):
            total += math.prod(s["shape"]) * np.dtype(s["dtype"]).itemsize
    if isinstance(network.sentence.batch, int) and total != spec["state_bytes"]:
        raise Wrong(f"{at}: states of {total} bytes are told as {spec['state_bytes']}")
    if bool(spec["flush_pulses"]) and not end:
        raise Wrong(f"{at}: {spec['flush_pulses']} pulses flush what has no end")
    for o in spec["outputs"]:
        if o["kind"] == "stream" and o["delay"] < 0:
            raise Wrong(f"{at}: a delay of {o['delay']}")
    if {i["name"]: i["rate"] for i in spec["inputs"] if i["kind"] == "stream"} != {
        i.name: [i.rate, 1] for i in network.inputs if i.axis is not None
    }:
        raise Wrong(f"{at}: rates are {[i.get('rate') for i in spec['inputs']]}")


def _pulses(spec: Mapping[str, Any], rng: random.Random) -> Iterator[int]:
    if spec["pulse"]:
        yield from itertools.repeat(spec["pulse"])
    multiple = spec["pulse_multiple"]
    while True:
        yield multiple * (rng.choice((16, 40)) if rng.random() < 0.1 else rng.randint(1, 5))


def _lengths(spec: Mapping[str, Any], end: bool, rng: random.Random) -> list[int]:
    """Short lengths, all of them where there are few, and a long one."""
    pulse, multiple = spec["pulse"] or 3 * spec["pulse_multiple"], spec["pulse_multiple"]
    delay = max(
        (math.ceil(o["delay"] * o["rate"][1] / o["rate"][0]) for o in spec["outputs"] if o["kind"] == "stream"),
        default=0,
    )
    least = spec.get("least_frames", 1)
    if not end:
        return [max(4 * pulse, delay + 2 * pulse), pulse]
    short = list(range(least, least + min(3 * pulse + delay, 90)))
    if len(short) > 14:
        short = short[:3] + rng.sample(short[3:], 11)
    return [*short, least + 60 + rng.randrange(2 * multiple + 5)]


def _streams(
    network: Network,
    batch: Batch,
    model: Any,
    spec: Mapping[str, Any],
    end: bool,
    rng: random.Random,
    result: Result,
    at: str,
) -> None:
    """Streams of many lengths through all lanes, each compared with the batch model on its own."""
    lanes = lanes_of(network, spec)
    runner = Runner(model, spec, network.inputs, lanes)
    draws = np.random.default_rng(rng.randrange(2**31))
    widest = max(spec["pulse"] or 0, 40 * spec["pulse_multiple"] if spec["pulse"] is None else 0)
    static = [draw([i for i in network.inputs if i.axis is None], lane.count, 0, draws) for lane in lanes]
    lengths = _lengths(spec, end, rng)
    rng.shuffle(lengths)
    queues: list[list[Stream]] = [[] for _ in lanes]
    for n, length in enumerate(lengths if len(lanes) < len(lengths) else lengths * len(lanes)):
        place = n % len(lanes)
        margin = 0 if end else 2 * widest + 96
        moving = draw([i for i in network.inputs if i.axis is not None], lanes[place].count, length + margin, draws)
        queues[place].append(Stream(moving | static[place], length))
    fill = rng.choice(FILLS) if end else None
    try:
        runner.run(queues, _pulses(spec, rng), fill)
    except Exception as error:
        raise Broken(f"{at}, {fill} past the end: does not run: {str(error)[:600]}") from error
    sure = True
    for lane, queue in zip(lanes, queues):
        for nth, stream in enumerate(queue):
            where = f"{at}, lane {lane.first}, stream {nth} of {stream.length} frames, {fill} past the end"
            sure &= _compared(network, batch, lane, stream, spec, end, result, where)
    unreal = [f for f in runner.faults if not f.startswith("not finite")]
    if unreal:
        raise Wrong(f"{at}: {unreal[0]}")
    if not runner.finite and sure and fill in (None, "99") and result.counts["finite"]:
        raise Wrong(f"{at}, {fill} past the end: {runner.faults[0]}")


def _compared(
    network: Network,
    batch: Batch,
    lane: Lane,
    stream: Stream,
    spec: Mapping[str, Any],
    end: bool,
    result: Result,
    where: str,
) -> bool:
    """Every frame that came out. False where the batch model has no finite answer to compare with."""
    row_axes = {o["name"]: o.get("row_axis") for o in spec["outputs"]}
    fed = (
        stream.length
        if end
        else max(i.shape[n.axis] // n.rate for n in network.inputs if n.axis is not None for i in [stream.data[n.name]])
    )
    want = batch(stream.data, fed, lane, row_axes)
    if want is None:
        result.counts["short"] += 1
        return False
    for o in spec["outputs"]:
        name, axis = o["name"], o.get("axis")
        if o["kind"] == "static":
            _same(stream.values[name][-1][1], want[name], network, f"{where}: static {name}")
        elif o["kind"] == "prefix":
            _prefix(network, batch, lane, stream, spec, o, end, where)
        else:
            got = stream.output(name, axis)
            frames = want[name].shape[axis]
            if end and got.shape[axis] - o["delay"] < frames:
                raise Wrong(
                    f"{where}: {name} gives {got.shape[axis]} frames with a delay of {o['delay']}, and should give "
                    f"{frames}"
                )
            _frames_word(o, fed, frames, where)
            count = max(0, min(frames, got.shape[axis] - o["delay"]))
            ours = np.take(got, range(o["delay"], o["delay"] + count), axis)
            _same(
                ours,
                np.take(want[name], range(count), axis),
                network,
                f"{where}: {name} (axis {axis}, delay {o['delay']})",
            )
            result.counts["frames"] += count
    return all(bool(np.isfinite(y).all()) for y in want.values() if y.dtype.kind == "f")


def _frames_word(o: Mapping[str, Any], fed: int, frames: int, where: str) -> None:
    """The expression for the number of frames, with T as the base frames."""
    text = o.get("frames")
    if text is None:
        return
    try:
        told = eval(
            text, {"__builtins__": {}}, {"T": fed, "min": min, "max": max, "floor": math.floor, "ceil": math.ceil}
        )
    except Exception as error:
        raise Wrong(f"{where}: the sidecar's frames {text!r} are no expression in T: {error}") from None
    if math.floor(told) != frames:
        raise Wrong(f"{where}: {o['name']} has {frames} frames, and {text} says {told}")


def _prefix(
    network: Network,
    batch: Batch,
    lane: Lane,
    stream: Stream,
    spec: Mapping[str, Any],
    o: Mapping[str, Any],
    end: bool,
    where: str,
) -> None:
    """A value over all frames so far: after each pulse where the sidecar says so, and after the flush."""
    values = stream.values[o["name"]]
    row_axes = {o["name"]: o.get("row_axis") for o in spec["outputs"]}
    some = [v for v in values if o["exact_every_pulse"] and v[0] >= max(1, spec.get("least_frames", 1))]
    if len(some) > 5:
        some = some[:3] + some[-2:]
    for fed, got in some + ([values[-1]] if end else []):
        want = batch(stream.data, fed, lane, row_axes)
        if want is not None and fed:
            _same(got, want[o["name"]], network, f"{where}: prefix {o['name']} after {fed} frames")


def _same(got: Array, want: Array, network: Network, where: str) -> None:
    found = difference(got, want, network)
    if found is not None:
        raise Wrong(f"{where} differs by {found[0]:.3g} first at {list(found[1])} (shapes {got.shape}, {want.shape})")


def _reach(network: Network, batch: Batch, spec: Mapping[str, Any], end: bool, result: Result, at: str) -> None:
    """How far the batch model looks, by changing one frame at a time: receptive fields, and delays that are later
    than need be.
    """
    frames = max(36, spec.get("least_frames", 1) + 24)
    source = next(i for i in network.inputs if i.axis is not None)
    rows = int(network.sentence.batch)
    rng = np.random.default_rng(7)
    data = draw(network.inputs, rows, frames, rng)
    lane = Lane(0, rows)
    base = batch(data, frames, lane, {})
    if base is None:
        return
    result.counts["measured"] += 1
    outputs = [o for o in spec["outputs"] if o["kind"] == "stream"]
    touched: dict[str, list[set[int]]] = {
        o["name"]: [set() for _ in range(base[o["name"]].shape[o["axis"]])] for o in outputs
    }
    for j, _ in itertools.product(range(frames), range(2)):
        x = data[source.name].copy()
        at_j = np.moveaxis(x, source.axis or 0, 0)[j]
        at_j[...] = draw([source], rows, 1, rng)[source.name].reshape(at_j.shape) * (1 if source.high else 3)
        other = batch({**data, source.name: x}, frames, lane, {})
        if other is None:
            return
        for o in outputs:
            moved = np.moveaxis(other[o["name"]] != base[o["name"]], o["axis"], 0)
            for at_i in np.flatnonzero(moved.reshape(len(moved), -1).any(1)):
                touched[o["name"]][int(at_i)].add(j)
    for o in outputs:
        inner = {
            i: seen for i, seen in enumerate(touched[o["name"]]) if seen and min(seen) > 8 and max(seen) < frames - 9
        }
        if o["receptive_field"] is not None and inner:
            i, span = max(((i, max(s) - min(s) + 1) for i, s in inner.items()), key=lambda p: p[1])
            if span > o["receptive_field"]:
                raise Wrong(
                    f"{at}: frame {i} of {o['name']} depends on {span} base frames, and its receptive field is "
                    f"told as {o['receptive_field']}"
                )
        if spec["pulse"] and inner and spec["pulse"] * 4 <= frames:
            step = spec["pulse"] * o["rate"][0] // o["rate"][1]
            need = max(0, *(max(s) // spec["pulse"] * step - i for i, s in inner.items()))
            if o["delay"] > need:
                result.counts["late"] += 1
                result.reasons.append(f"{at}: {o['name']} comes {o['delay']} frames late, {need} would do")
