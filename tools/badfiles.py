"""Attack the command line with broken models: bytes and fields of small models are changed at random.

Whatever the file, the answer is an exit code from 0 to 4, one clear line, no traceback, and nothing written but by
success.
Cases run in worker processes that are ended when they take too much time or memory. Each case has a number; it says all
that is random about it. Exit status 1 on a failure; the failing files are kept.

    python -m tools.badfiles --count 10000
    python -m tools.badfiles --first 4711 --count 1 --verbose
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from testing import ROOT
from testing.broken import write

SECONDS = 60
"""A case that takes longer is a failure."""

MEGABYTES = 2500
"""A process that has needed more is a failure: twice what the largest tensor takes that `verify` tries."""


@dataclass
class Found:
    """What became of a case: ``problem`` is empty where the answer was fit to be read by a stranger."""

    case: int
    code: int
    line: str
    problem: str
    seconds: float
    megabytes: float


def judged(
    case: int, folder: Path, before: set[str], code: int, out: str, err: str, seconds: float, megabytes: float
) -> Found:
    """Hold the answer of the tool against what it promises."""
    lines = [line for line in err.splitlines() if line]
    left = {p.name for p in folder.iterdir()} - before
    allowed = {"out.onnx", "out.pulse.json"} if code == 0 else set()
    problem = ""
    if code not in (0, 1, 2, 3, 4):
        problem = f"exit code {code}"
    elif "Traceback" in err or "is a bug" in err:
        problem = "a bug shows"
    elif code in (1, 2, 4) and len([line for line in lines if not line.startswith("  ")]) != 1 and "--axis" not in err:
        problem = f"{len(lines)} lines of error"
    elif code == 3 and not all(
        line.startswith(("error: cannot stream", "  why:", "  hint:", "read with time along")) for line in lines
    ):
        problem = "a refusal of odd form"
    elif code == 1 and "differs from the batch model" in err:
        problem = "a wrong stream"
    elif {name for name in left if not name.startswith("out.onnx.")} - allowed or (code and left):
        problem = f"files left behind: {sorted(left)}"
    elif seconds > SECONDS:
        problem = f"took {seconds:.0f} s"
    elif megabytes > MEGABYTES:
        problem = f"needed {megabytes:.0f} MB"
    return Found(case, code, lines[0] if lines else "", problem, seconds, megabytes)


def attack(case: int, folder: Path) -> Found:
    """Run a case in this process, as the worker of the tool would."""
    from pulsify_onnx import cli
    from pulsify_onnx.output import guard

    arguments = write(case, folder)
    before = {p.name for p in folder.iterdir()}
    saved = os.dup(1), os.dup(2)
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        real = sys.stderr
        guard.hush()
        try:
            cli.main(arguments)
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 0
        except BaseException as problem:
            code = -1
            print(f"Traceback: {problem!r}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.close()
            sys.stderr = real
            for k in (0, 1):
                os.dup2(saved[k], k + 1)
                os.close(saved[k])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return judged(case, folder, before, code, texts[0], texts[1], time.monotonic() - start, megabytes)


def from_outside(case: int, folder: Path) -> Found:
    """Run a case as a user would: what ends the worker of the tool must not end the tool."""
    arguments = write(case, folder)
    before = {p.name for p in folder.iterdir()}
    start = time.monotonic()
    try:
        done = subprocess.run(
            check=False,
            args=[sys.executable, "-m", "pulsify_onnx", *arguments],
            capture_output=True,
            timeout=SECONDS,
            preexec_fn=limited,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    except subprocess.TimeoutExpired:
        return Found(case, -1, "", f"takes more than {SECONDS} s", SECONDS, 0)
    texts = [text.decode(errors="replace") for text in (done.stdout, done.stderr)]
    return judged(case, folder, before, done.returncode, texts[0], texts[1], time.monotonic() - start, 0)


def limited() -> None:
    """Bound the memory of this process."""
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))


def work(cases: range) -> None:
    """A worker: a line of JSON for every case."""
    limited()
    for case in cases:
        folder = Path(tempfile.mkdtemp(prefix=f"badfile-{case}-"))
        try:
            found = attack(case, folder)
            print(json.dumps(asdict(found)), flush=True)
            if found.megabytes > MEGABYTES:  # or the cases after it would be blamed
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def run(cases: range, processes: int = 2) -> Iterator[Found]:
    """All cases, spread over worker processes; one that ends in a case is replaced, and the case is tried from
    outside.
    """
    waiting = [range(cases.start + k, cases.stop, cases.step * processes) for k in range(processes)]
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting:
                share = waiting.pop()
                if share:
                    arguments = [
                        sys.executable,
                        "-m",
                        "tools.badfiles",
                        "--worker",
                        json.dumps([share.start, share.stop, share.step]),
                    ]
                    worker = subprocess.Popen(
                        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, cwd=ROOT
                    )
                    assert worker.stdout is not None
                    selector.register(worker.stdout, selectors.EVENT_READ, [worker, share, time.monotonic()])
            selector.select(timeout=1)
            for key in [*selector.get_map().values()]:
                worker, share, since = key.data
                ready = {k.fileobj for k, _ in selector.select(timeout=0)}
                line = worker.stdout.readline() if key.fileobj in ready else None
                if line:
                    yield Found(**json.loads(line))
                    key.data[1], key.data[2] = share[1:], time.monotonic()
                elif line is not None or time.monotonic() - since > SECONDS + 20:
                    worker.kill()
                    worker.wait()
                    selector.unregister(key.fileobj)
                    worker.stdout.close()
                    if share:
                        folder = Path(tempfile.mkdtemp(prefix=f"badfile-{share[0]}-"))
                        yield from_outside(share[0], folder)
                        shutil.rmtree(folder, ignore_errors=True)
                        waiting.append(share[1:])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, default=Path("badfiles"), help="folder for the files of failing cases")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(range(*json.loads(args.worker)))
        return 0
    codes: Counter[int] = Counter()
    failed, slowest = 0, 0.0
    for found in run(range(args.first, args.first + args.count)):
        codes[found.code] += 1
        slowest = max(slowest, found.seconds)
        if args.verbose:
            print(found.case, found.code, f"{found.seconds:.1f}s", found.line[:160], flush=True)
        if found.problem:
            failed += 1
            print(f"case {found.case}: {found.problem} (exit code {found.code}): {found.line[:400]}", flush=True)
            folder = args.keep / str(found.case)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "command.txt").write_text(" ".join(write(found.case, folder)))
    print(
        f"{sum(codes.values())} files, {failed} failed; exit codes {dict(sorted(codes.items()))}; slowest "
        f"{slowest:.1f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
