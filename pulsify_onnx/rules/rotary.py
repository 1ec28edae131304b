"""Rotary position embeddings: a rotation of every frame by its position."""

from __future__ import annotations

from collections.abc import Sequence

from pulsify_onnx.algebra.facts import Static, Stream
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.gather_scatter import indexed
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import CONTRIB, rule

POSITIONS = "its table of positions has a fixed number of frames, so it fits one length of the stream only"
POSITIONS_HINT = "pass position_ids computed from the input (Range), or slice the tables to its length"


@rule("RotaryEmbedding", versions=(23,))
def rotary(node: Node) -> Outcome:
    """Along the sequence, with positions that stream too (a Range), or tables that were sliced to the length.

    Refuses: positions or tables with a fixed number of frames, a stream along the heads or the features.
    """
    return _rotated(node, positions=3, tables=(1, 2))


@rule("RotaryEmbedding", versions=(1,), domain=CONTRIB)
def contrib_rotary(node: Node) -> Outcome:
    """Along the sequence, with a position for every frame that streams too.

    Refuses: positions counted from the start of what is passed, which is the pulse; a stream along the heads or the
    features.
    """
    return _rotated(node, positions=1, tables=(2, 3))


def _rotated(node: Node, positions: int, tables: tuple[int, int]) -> Outcome:
    x = node.facts[0]
    if not isinstance(x, Stream) or x.axis not in (0, x.rank - 2 if x.rank == 3 else 2):
        refuse("the stream does not run along the sequence that it rotates", hint="see --axis")
    axes: list[int | None] = [None] * len(node.facts)
    axes[0] = x.axis
    given = node.fact(positions)
    if x.axis == 0:
        return _across(node, axes, (positions,) if given is not None else tables, positions)
    for k in (positions,) if given is not None else tables:
        fact = node.fact(k)
        if not isinstance(fact, Stream):
            refuse(POSITIONS, POSITIONS_HINT)
        if fact.axis != 1:
            refuse("its positions stream along another axis than its input", hint="see --axis")
        axes[k] = x.axis
    return indexed(node, axes, positions)


def _across(node: Node, axes: list[int | None], of_frames: Sequence[int], positions: int) -> Outcome:
    """Every frame is a sequence of its own, which has positions of its own, or one to begin with that is that of
    all.
    """
    for k in of_frames:
        fact = node.fact(k)
        if isinstance(fact, Stream) and fact.axis == 0:
            axes[k] = 0
        elif not isinstance(fact, Static) or len(fact.shape) > 1:
            refuse(
                "the stream runs along the batch, and every row of it has positions of its own",
                hint="give them as many rows as the input, or see --axis",
            )
    return indexed(node, axes, positions)
