"""Files appear together, or not at all: a folder beside the target is filled, then its files are moved into place.

Every file is replaced as a whole, so nobody ever reads half of one. What several files can promise together:

- Weights outside of the model file have a name that only this model refers to (it comes from the sidecar), and are in
  place before the model: a model never reads the weights of another.
- The model is moved last. The sidecar is a copy of the model's metadata ``pulsify.spec``; whoever wants to be sure
  compares the two, and whoever reads the metadata only (as everything in this package does) never sees a mix.
- Moving is done under a lock of the folder: two writers at once give the files of one of them.
- A writer that is killed between two moves is finished by its watcher (`guard`), so it takes the end of both processes,
  or of the machine, in the same few microseconds to leave a new sidecar beside an old model.
- A staging folder that lost its owner is removed by the next writer to the same target.

A target that is a symbolic link is replaced, what it points to stays as it is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: two writers at once are not kept apart
    fcntl = None  # type: ignore[assignment]


def prefix(out: Path) -> str:
    """How the names of staging folders for `out` begin."""
    return f".{out.name[:60]}.pulsify-"


@contextmanager
def folder(out: Path) -> Iterator[Path]:
    """A staging folder beside `out`; what is still in it is removed at the end."""
    with ExitStack() as held:
        with _locked(out.parent):
            _sweep(out)
            aside = Path(tempfile.mkdtemp(prefix=prefix(out), dir=out.parent))
            held.callback(shutil.rmtree, aside, ignore_errors=True)
            held.enter_context(_locked(aside))
        yield aside


def put_in_place(aside: Path, out: Path, company: str) -> None:
    """Move all files of `aside` beside `out`, the model last; calling it again finishes what was begun.

    Older files of the name pattern `company`, which belong to the model that was replaced, are removed.
    """
    with _locked(out.parent):
        names = sorted((p.name for p in aside.iterdir()), key=lambda name: name == out.name)
        for name in names:
            os.replace(aside / name, out.parent / name)
        for old in out.parent.glob(company):
            if old.name not in names and names:
                old.unlink(missing_ok=True)
    sync(out.parent)


def sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system frees it when the process ends, however that happens."""
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sweep(out: Path) -> None:
    """Remove staging folders for `out` whose owner has died."""
    if fcntl is None:
        return
    for stale in [p for p in out.parent.iterdir() if p.name.startswith(prefix(out))]:
        with suppress(OSError):
            handle = os.open(stale, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stale, ignore_errors=True)
            finally:
                os.close(handle)
