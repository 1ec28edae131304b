"""What other rooms may know of an operator: its rule declares it, and they ask for it by name of the property."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

import onnx_ir as ir

from pulsify_onnx.rules.kit.registry import RULES, RuleFunction


class Trait(Enum):
    """A property of operators; some have a value that says more."""

    FORM = "its result is a part of its first input, or another form of it"
    AXIS = "which axis of its first input an axis of its result is: a function of the attributes, the axis and the rank"
    SAME_ORDER = "its result has the elements of its first input in their order"
    PERMUTES = "its result has the elements of its first input with the axes in another order"
    FRAMES_APART = "every frame of its result is one of its first input, in order"
    IDENTITY = "its result is its input"
    RESHAPES = "its second input is the shape of its result, 0 keeps what is there"
    EXPANDS = "its second input is the shape that its first is broadcast to"
    REPEATS = "it repeats its first input, as often as others say"
    FILLS = "its result is one value again and again"
    SLICES = "it takes a range of its first input"
    SPLITS = "its results are the parts of its first input"
    GATHERS = "it takes entries of its first input by index"
    JOINS = "it puts its inputs one after another along `axis`"
    PADS = "it puts frames around its first input"
    RESIZES = "it resamples its first input by scales or to sizes"
    WINDOWS = "it reads windows of its first input"
    POOLS = "it reads windows of its first input, and has no weights"
    BOUNDS = "which inputs count frames where they speak of the stream axis"
    MULTIPLIES = "it multiplies its first input by its second, or divides"
    ARITHMETIC = "it computes with numbers beside each other, one of which may count frames"
    BEGINS = "which inputs it begins a stream with"
    CARRIES = "which inputs it carries on from step to step: a function of the attributes and the number of inputs"
    CACHES = "pairs of an input of keys or values so far and the output that has those of the pulse, too"
    RECURRENT = "it carries a state of its own from frame to frame"
    MASK = "which input is the mask of an attention"
    BIAS = "the mask of the attention is a bias of four dimensions; of others it may be a bool for every query and key"
    BRANCHES = "it runs one of its subgraphs"
    RANDOM = "it draws random numbers"
    STAYS = "it is written though its value is known: onnxruntime quantises float weights behind it anew"


class Operator(Protocol):
    """A node in any form."""

    @property
    def op_type(self) -> str:
        """Its name."""

    @property
    def domain(self) -> str:
        """Its domain."""


_DECLARED: dict[Trait, dict[tuple[str, str], Any]] = defaultdict(dict)


def declare(trait: Trait, *names: str, domain: str = "", value: Any = True) -> None:
    """Say it of operators `names`."""
    for name in names:
        if (domain, name) in _DECLARED[trait]:
            raise ValueError(f"{domain}:{name} declares twice that {trait.value}")
        _DECLARED[trait][domain, name] = value


def declares(trait: Trait, value: Any = True, only: str = "") -> Callable[[RuleFunction], RuleFunction]:
    """Say it of all operators whose rule stands below, or of the one named `only`."""

    def register(function: RuleFunction) -> RuleFunction:
        mine = [key for key, rule in RULES.items() if rule.function is function]
        found = [(domain, name) for domain, name in mine if only in ("", name)]
        if not found:
            raise ValueError(f"{trait.name} is declared of no operator: its rule stands above")
        for domain, name in found:
            declare(trait, name, domain=domain, value=value)
        return function

    return register


def unmoved(attributes: Mapping[str, ir.Attr], axis: int, rank: int) -> int:
    """An `AXIS` that is the same axis."""
    return axis


def has(node: Operator | None, *traits: Trait) -> bool:
    """Whether the operator has one of `traits`; what is no node has none."""
    return node is not None and any((node.domain, node.op_type) in _DECLARED[trait] for trait in traits)


def declared(node: Operator, trait: Trait, default: Any = None) -> Any:
    """What the operator says of `trait`."""
    return _DECLARED[trait].get((node.domain, node.op_type), default)
