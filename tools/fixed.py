"""Hunt for wrong readings of exports with a fixed length: random networks, exported for one length as any tool might
leave them.

Each export must stream as the dynamic network does at other lengths, or be refused. Prints a count of what ran and why
the rest was refused; what fails is written to a folder, with its dynamic twin. Exit status 1 on failure.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter

import onnx

from testing.twins import attempt, twin_network
from tools.hunt import arguments


def main() -> int:
    """Command line."""
    args = arguments(__doc__, "build/fixed-failures")
    first = args.seed
    end = time.monotonic() + args.seconds
    counts, refusals, seed = Counter[str](), Counter[str](), first
    while time.monotonic() < end and seed - first < args.count:
        net = twin_network(seed, args.size)
        what, told = attempt(net, seed)
        counts[what] += 1
        if what == "refused":
            refusals[re.sub(r"'[^']*'", "…", re.sub(r"\d+", "#", told))[:140]] += 1
        elif what in ("WRONG", "crash"):
            args.out.mkdir(parents=True, exist_ok=True)
            onnx.save(net.model, args.out / f"seed_{seed}.onnx")
            print(f"seed {seed}: {what}: {told}", flush=True)
        seed += 1
    print(
        f"{seed - first} networks from seed {first}: " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
    )
    for reason, count in refusals.most_common(20):
        print(f"  {count:4} {reason}")
    return 1 if counts["WRONG"] or counts["crash"] else 0


if __name__ == "__main__":
    sys.exit(main())
