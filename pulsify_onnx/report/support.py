"""The table of supported operators, made from the rules' docstrings: what streams, and what is refused and why.

``python -m pulsify_onnx.report.support`` prints it; ``--write docs/operators.md`` replaces what stands between the
markers there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from pulsify_onnx.report.pages import between, command
from pulsify_onnx.rules.kit.registry import RULES, Rule
from pulsify_onnx.rules.kit.shape_arithmetic import FOLDED

START, END = "<!-- support table -->", "<!-- end of support table -->"


@dataclass(frozen=True)
class Row:
    """Operators that share a rule, what streams through them and what is refused."""

    operators: tuple[str, ...]
    streams: str
    refuses: str


def rows() -> list[Row]:
    """One row per rule, sorted by the first of its operators."""
    groups: dict[object, list[Rule]] = {}
    for rule in RULES.values():
        groups.setdefault(rule.function.__doc__, []).append(rule)
    found = [Row(tuple(sorted(map(_title, rules))), *_parts(rules[0])) for rules in groups.values()]
    answered = {name for domain, name in RULES if not domain}
    texts: dict[str, list[str]] = {}
    for name, text in FOLDED.items():
        if name not in answered:
            texts.setdefault(text, []).append(name)
    found += [Row(tuple(names), text, "") for text, names in texts.items()]
    return sorted(found, key=lambda row: row.operators)


def _title(rule: Rule) -> str:
    return f"{rule.domain}.{rule.op_type}" if rule.domain else rule.op_type


def _parts(rule: Rule) -> tuple[str, str]:
    """(what streams, what is refused) of a rule's docstring."""
    text = " ".join((rule.function.__doc__ or "").split())
    kept, _, refused = text.partition("Refuses:")
    streams = " ".join(kept.split()).removeprefix("Streams:").strip()
    return streams, refused.strip()


def operators_table() -> str:
    """The table in Markdown."""
    lines = ["| operators | what streams | what is refused |", "|---|---|---|"]
    lines += [f"| {', '.join(row.operators)} | {_cell(row.streams)} | {_cell(row.refuses)} |" for row in rows()]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def written(text: str) -> str:
    """`text` with the table between its markers; unchanged where it has none."""
    return between(text, START, END, operators_table())


def main(arguments: Iterable[str]) -> None:
    """Print the table, or write it into a file."""
    command(arguments, "pulsify_onnx.report.support", operators_table, written)


if __name__ == "__main__":
    main(sys.argv[1:])
