"""The command line: thin, it only calls the API. Nothing heavy is imported before a command really runs."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pulsify_onnx.cli_options import conversion, pulse_size
from pulsify_onnx.errors import CannotStream, PulsifyError, UnusableStream
from pulsify_onnx.output import guard
from pulsify_onnx.version import __version__

if TYPE_CHECKING:
    from pulsify_onnx.api import ConvertOptions
    from pulsify_onnx.verification.check import Verification


"""The options of a conversion but for the pulse."""


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pulsify-onnx")
def cli() -> None:
    """Turn a batch ONNX model into a streaming one, exactly.

    Exit status: 0 done, 1 verification found a difference, 2 wrong usage or an unusable file,
    3 the model cannot be streamed exactly, 4 the pulse does not fit.
    """


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="OUT.onnx",
    help="The pulsed model; its sidecar OUT.pulse.json is written beside it.",
)
@click.option(
    "--pulse",
    required=True,
    callback=pulse_size,
    metavar="N|dynamic",
    help="Base frames of one step, or 'dynamic': any multiple of the pulse multiple, another at every call.",
)
@conversion
@click.option(
    "--verify/--no-verify",
    "check",
    default=True,
    show_default=True,
    help="Compare stream and batch on random data first; a wrong result is not written.",
)
@JSON
def convert(model: Path, out: Path, options: ConvertOptions, check: bool, as_json: bool) -> None:
    """Convert MODEL.onnx to a streaming model."""
    from pulsify_onnx import api
    from pulsify_onnx.output import write
    from pulsify_onnx.report import tables

    write.check_target(out, model)
    pulsed = api.pulsify(model, options)
    doubts = [] if options.axes else tables.looks_like_a_batch(pulsed.description)
    for line in [*doubts, *tables.notes(pulsed.sidecar.fixed_length)]:
        click.echo(line, err=True)
    if options.states and len(pulsed.sidecar.source_states) == len(pulsed.sidecar.states):
        click.echo("note: this model already streams: all its state is its own", err=True)
    table = "" if as_json else tables.table(pulsed.description)
    found: Verification | None = None
    with write.staged(pulsed.model, pulsed.spec, out) as aside:
        if check:
            guard.note(doing=guard.VERIFYING)
            try:
                found = api.verify(model, aside.model)
            except UnusableStream as problem:
                _fail(
                    1,
                    f"the pulsed model cannot be run: the model may not be valid, else report it ({problem}); "
                    "nothing was written",
                )
            if not found.ok:
                _print_verification(found, as_json)
                _fail(found.exit_code, f"{found.message}; nothing was written")
        aside.commit()
    if as_json:
        _json(
            {
                "file": str(out),
                "sidecar": str(write.sidecar_path(out)),
                "verification": found.as_json() if found else None,
                "spec": pulsed.spec,
            }
        )
    else:
        click.echo(table)
        click.echo(f"\nverified: {found.message}" if found else "\nnot verified")
        click.echo(f"written:  {out}, {write.sidecar_path(out)}")


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--pulse", type=int, help="Base frames of one step (default: the smallest that fits).")
@conversion
@click.option(
    "--frame-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="HZ",
    help="Base frames per second: shows delays in milliseconds too.",
)
@click.option(
    "--plan",
    "with_plan",
    is_flag=True,
    help="Print the plan instead: a line a step, with its wires, delays, windows, states and histories.",
)
@JSON
def inspect(model: Path, options: ConvertOptions, frame_rate: float | None, with_plan: bool, as_json: bool) -> None:
    """Show delays, states and what blocks of a batch model; or the sidecar of a pulsed one."""
    from pulsify_onnx import api
    from pulsify_onnx.report import tables
    from pulsify_onnx.report.description import Description

    found = api.inspect(model, options)
    doubts = [] if options.axes or found.plan is None else tables.looks_like_a_batch(found.found)
    for line in [*doubts, *tables.notes(found.found.fixed_length)]:
        click.echo(line, err=True)
    if found.possible_states:
        states = " ".join(f"--state {name}={output}" for name, output in found.possible_states)
        click.echo(f"note: this model seems to have states of its own: {states}", err=True)
    plan = found.plan_lines() if with_plan and (found.plan is not None or not found.blockers) else None
    if as_json:
        _json({**found.to_json(frame_rate), **({} if plan is None else {"plan": plan})})
    elif plan is not None:
        click.echo("\n".join(plan))
    elif isinstance(found.found, Description):
        click.echo(tables.table(found.found, frame_rate))
    if found.blockers:
        raise CannotStream(found.blockers, found.axes)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="Base frames of the longest run (default: enough for delay and receptive field).",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Seed of the random data."
)
@click.option(
    "--rtol",
    type=click.FloatRange(min=0),
    metavar="X",
    help="Error allowed relative to the largest value (default by type).",
)
@click.option("--atol", type=click.FloatRange(min=0), metavar="X", help="Absolute error allowed (default by type).")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE",
    help="Recorded data of an input (.npy or .npz) instead of random data; or FILE.npz with all inputs.",
)
@click.option(
    "--trace", is_flag=True, help="Where the stream differs, name the first node that does, with both values."
)
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the stream differs, write the data that shows it to DIR.",
)
@JSON
def verify(
    model: Path,
    out: Path,
    frames: int | None,
    seed: int,
    rtol: float | None,
    atol: float | None,
    inputs: Sequence[str],
    trace: bool,
    save: Path | None,
    as_json: bool,
) -> None:
    """Compare the stream of OUT.onnx with the batch model MODEL.onnx on random data."""
    from pulsify_onnx import api
    from pulsify_onnx.verification import recordings

    guard.note(doing=guard.VERIFYING)
    found = api.verify(
        model,
        out,
        frames=frames,
        seed=seed,
        rtol=rtol,
        atol=atol,
        recorded=recordings.read_recordings(inputs),
        measure=True,
    )
    first = api.trace(model, out, found, rtol=rtol, atol=atol) if trace else None
    report = {**found.as_json(), **({"trace": first.as_json() if first else None} if trace else {})}
    if save is not None and found.case is not None:
        recordings.write_case(save, found.case.inputs, found.case.batch, found.case.stream, report)
    if as_json:
        _json(report)
    elif found.ok:
        _print_verification(found, as_json)
    elif trace and found.case is not None:
        click.echo(str(first) if first else "all tensors that can be compared agree")
    for name, frames_late in found.late.items():
        click.echo(f"note: output {name} comes {frames_late} frames later than the data that it needs", err=True)
    if not found.ok:
        _fail(found.exit_code, found.message)


def _json(document: Mapping[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _print_verification(found: Verification, as_json: bool) -> None:
    if as_json:
        _json(found.as_json())
    elif found.ok:
        click.echo(f"{found.message} (lengths {', '.join(map(str, found.lengths))})")


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    raise SystemExit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit codes 0 to 4, and no traceback whatever the input. Without `arguments`, in a process that is
    guarded.
    """
    if arguments is None:
        guard.run_guarded(lambda: main(sys.argv[1:]))
        return
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)  # it tells what it finds odd; the answer here is one line
    debug = os.environ.get("PULSIFY_DEBUG") == "1"
    if not debug:
        warnings.simplefilter("ignore")  # numpy's, about values of a model that are odd
    try:
        cli.main(args=list(arguments), prog_name="pulsify-onnx", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as shown:
        shown.show()
        raise SystemExit(2) from None
    except click.ClickException as problem:
        problem.show()
        raise SystemExit(2) from None
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    except CannotStream as problem:
        for blocker in problem.blockers:
            click.echo(f"error: {blocker}", err=True)
        if problem.read:
            click.echo(problem.read, err=True)
        raise SystemExit(problem.exit_code) from None
    except PulsifyError as problem:
        click.echo(f"error: {problem}", err=True)
        raise SystemExit(problem.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(2) from None
    except MemoryError:
        click.echo("error: out of memory", err=True)
        raise SystemExit(2) from None
    except Exception as problem:
        if debug:
            raise
        text = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
        click.echo(
            f"error: this is a bug of pulsify-onnx, please report it ({text}); PULSIFY_DEBUG=1 shows where it happened",
            err=True,
        )
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
