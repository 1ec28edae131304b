"""The table of rules, and the decorator that fills it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Node

RuleFunction = Callable[[Node], Outcome]

CONTRIB = "com.microsoft"
"""onnxruntime's own operators; they have no versions but 1."""


@dataclass(frozen=True)
class Rule:
    """A rule and the schema versions it was written for (None: any, for operators that never stream)."""

    function: RuleFunction
    op_type: str
    domain: str
    versions: tuple[int, ...] | None

    @property
    def summary(self) -> str:
        """First paragraph of the rule's docstring: its row in the support table."""
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())


RULES: dict[tuple[str, str], Rule] = {}


def rule(*names: str, versions: tuple[int, ...] | None, domain: str = "") -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for operators `names` of `domain`, written for the schema `versions` given."""

    def register(function: RuleFunction) -> RuleFunction:
        for name in names:
            if (domain, name) in RULES:
                raise ValueError(f"two rules for {domain}:{name}")
            RULES[domain, name] = Rule(function, name, domain, versions)
        return function

    return register


def lookup(node: Node) -> RuleFunction:
    """The rule of a node; refuses unknown operators and versions."""
    found = RULES.get((node.domain, node.op_type))
    title = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    if found is None:
        refuse(
            f"no rule knows the operator {title}, so nothing can be said about what it does along the stream",
            hint="export it as standard operators, or write a rule for it",
        )
    if found.versions is not None and node.since not in found.versions:
        refuse(
            f"version {node.since} of {title} is not one that its rule was written for: "
            f"{', '.join(map(str, found.versions))}",
            hint="export with another opset, or update pulsify-onnx",
        )
    return found.function


def never(node: Node) -> None:
    """Raise the reason of an operator that never streams; nothing for all others."""
    found = RULES.get((node.domain, node.op_type))
    if found is not None and found.versions is None:
        found.function(node)
