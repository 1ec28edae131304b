"""Pages of the documentation that are made: what stands between two markers, and the command that puts it there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


def between(text: str, start: str, end: str, made: str) -> str:
    """`text` with what is `made` between its markers `start` and `end`; unchanged where it has none."""
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    return f"{before}{start}\n{made}\n{end}{after}" if found and closed else text


def command(arguments: Iterable[str], module: str, made: Callable[[], str], written: Callable[[str], str]) -> None:
    """Print what is `made`, or (``--write FILE``) write it into a page. Raises SystemExit for other arguments."""
    words = list(arguments)
    if words[:1] == ["--write"] and len(words) == 2:
        path = Path(words[1])
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
    elif not words:
        print(made())
    else:
        raise SystemExit(f"usage: python -m {module} [--write FILE]")
