"""What ``inspect`` and ``convert`` show: the facts of a plan as plain data, and that data as a table."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.errors import Blocker, one_line
from pulsify_onnx.model.load import Source
from pulsify_onnx.report import sidecar
from pulsify_onnx.report.critical_path import chain
from pulsify_onnx.runtime.json_form import encoded

Json = dict[str, Any]
WIDTH = 100


def describe(plan: Plan, source: Source, document: Mapping[str, Any]) -> Json:
    """The sidecar's facts and, for every stream output, its lookahead and where its delay comes from."""
    return {**document, "outputs": [{**o, **_explained(plan, source, o["name"])} for o in document["outputs"]]}


def _explained(plan: Plan, source: Source, name: str) -> Json:
    fact = plan.facts[name]
    if not isinstance(fact, Stream):
        return {}
    path = [{"node": link.node, "op_type": link.op_type, "base_frames": _number(link.frames)} for link in chain(plan, source, name)]
    return {"lookahead": max(0, math.floor(fact.reach.future)), "critical_path": path}


def _number(x: Fraction) -> int | float:
    return int(x) if x.denominator == 1 else float(x)


def blocked(plan: Plan | None, blockers: Sequence[Blocker]) -> Json:
    """What can be said of a model that does not stream."""
    if plan is None:
        return {"inputs": [], "outputs": [], "pulse_multiple": 1, "states": [], "state_bytes": 0, "blockers": [b.as_json() for b in blockers]}
    return {"inputs": encoded(sidecar.inputs(plan, None)), "outputs": encoded(sidecar.outputs(plan, None)), "pulse_multiple": plan.pulse_multiple,
            "states": [], "state_bytes": 0, "blockers": [b.as_json() for b in blockers]}


MOST_NOTES = 10


def notes(document: Mapping[str, Any]) -> list[str]:
    """Lines about the numbers that were kept in a model of one length: the first ones, and how many there are."""
    kept = (document.get("fixed_length") or {}).get("kept", [])
    if not kept:
        return []
    lines = [f"note: {len(kept)} number{'s' * (len(kept) != 1)} of this export kept as numbers, which may have followed its length; "
             "if one did, export the model with a dynamic length:"]
    lines += [one_line(f'  {k["op_type"]} "{k["node"]}": {k["what"]} is {k["value"]:g}, also {k["why"]}') for k in kept[:MOST_NOTES]]
    return lines + ([f"  and {len(kept) - MOST_NOTES} more, which the sidecar lists"] if len(kept) > MOST_NOTES else [])


def with_times(found: Json, frame_rate: float) -> Json:
    """Delays in milliseconds too, for `frame_rate` base frames a second."""
    outputs = []
    for o in found["outputs"]:
        if o["kind"] == "stream":
            seconds = o["delay"] * Fraction(o["rate"][1], o["rate"][0]) / Fraction(frame_rate)
            o = {**o, "delay_ms": round(float(seconds * 1000), 3)}
        outputs.append(o)
    return {**found, "frame_rate": frame_rate, "outputs": outputs}


def table(found: Mapping[str, Any]) -> str:
    """The report for a terminal of 100 columns."""
    pulse = found.get("pulse")
    lines = [f"pulse {pulse if pulse is not None else 'dynamic'}, a multiple of {found['pulse_multiple']} base frames"]
    if found.get("fixed_length"):
        count = len(found["fixed_length"]["constants"])
        lines.append(f"exported for {found['fixed_length']['frames']} frames, streams any number: {count} constant{'s' * (count != 1)} read anew")
    lines += ["", *_columns(["input", "kind", "axis", "rate", "dtype", "shape"], [
        [i["name"], i["kind"], str(i.get("axis", "")), _rate(i), i["dtype"], _shape(i)] for i in found["inputs"]])]
    lines += ["", *_columns(["output", "kind", "axis", "rate", "delay", "lookahead", "receptive field", "shape"], [
        [o["name"], o["kind"], str(o.get("axis", "")), _rate(o), _delay(o, found), _count(o.get("lookahead")), _field(o, found), _shape(o)]
        for o in found["outputs"]])]
    for o in found["outputs"]:
        lines += _path(o, found.get("frame_rate"))
    lines += _windows(found.get("head"))
    if found["states"]:
        lines += ["", *_columns(["state", "bytes", "role", "node", "shape"], [
            [s["input"], str(s["bytes"]), s["role"], s["node"], _shape(s)] for s in found["states"]])]
    lines += ["", f"{len(found['states'])} states, {found['state_bytes']} bytes"]
    if found.get("shared_by"):
        lines += textwrap.wrap(f"rows of a batch start and end together, because of {', '.join(found['shared_by'])}", WIDTH)
    return "\n".join(lines)


def _path(output: Mapping[str, Any], frame_rate: float | None) -> Iterator[str]:
    """Where the delay comes from: what each node adds, in base frames."""
    if (output.get("delay") or 0) <= 0 or not output.get("critical_path"):
        return
    rows, total = [], Fraction(0)
    for link in output["critical_path"]:
        added = Fraction(link["base_frames"]).limit_denominator(10**6)
        total += added
        ms = [f"{float(total / Fraction(frame_rate)) * 1000:g} ms"] if frame_rate else []
        rows.append([f"  {_signed(added)}", str(_number(total)), *ms, link["op_type"], link["node"]])
    yield ""
    yield f"delay of {output['name']}, in base frames, and the nodes that make it:"
    yield from _columns(["  adds", "sum", *(["time"] if frame_rate else []), "operator", "node"], rows)


def _windows(head: Mapping[str, Any] | None) -> Iterator[str]:
    """What a value over a window is, and whether it is that of the model on these frames alone."""
    if head is None:
        return
    first = f"{head['frames'] + head['delay']} frames" if head["full_after"] is None else f"{head['full_after']} pulses"
    what = f"{head['frames']} frames that end {head['delay']} before the pulse does" if head["delay"] else f"the last {head['frames']} frames"
    what = f"one result a pulse, over {what}, valid after {first}"
    if head["exact"]:
        yield from ("", f"{what}: what the model gives for these frames")
        return
    edges = ", ".join(f"the first {w['edges'][0]} and last {w['edges'][1]} of {w['frames']} frames of {w['wire']}" for w in head["windows"] if any(w["edges"]))
    yield from ("", *textwrap.wrap(f"{what}: near to what the model gives for these frames alone, which {', '.join(head['padding'])} would pad "
                                   f"where the stream has real neighbours; that changes {edges}", WIDTH))


def _signed(x: Fraction) -> str:
    return f"{float(x):+g}"


def _count(x: Any) -> str:
    return "" if x is None else str(x)


def _rate(wire: Mapping[str, Any]) -> str:
    return "" if "rate" not in wire else str(Fraction(*wire["rate"]))


def _delay(output: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if output["kind"] == "window":
        return f"{found['head']['delay']} frames"
    if "delay" not in output:
        return ""
    return f"{output['delay']} frames" + (f" = {output['delay_ms']:g} ms" if "delay_ms" in output else "")


def _field(output: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if output["kind"] == "window":
        return f"window of {found['head']['frames']}"
    if output["kind"] == "stream":
        return "unbounded" if output["receptive_field"] is None else str(output["receptive_field"])
    if output["kind"] == "prefix":
        return "all so far" + ("" if output["exact_every_pulse"] else ", exact after the flush")
    return ""


def _shape(wire: Mapping[str, Any]) -> str:
    return "x".join("pulse" if d is None else str(d) for d in wire["shape"]) or "scalar"


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the widest columns give way where it would be wider than the terminal."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths) > 12:
        widths[widths.index(max(widths))] -= 1
    return ["  ".join(_cut(cell, w).ljust(w) for cell, w in zip(row, widths)).rstrip() for row in [head, *rows]]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: (width - 1) // 2] + "…" + text[len(text) - (width - 1 - (width - 1) // 2):]
