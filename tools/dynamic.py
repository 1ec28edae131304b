"""Converts models with ``--pulse dynamic`` by the command line, which then streams them in pulses of random sizes and
compares.

    python -m tools.dynamic FOLDER [--rows] [--cli pulsify-onnx] [--seconds 150] [--seed N]

Models of FOLDER are taken in random order until the time is up, each with and without an end of stream. A model of a
fixed length
whose axis can be read in more than one way is taken along the first one offered. With ``--rows`` they get a batch too,
of 3 and of any
number of rows, on which streams start, are cut off, start again and end at random, each compared with a batch run of
its own.
Streaming exactly (exit status 0) and a refusal (3) are both right; anything else fails.
"""

from __future__ import annotations

import argparse
import collections
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RIGHT = {0: "exact", 3: "refused"}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """The finished command with what it printed."""
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def main() -> None:
    """Exit status 1 if any model is neither exact nor refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--cli", default="pulsify-onnx")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    models = sorted(args.folder.rglob("*.onnx"))
    random.Random(args.seed).shuffle(models)
    counts: collections.Counter[str] = collections.Counter()
    wrong, end = 0, time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            for more, batch in (([], "dynamic"), (["--end-of-stream"], "3")):
                if time.monotonic() > end:
                    break
                command = [
                    *args.cli.split(),
                    "convert",
                    str(model),
                    "-o",
                    f"{folder}/out.onnx",
                    "--pulse",
                    "dynamic",
                    "--verify",
                    "--json",
                    *more,
                ]
                command += ["--batch", batch] if args.rows else []
                done = run(command)
                if done.returncode == 2 and (offered := re.search(r"choose one of\s+(--axis \S+)", done.stderr)):
                    done = run([*command, *offered[1].split()])
                counts[RIGHT.get(done.returncode, "wrong")] += 1
                if done.returncode not in RIGHT:
                    wrong += 1
                    print(
                        f"{model.relative_to(args.folder)} {' '.join(more)}: exit status "
                        f"{done.returncode}\n{done.stderr.strip()}"
                    )
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "no models")
    sys.exit(1 if wrong or not counts else 0)


if __name__ == "__main__":
    main()
