"""Options of the tools that try random networks until their time is up."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence
from pathlib import Path


def arguments(description: str | None, out: str, kinds: Sequence[str] = ()) -> argparse.Namespace:
    """The command line: `seed` is the first one, drawn where it is not told, and printed; what fails goes to the
    folder `out`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="the first seed (another one every time unless told)")
    parser.add_argument("--count", type=int, default=10**9, help="at most so many networks")
    parser.add_argument("--size", type=int, default=None, help="layers of a network (random unless told)")
    parser.add_argument("--out", type=Path, default=Path(out))
    if kinds:
        parser.add_argument(
            "--kind", default="", choices=kinds, metavar="KIND", help=f"small networks of one kind: {', '.join(kinds)}"
        )
    args = parser.parse_args()
    args.seed = secrets.randbelow(10**8) if args.seed is None else args.seed
    print(f"from seed {args.seed} on, for {args.seconds:g} s", flush=True)
    return args
