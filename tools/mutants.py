"""Mutation test of the tool itself: it is broken on purpose, in one place at a time, and the tests nearest to the place
must see it.

Mutants are drawn from the syntax tree of the files (comparisons turned, numbers one off, ``and`` for ``or``, a part of
a sum, a ``max`` or
a call left out, arguments swapped, statements dropped), the same for one seed. Survivors are printed: each is a test
that is missing, or
a change that changes nothing. With ``--named`` the faults by name instead, which ``verify`` must see too; exit status 1
where one survives.

    python -m tools.mutants [FILE …] [--count N] [--seed S] [--seconds T]
    python -m tools.mutants --named [--only NAME]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import named_mutants
from tools.mutation_tree import PARTS, ROOT, SLOW, Tree, nearest
from tools.mutations import Mutation, mutations

PACKAGE = "pulsify_onnx"
FILES = (
    "algebra/windows.py",
    "algebra/padding.py",
    "algebra/border.py",
    "rules/pool.py",
    "rules/conv.py",
    "rules/slicing.py",
    "rules/last.py",
    "lowering/batch/rows.py",
    "lowering/batch/lifted.py",
    "lowering/batch/alignment.py",
    "lowering/writer.py",
    "lowering/older_forms.py",
    "report/sidecar.py",
    "algebra/length.py",
    "lowering/lower.py",
    "lowering/states.py",
    "algebra/delay.py",
    "passes/schedule.py",
    "passes/histories.py",
    "algebra/query_key.py",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation of a file: whether the tests saw it, and which."""

    file: str
    mutation: Mutation
    caught: bool
    by: str


def drawn(root: Path, package: str, files: Sequence[str], count: int, seed: int) -> list[tuple[str, Mutation]]:
    """So many mutations of the files, as many of each while there are some, in an order of their own."""
    rng = random.Random(seed)
    piles = {file: mutations((root / package / file).read_text(encoding="utf-8")) for file in files}
    for pile in piles.values():
        rng.shuffle(pile)
    rounds = [
        (file, pile[k])
        for k in range(max(map(len, piles.values()), default=0))
        for file, pile in piles.items()
        if k < len(pile)
    ]
    return rounds[:count]


def outcomes(
    root: Path,
    package: str,
    chosen: Sequence[tuple[str, Mutation]],
    *,
    seconds: float = 1e9,
    limit: float = 120,
    most: int = 5,
    parts: Sequence[str] = PARTS,
) -> Iterator[Outcome]:
    """Each mutation with what the tests say, until the time is up; tests that take longer than `limit` have seen it."""
    end = time.monotonic() + seconds
    tests = {file: nearest(root, package, file, most) for file in {file for file, _ in chosen}}
    with Tree(root, parts) as tree:
        for file, mutation in chosen:
            if time.monotonic() > end:
                return
            path = f"{package}/{file}"
            text = tree.text(path)
            tree.change(path, mutation.applied(text))
            code, by = tree.tests(tests[file], limit)
            tree.change(path, text)
            yield Outcome(file, mutation, code in (1, 2, SLOW) or code < 0, by)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=FILES, help="files of the package")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--limit", type=float, default=120, help="seconds for the tests of one mutant")
    parser.add_argument("--tests", type=int, default=5, help="test files for one mutant")
    parser.add_argument("--named", action="store_true", help="the faults by name")
    parser.add_argument("--only", help="part of the names of the faults to try")
    parser.add_argument("--jobs", type=int, default=2, help="faults by name at a time")
    args = parser.parse_args()
    if args.named or args.only:
        return named_mutants.run(args.only, args.jobs)
    tried = survivors = 0
    for found in outcomes(
        ROOT,
        PACKAGE,
        drawn(ROOT, PACKAGE, args.files, args.count, args.seed),
        seconds=args.seconds,
        limit=args.limit,
        most=args.tests,
    ):
        tried, survivors = tried + 1, survivors + (not found.caught)
        print(
            f"{'caught  ' if found.caught else 'SURVIVES'} "
            f"{found.file}:{found.mutation.what}{f'  [{found.by}]' if found.by else ''}",
            flush=True,
        )
    print(f"{tried} mutants from seed {args.seed}, {survivors} survive the nearest tests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
