"""What ``inspect`` and ``convert`` show on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from fractions import Fraction

from pulsify_onnx.errors import one_line, time_along
from pulsify_onnx.report.description import BlockedModel, Description, Explained, milliseconds
from pulsify_onnx.runtime.sidecar import (
    FixedLength,
    Head,
    Input,
    Output,
    PrefixOutput,
    Sidecar,
    StreamInput,
    StreamOutput,
    WindowOutput,
)

WIDTH = 100
MOST_NOTES = 10


def notes(fixed: FixedLength | None) -> list[str]:
    """Lines about the numbers that were kept in a model of one length: the first ones, and how many there are."""
    kept = () if fixed is None else fixed.kept
    if not kept:
        return []
    lines = [
        f"note: {len(kept)} number{'s' * (len(kept) != 1)} of this export kept as numbers, which may have followed "
        "its length; "
        "if one did, export the model with a dynamic length:"
    ]
    lines += [one_line(f'  {k.op_type} "{k.node}": {k.what} is {k.value:g}, also {k.why}') for k in kept[:MOST_NOTES]]
    return lines + ([f"  and {len(kept) - MOST_NOTES} more, which the sidecar lists"] if len(kept) > MOST_NOTES else [])


def looks_like_a_batch(found: Description | BlockedModel) -> list[str]:
    """A line where the stream runs along the first axis, as rows of a batch do that have nothing to do with each
    other.
    """
    if isinstance(found, BlockedModel):
        return []
    sidecar = found.sidecar
    axes = {i.name: i.axis for i in sidecar.stream_inputs}
    apart = all(isinstance(o, StreamOutput) and o.receptive_field == 1 for o in sidecar.outputs)
    if not axes or any(axes.values()) or sidecar.states or sidecar.head is not None or not apart:
        return []
    return [
        f"note: this is {time_along(axes)}, frame by frame, without states or lookahead, which looks like a batch; "
        "another axis is named with --axis"
    ]


def table(found: Description, frame_rate: float | None = None) -> str:
    """The report for a terminal of 100 columns; with times, where there are `frame_rate` base frames in a second."""
    sidecar = found.sidecar
    lines = [
        f"pulse {'dynamic' if sidecar.pulse is None else sidecar.pulse}, a multiple of {sidecar.pulse_multiple} "
        "base frames"
    ]
    if sidecar.length_multiple > 1:
        lines.append(f"streams have a multiple of {sidecar.length_multiple} base frames, of others nothing is promised")
    if sidecar.fixed_length is not None:
        count = len(sidecar.fixed_length.constants)
        lines.append(
            f"exported for {sidecar.fixed_length.frames} frames, streams any number: {count} "
            f"constant{'s' * (count != 1)} read anew"
        )
    lines += [
        "",
        *_columns(
            ["input", "kind", "axis", "rate", "dtype", "shape"],
            [[i.name, i.kind, _axis(i), _rate(i), i.dtype, _shape(i.shape)] for i in sidecar.inputs],
        ),
    ]
    lines += [
        "",
        *_columns(
            ["output", "kind", "axis", "rate", "delay", "lookahead", "receptive field", "shape"],
            [
                [
                    o.name,
                    o.kind,
                    _axis(o),
                    _rate(o),
                    _delay(o, sidecar, frame_rate),
                    _lookahead(found.explained.get(o.name)),
                    _field(o, sidecar),
                    _shape(o.shape),
                ]
                for o in sidecar.outputs
            ],
        ),
    ]
    for o in sidecar.stream_outputs:
        lines += _path(o, found.explained.get(o.name), frame_rate)
    if sidecar.head is not None:
        lines += _windows(sidecar.head)
    if sidecar.states:
        lines += [
            "",
            *_columns(
                ["state", "bytes", "role", "node", "shape"],
                [[s.input, str(s.bytes), s.role, s.node, _shape(s.shape)] for s in sidecar.states],
            ),
        ]
    lines += ["", f"{len(sidecar.states)} states, {sidecar.state_bytes} bytes"]
    if sidecar.shared_by:
        lines += textwrap.wrap(
            f"rows of a batch start and end together, because of {', '.join(sidecar.shared_by)}", WIDTH
        )
    return "\n".join(lines)


def _path(output: StreamOutput, explained: Explained | None, frame_rate: float | None) -> Iterator[str]:
    """Where the delay comes from: what each node adds, in base frames."""
    if output.delay <= 0 or explained is None or not explained.critical_path:
        return
    rows, total = [], Fraction(0)
    for link in explained.critical_path:
        added = Fraction(link.base_frames).limit_denominator(10**6)
        total += added
        ms = [f"{float(total / Fraction(frame_rate)) * 1000:g} ms"] if frame_rate else []
        rows.append(
            [
                f"  {_signed(added)}",
                str(total if total.denominator == 1 else float(total)),
                *ms,
                link.op_type,
                link.node,
            ]
        )
    yield ""
    yield f"delay of {output.name}, in base frames, and the nodes that make it:"
    yield from _columns(["  adds", "sum", *(["time"] if frame_rate else []), "operator", "node"], rows)


def _windows(head: Head) -> Iterator[str]:
    """What a value over a window is, and whether it is that of the model on these frames alone."""
    first = f"{head.full} frames" if head.full_after is None else f"{head.full_after} pulses"
    what = (
        f"{head.frames} frames that end {head.delay} before the pulse does"
        if head.delay
        else f"the last {head.frames} frames"
    )
    what = f"one result a pulse, over {what}, valid after {first}"
    if head.exact:
        yield from ("", f"{what}: what the model gives for these frames")
        return
    edges = ", ".join(
        f"the first {w.edges[0]} and last {w.edges[1]} of {w.frames} frames of {w.wire}"
        for w in head.windows
        if any(w.edges)
    )
    yield from (
        "",
        *textwrap.wrap(
            f"{what}: near to what the model gives for these frames alone, which {', '.join(head.padding)} would pad "
            f"where the stream has real neighbours; that changes {edges}",
            WIDTH,
        ),
    )


def _signed(x: Fraction) -> str:
    return f"{float(x):+g}"


def _lookahead(explained: Explained | None) -> str:
    return "" if explained is None else str(explained.lookahead)


def _axis(wire: Input | Output) -> str:
    return str(wire.axis) if isinstance(wire, (StreamInput, StreamOutput)) else ""


def _rate(wire: Input | Output) -> str:
    return str(wire.rate) if isinstance(wire, (StreamInput, StreamOutput)) else ""


def _delay(output: Output, sidecar: Sidecar, frame_rate: float | None) -> str:
    if isinstance(output, WindowOutput) and sidecar.head is not None:
        return f"{sidecar.head.delay} frames"
    if not isinstance(output, StreamOutput):
        return ""
    return f"{output.delay} frames" + (f" = {milliseconds(output, frame_rate):g} ms" if frame_rate else "")


def _field(output: Output, sidecar: Sidecar) -> str:
    if isinstance(output, WindowOutput) and sidecar.head is not None:
        return f"window of {sidecar.head.frames}"
    if isinstance(output, StreamOutput):
        return "unbounded" if output.receptive_field is None else str(output.receptive_field)
    if isinstance(output, PrefixOutput):
        return "all so far" + ("" if output.exact_every_pulse else ", exact after the flush")
    return ""


def _shape(shape: Sequence[int | str | None]) -> str:
    return "x".join("pulse" if d is None else str(d) for d in shape) or "scalar"


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the widest columns give way where it would be wider than the terminal."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths) > 12:
        widths[widths.index(max(widths))] -= 1
    return ["  ".join(_cut(cell, w).ljust(w) for cell, w in zip(row, widths)).rstrip() for row in [head, *rows]]


def _cut(text: str, width: int) -> str:
    return (
        text
        if len(text) <= width
        else text[: (width - 1) // 2] + "…" + text[len(text) - (width - 1 - (width - 1) // 2) :]
    )
