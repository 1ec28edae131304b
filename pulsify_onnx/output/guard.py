"""Two processes: one does the work, the other watches it.

Libraries may end the process on a model that is not what they expect (onnxruntime aborts on some, a deep graph
overflows the stack of a parser). The watcher imports nothing, so nothing ends it: it turns the end of the worker into
one line and an exit code, removes what the worker had not finished, and finishes what it had begun to move into place.
A worker whose watcher is killed cleans up and ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from pulsify_onnx.output import atomic

CRASHES = {
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGFPE,
    signal.SIGILL,
    *([signal.SIGBUS] if hasattr(signal, "SIGBUS") else []),
}

_notes: dict[str, str] = {}
_channel: int | None = None
_moving = threading.Lock()


def run_guarded(work: Callable[[], None]) -> None:
    """Do `work` in a worker process; raises SystemExit with its exit code."""
    if not hasattr(os, "fork") or os.environ.get("PULSIFY_DEBUG") == "1":
        work()
        return
    hears, tells = os.pipe()
    alive, life = os.pipe()
    worker = os.fork()
    if worker:
        os.close(tells)
        os.close(alive)
        raise SystemExit(_watch(worker, hears))  # `life` closes with this process
    os.close(hears)
    os.close(life)
    _enter(tells, alive)
    code = 2
    try:
        work()
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)  # libraries are not asked to clean up, which some of them fail to do


def _enter(tells: int, alive: int) -> None:
    global _channel  # noqa: PLW0603 - of the worker process
    _channel = tells
    hush()
    _bound_memory()
    signal.signal(signal.SIGINT, _interrupted)
    threading.Thread(target=_end_with_watcher, args=(alive,), daemon=True).start()


def note(**notes: str) -> None:
    """Tell the watcher what is going on: ``doing``, and the ``folder`` being filled for ``target`` with its
    ``company``.
    """
    _notes.update(notes)
    if _channel is not None:
        with suppress(OSError):  # nobody watches any more
            os.write(_channel, json.dumps(notes).encode() + b"\n")


@contextmanager
def moving() -> Iterator[None]:
    """While files are moved into place: from here on they are all moved, by the watcher if need be."""
    with _moving:
        note(moving="begun")
        yield
        note(moving="done")


def _bound_memory() -> None:
    """A model that asks for more memory than there is gets an error, not the machine into trouble."""
    with suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft == resource.RLIM_INFINITY or soft > most:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def hush() -> None:
    """Libraries write to a standard error of their own, which nobody reads; Python keeps the real one."""
    sys.stderr.flush()
    sys.stderr = open(  # noqa: SIM115 - for as long as the process lives
        os.dup(2), "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1
    )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _interrupted(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: a terminal and the watcher may both pass it on
    raise KeyboardInterrupt


def _end_with_watcher(alive: int) -> None:
    os.read(alive, 1)
    with _moving:
        if "folder" in _notes:
            shutil.rmtree(_notes["folder"], ignore_errors=True)
        os._exit(2)


def _watch(worker: int, hears: int) -> int:
    def passed_on(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(worker, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, passed_on)
    with os.fdopen(hears, "rb") as lines:
        notes: dict[str, str] = {}
        for line in lines:
            notes.update(json.loads(line))
    _, status = os.waitpid(worker, 0)
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    return _ended(signal.Signals(os.WTERMSIG(status)), notes)


def _ended(by: signal.Signals, notes: dict[str, str]) -> int:
    """Settle what a dead worker left; the exit code."""
    written = f"{notes['target']} is written" if "moving" in notes else "nothing was written"
    if "folder" in notes and os.path.isdir(notes["folder"]):
        if notes.get("moving") == "begun":
            atomic.put_in_place(Path(notes["folder"]), Path(notes["target"]), notes["company"])
        shutil.rmtree(notes["folder"], ignore_errors=True)
    doing = notes.get("doing", "reading the model")
    if by in CRASHES:
        print(
            f"error: a library crashed ({by.name}) while {doing}: the model may not be valid; {written}",
            file=sys.stderr,
        )
    elif by == signal.SIGKILL:
        print(f"error: killed while {doing}, perhaps for want of memory; {written}", file=sys.stderr)
    else:
        return 128 + by
    return 1 if doing == VERIFYING else 2


VERIFYING = "verifying the stream"
