"""States that a model seems to have already: pairs of an input and an output that the analysis gets through with."""

from __future__ import annotations

from dataclasses import replace

from pulsify_onnx.algebra.facts import Static, Stream
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.analysis.walker import analyze
from pulsify_onnx.model.load import Source

MOST_CANDIDATES = 16
"""Inputs that are tried."""

SIDES = {
    "in",
    "out",
    "input",
    "output",
    "new",
    "next",
    "past",
    "present",
    "prev",
    "previous",
    "old",
    "updated",
    "0",
    "1",
    "n",
    "last",
    "initial",
    "init",
    "final",
}
"""Words in names of inputs and outputs that say which side of a state they are."""


def possible_states(source: Source, plan: Plan) -> list[tuple[str, str]]:
    """Pairs that are states where the caller feeds them back. They are only told: the caller may as well mean what
    the batch model means.
    """
    axes = {name: fact.axis for name in plan.inputs if isinstance(fact := plan.facts[name], Stream)}
    pairs = _alike(source, [name for name in plan.inputs if isinstance(plan.facts[name], Static)])
    if not axes or not pairs:
        return []
    for tried in [pairs] if len(pairs) == 1 else [pairs, *([pair] for pair in pairs)]:
        found = analyze(source, axes, replace(plan.options, states=tuple(tried)))
        if not found.blockers:
            return tried
    return []


def _alike(source: Source, names: list[str]) -> list[tuple[str, str]]:
    """Inputs and outputs of one type and shape, paired by what their names have in common; only where that leaves no
    doubt.
    """
    values = {v.name or "": v for v in (*source.inputs, *source.model.graph.outputs)}

    def kind(name: str) -> tuple[object, str]:
        value = values[name]
        return value.dtype, str(value.shape)

    outputs = [v.name or "" for v in source.model.graph.outputs]
    pairs = []
    for name in names[:MOST_CANDIDATES]:
        same = [o for o in outputs if kind(o) == kind(name)]
        candidates = ([o for o in same if stem(o) == stem(name)] for stem in (_words, _letters))
        named = next((found for found in candidates if len(found) == 1), same)
        if len(named) == 1:
            pairs.append((name, named[0]))
    return pairs if len({o for _, o in pairs}) == len(pairs) else []


def _words(name: str) -> list[str]:
    """What a name says beside the side of the state: ``in_cache0`` and ``out_cache0`` say the same."""
    return [w for w in "".join(c if c.isalnum() else " " for c in name.lower()).split() if w not in SIDES]


def _letters(name: str) -> list[str]:
    """As `_words`, without numbers and without the n of ``hn``: ``h0`` and ``h1`` say the same, and so do ``state``
    and ``stateN``.
    """
    return [w.rstrip("0123456789").removesuffix("n") for w in _words(name)]
