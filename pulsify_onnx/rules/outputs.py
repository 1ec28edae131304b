"""What may leave the graph: streams, running values and static values."""

from __future__ import annotations

from pulsify_onnx.algebra.facts import Fact, QueryKey, RelativeScores, ShapeTensor
from pulsify_onnx.algebra.query_key import relative
from pulsify_onnx.errors import Refusal
from pulsify_onnx.rules.kit import merged_time


def unfit_output(fact: Fact | None) -> Refusal | None:
    """Why a wire can't be an output of the pulsed graph; None where it can."""
    if fact is None:
        return Refusal("nothing computes it", hint="check the model")
    if isinstance(fact, ShapeTensor):
        return Refusal("it is the length of the whole stream", hint="remove this output; the caller knows the length")
    if isinstance(fact, (QueryKey, RelativeScores)) or relative(fact):
        return Refusal(
            "it has two dimensions that grow with the stream (every frame meets every other)",
            hint="remove this output, or cut the model before it",
        )
    if merged_time.flattened(fact):
        return Refusal(merged_time.LEAVES, merged_time.LEAVES_HINT)
    return None
