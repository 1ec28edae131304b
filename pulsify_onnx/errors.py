"""Everything that can go wrong, and what the command line makes of it.

    PulsifyError                    one clear line for a person, and an exit code
    ├── VerificationFailed    1     the stream differs from the batch model
    ├── UsageError            2     wrong usage, or a file that is missing, not ONNX or not valid
    │   ├── InvalidModel
    │   │   └── UnusableStream      a pulsed model that onnxruntime does not load
    │   └── AmbiguousAxis           several readings of the stream axis; lists them
    ├── CannotStream          3     names every blocking node
    └── PulseDoesNotFit       4     names the smallest pulse that does

``Refusal`` is what a rule raises; it knows no node. The walker attaches one and goes on, so that one run
names every blocker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn


class PulsifyError(Exception):
    """Base of all errors that a user is meant to read."""

    exit_code = 2


class UsageError(PulsifyError):
    """Wrong usage, or an input file that cannot be used."""


class InvalidModel(UsageError):
    """The file is missing, not ONNX, or not valid ONNX."""


class UnusableStream(InvalidModel):
    """A pulsed model that onnxruntime does not load, though it loads the batch model."""


class AmbiguousAxis(UsageError):
    """More than one reading of the stream axis is possible, or only one that may be no time; ``options`` are the
    ``--axis`` choices.
    """

    def __init__(self, message: str, options: tuple[str, ...]):
        super().__init__(message)
        self.options = options


class VerificationFailed(PulsifyError):
    """The stream differs from the batch model."""

    exit_code = 1


@dataclass(frozen=True)
class Blocker:
    """A node that cannot stream, why, and what a person can do about it."""

    node: str
    op_type: str
    reason: str
    hint: str
    wire: str = ""

    def as_json(self) -> dict[str, str]:
        """The four keys of a blocker in ``inspect --json``."""
        return {"node": self.node, "op_type": self.op_type, "reason": self.reason, "hint": self.hint}

    def __str__(self) -> str:
        where = f" (input {self.wire})" if self.wire else ""
        return (
            one_line(f'cannot stream {self.op_type} "{self.node}"{where}') + "\n"
            f"  why:  {one_line(self.reason)}\n  hint: {one_line(self.hint)}"
        )


def one_line(text: str) -> str:
    """`text` with escapes for what would break a line or move the cursor: names in a file may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def time_along(axes: Mapping[str, int]) -> str:
    """The stream axis of every input, in words."""
    return "time along " + ", ".join(f"axis {axis} of {one_line(name)}" for name, axis in axes.items())


class CannotStream(PulsifyError):
    """The model cannot be streamed exactly; ``blockers`` has every root cause, with time along the ``axes`` of the
    inputs, where that is known.
    """

    exit_code = 3

    def __init__(self, blockers: tuple[Blocker, ...], axes: Mapping[str, int] | None = None):
        super().__init__("\n".join(map(str, blockers)))
        self.blockers = blockers
        self.axes = dict(axes or {})

    @property
    def read(self) -> str:
        """How the model was read that can't be streamed; empty where it was not."""
        return f"read with {time_along(self.axes)}" if self.axes else ""


class PulseDoesNotFit(PulsifyError):
    """The requested pulse does not fit; ``smallest`` is the smallest that does."""

    exit_code = 4

    def __init__(self, pulse: int, multiple: int, why: str):
        super().__init__(
            f"pulse {pulse} does not fit: {why}; every pulse must be a multiple of {multiple}, "
            f"the smallest is {multiple}"
        )
        self.smallest = multiple


class BrokenRule(AssertionError):
    """A bug: what a stage gave does not keep a rule that all that it gives must keep."""

    def __init__(self, rule: str, stage: str, problem: str):
        super().__init__(f'after {stage}, the rule "{rule}" is broken: {problem}')
        self.rule = rule
        self.stage = stage


class Refusal(Exception):
    """Raised by a rule: ``reason`` says what needs the future or the whole stream, ``hint`` what to do.

    ``blame``: the blocker, where it is another node.
    """

    def __init__(self, reason: str, hint: str, blame: Blocker | None = None):
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.blame = blame


def refuse(reason: str, hint: str) -> NoReturn:
    """Raise a `Refusal`."""
    raise Refusal(reason, hint)


UNEXPECTED = "its rule met something it was not written for"
"""How the reason of a refusal starts where a rule failed rather than refused."""


def unexpected(problem: Exception) -> Refusal:
    """What becomes of an exception that no rule raises: a refusal all the same, since the model is what led to it."""
    return Refusal(
        f"{UNEXPECTED} ({type(problem).__name__}: {problem})"[:300],
        hint="check the node with onnx.checker; if it is valid, report it",
    )
