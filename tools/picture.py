"""The rooms of the package as `docs/design.md` shows them, made from the table of ``tests/test_architecture.py``, which
the imports are held to.

    python -m tools.picture [--write]

A room stands on the floor above the highest one that it imports, and an arrow that follows from others is left out.
What lives in a room is the docstring of its ``__init__``. Without ``--write`` the page is printed as it should be.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "design.md"
PACKAGE = ROOT / "pulsify_onnx"
START, END = "<!-- rooms -->", "<!-- end of rooms -->"

Table = Mapping[str, str]


def tables() -> tuple[Table, set[str]]:
    """Which room may import which, and what all may, as the test of the architecture has them."""
    found: dict[str, object] = {}
    for node in ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in ("MAY_IMPORT", "BASE")
        ):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    table, base = found["MAY_IMPORT"], found["BASE"]
    assert isinstance(table, dict) and isinstance(base, set)
    return {room: others for room, others in table.items() if room not in base and not room.startswith("__")}, base


def below(table: Table, room: str) -> set[str]:
    """All rooms that a room reaches."""
    return {found for other in table[room].split() for found in (other, *below(table, other))}


def floor(table: Table, room: str) -> int:
    """How many rooms stand below one another under a room."""
    return max((floor(table, other) + 1 for other in table[room].split()), default=0)


def arrows(table: Table, room: str) -> list[str]:
    """The rooms that a room imports, without those that it reaches by way of another one."""
    own = table[room].split()
    return [other for other in own if not any(other in below(table, by) for by in own)]


def picture(table: Table) -> str:
    """The rooms as a mermaid graph, the door above."""
    floors: dict[int, list[str]] = {}
    for room in table:
        floors.setdefault(floor(table, room), []).append(room)
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"    {room}[{room}]" for level in sorted(floors, reverse=True) for room in floors[level]]
    lines += [f"    {room} --> {other}" for room in table for other in arrows(table, room)]
    return "\n".join([*lines, "```"])


def lives_there(room: str) -> str:
    """The first paragraph of what a room says of itself."""
    path = PACKAGE / f"{room}.py"
    text = (
        ast.get_docstring(
            ast.parse((path if path.exists() else PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
        )
        or ""
    )
    return " ".join(text.split("\n\n")[0].split())


def rooms(table: Table, base: set[str]) -> str:
    """The rooms and what lives there, as a table."""
    lines = ["| room | what lives there | may import |", "|---|---|---|"]
    lines += [f"| `{room}` | {lives_there(room)} | {table[room].replace(' ', ', ') or '–'} |" for room in table]
    return "\n".join([*lines, "", f"Every room may import {', '.join(f'`{room}`' for room in sorted(base))} too."])


def written(text: str) -> str:
    """The page, with the picture and the table between its markers."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the page has no {START} … {END}")
    table, base = tables()
    return f"{before}{START}\n{picture(table)}\n\n{rooms(table, base)}\n{END}{after}"


def main() -> None:
    """Print the page, or write it."""
    text = written(PAGE.read_text(encoding="utf-8"))
    if "--write" in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
