"""Quotients of products of lengths: what a Reshape has left for -1."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from pulsify_onnx.algebra.length import Length


def ratio(over: Iterable[Length], under: Iterable[Length]) -> tuple[Length, Length]:
    """Product of `over` by product of `under`, without their common factors."""
    above, below = _factors(over), _factors(under)
    for d in list(below):
        if d in above and d.constant is None:
            above.remove(d)
            below.remove(d)
    top, bottom = (math.prod((d.constant for d in dims if d.constant is not None), start=1) for dims in (above, below))
    common = math.gcd(top, bottom) or 1
    moving, rest = (math.prod((d for d in dims if d.constant is None), start=Length.of(1)) for dims in (above, below))
    whole = moving.over(rest)
    if whole is not None and all(c.denominator == 1 for _, c in whole.terms):
        moving, rest = whole, Length.of(1)
    return moving * (top // common), rest * (bottom // common)


def _factors(dims: Iterable[Length]) -> list[Length]:
    """`dims` with products taken apart, so that a batch cancels out of twice the batch, and T + 3 out of 2*T + 6."""
    out: list[Length] = []
    for d in dims:
        if d.constant is not None or any(c.denominator > 1 for _, c in d.terms):
            out.append(d)
            continue
        shared = list(d.terms[0][0])
        for monomial, _ in d.terms[1:]:
            shared = [atom for k, atom in enumerate(shared) if monomial.count(atom) > shared[:k].count(atom)]
        own = [
            Length.of(math.gcd(*(int(c) for _, c in d.terms))),
            *(Length((((atom,), Fraction(1)),)) for atom in shared),
        ]
        rest = d.over(math.prod(own, start=Length.of(1)))
        out += own if rest is None or rest == Length.of(1) else [*own, rest]
    return out
