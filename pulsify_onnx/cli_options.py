"""Options of a conversion on the command line, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pulsify_onnx.errors import UsageError

if TYPE_CHECKING:
    pass


def pulse_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """A number of base frames, or ``dynamic`` (None)."""
    if value == "dynamic":
        return None
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number of frames nor 'dynamic'", ctx, param) from None


def _batch(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """A number of rows, or ``dynamic``."""
    if value is None or value == "dynamic":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number of rows nor 'dynamic'", ctx, param)
    return int(value)


CONVERSION = (
    click.option(
        "--axis",
        "axes",
        multiple=True,
        metavar="INPUT=AXIS",
        help="Stream axis of an input: an index, a negative index, or the name of a dimension. Only needed where "
        "it can't be told.",
    ),
    click.option(
        "--end-of-stream",
        is_flag=True,
        help="Be exact to the last frame, for streams of any length: adds the input valid_frames.",
    ),
    click.option(
        "--left-context",
        type=int,
        metavar="N",
        help="Cut attention over the whole past to the last N frames: another network, and the sidecar says so.",
    ),
    click.option(
        "--state",
        "states",
        multiple=True,
        metavar="INPUT=OUTPUT",
        help="The caller feeds OUTPUT back as INPUT: a state that the model already has. It keeps its names.",
    ),
    click.option(
        "--allow-advance",
        is_flag=True,
        help="Give frames before their time where the network can (frame t+1 from frames up to t): a delay may be "
        "negative.",
    ),
    click.option(
        "--batch",
        callback=_batch,
        metavar="N|dynamic",
        help="Give a model exported with a batch of 1 a batch of N (or any number of) streams, each starting and "
        "ending on its own.",
    ),
    click.option(
        "--head",
        metavar="window[=FRAMES]",
        help="A sliding classifier: what needs a whole clip (a Flatten into Dense, a global pool) runs on the last "
        "window of frames, as many as "
        "the model was exported for, and gives one result a pulse. FRAMES: for a model of any length.",
    ),
    click.option(
        "--reading",
        "readings",
        multiple=True,
        metavar="NODE=number|fill|share",
        help="Answer a refusal that asks what a number of an export of one length means: a number, what fills up "
        "to a multiple, or what "
        "follows the length.",
    ),
)


def conversion(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of a conversion, which it gets as one `ConvertOptions`."""

    @wraps(command)
    def run(
        pulse: int | None,
        axes: Sequence[str],
        end_of_stream: bool,
        left_context: int | None,
        states: Sequence[str],
        allow_advance: bool,
        batch: int | str | None,
        head: str | None,
        readings: Sequence[str],
        **others: Any,
    ) -> None:
        from pulsify_onnx.api import ConvertOptions

        command(
            options=ConvertOptions(
                pulse,
                _axes(axes),
                end_of_stream,
                left_context,
                _states(states),
                allow_advance,
                batch,
                head,
                _readings(readings),
            ),
            **others,
        )

    for option in reversed(CONVERSION):
        run = option(run)
    return run


def _pairs(option: str, given: Sequence[str], form: str, last: bool = False) -> dict[str, str]:
    """What an option that is written as `form`, INPUT=…, was given for each input; split at the `last` '=' or at the
    first.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.rpartition("=") if last else text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{option} {text}: write it as {form}")
        if name in found:
            raise UsageError(f"{option} {name}: given twice")
        found[name] = value
    return found


def _axes(given: Sequence[str]) -> dict[str, int | str]:
    """``INPUT=AXIS`` options; names of inputs may have a '=' themselves, so the last one splits."""
    return {
        name: int(axis) if axis.lstrip("-").isdecimal() else axis
        for name, axis in _pairs("--axis", given, "INPUT=AXIS", last=True).items()
    }


def _states(given: Sequence[str]) -> dict[str, str]:
    """``INPUT=OUTPUT`` options."""
    return _pairs("--state", given, "INPUT=OUTPUT")


def _readings(given: Sequence[str]) -> dict[str, str]:
    """``NODE=READING`` options; names of nodes may have a '=' themselves, so the last one splits."""
    return _pairs("--reading", given, "NODE=number, NODE=fill or NODE=share", last=True)
