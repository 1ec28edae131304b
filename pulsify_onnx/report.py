"""What ``inspect`` and ``convert`` show: the facts of a plan as plain data, and that data as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pulsify_onnx import spec as sidecar
from pulsify_onnx.plan import Plan

Json = dict[str, Any]
WIDTH = 100


def describe(plan: Plan, document: Mapping[str, Any]) -> Json:
    """The sidecar's facts and what only the plan knows."""
    return {**document, "outputs": [_output(o) for o in document["outputs"]]}


def blocked(plan: Plan) -> Json:
    """What can be said of a model that does not stream."""
    return {"inputs": sidecar.inputs(plan, None), "outputs": sidecar.outputs(plan, None), "pulse_multiple": plan.pulse_multiple,
            "states": [], "state_bytes": 0, "blockers": [b.as_json() for b in plan.blockers]}


def _output(output: Json) -> Json:
    return output


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
    lines += ["", *_columns(["input", "kind", "axis", "rate", "dtype", "shape"], [
        [i["name"], i["kind"], str(i.get("axis", "")), _rate(i), i["dtype"], _shape(i)] for i in found["inputs"]])]
    lines += ["", *_columns(["output", "kind", "axis", "rate", "delay", "receptive field", "shape"], [
        [o["name"], o["kind"], str(o.get("axis", "")), _rate(o), _delay(o), _field(o), _shape(o)] for o in found["outputs"]])]
    if found["states"]:
        lines += ["", *_columns(["state", "bytes", "role", "node", "shape"], [
            [s["input"], str(s["bytes"]), s["role"], s["node"], _shape(s)] for s in found["states"]])]
    lines += ["", f"{len(found['states'])} states, {found['state_bytes']} bytes"]
    return "\n".join(lines)


def _rate(wire: Mapping[str, Any]) -> str:
    return "" if "rate" not in wire else str(Fraction(*wire["rate"]))


def _delay(output: Mapping[str, Any]) -> str:
    if "delay" not in output:
        return ""
    return f"{output['delay']} frames" + (f" = {output['delay_ms']:g} ms" if "delay_ms" in output else "")


def _field(output: Mapping[str, Any]) -> str:
    if output["kind"] == "stream":
        return "unbounded" if output["receptive_field"] is None else f"{output['receptive_field']} base frames"
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
