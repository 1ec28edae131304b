"""The results of a sliding classifier against those of the batch model on the same frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from pulsify_onnx.arrays import Array
from pulsify_onnx.runtime.sidecar import Sidecar, WindowOutput

MOST_CLIPS = 24
"""So many windows are compared, spread over the recording."""


class Batch(Protocol):
    """Gives what a model of clips gives for windows of a recording."""

    def clips(self, feeds: Mapping[str, Array], starts: Iterable[int]) -> Iterator[dict[str, Array]]:
        """The values over the windows that begin at base frames `starts`."""

    def both(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """The values for the first clip alone, from the two halves of the model and from the model."""


def clips_apart(
    batch: Batch, sidecar: Sidecar, got: Mapping[str, Sequence[Array]], fed: Sequence[int], arrays: Mapping[str, Array]
) -> Iterator[tuple[str, Array, Array]]:
    """What the pulses gave that end after `fed` base frames, and what the batch model gives for their windows:
    (output, got, wanted).
    """
    head = sidecar.head
    if head is None:
        return
    outputs = [o.name for o in sidecar.outputs if isinstance(o, WindowOutput)]
    full = [(k, n - head.full) for k, n in enumerate(fed) if n >= head.full]
    chosen = [
        full[k * (len(full) - 1) // max(1, min(MOST_CLIPS, len(full)) - 1)] for k in range(min(MOST_CLIPS, len(full)))
    ]
    for (k, _), wanted in zip(chosen, batch.clips(arrays, [start for _, start in chosen])):
        for name in outputs:
            yield name, got[name][k], wanted[name]
    if chosen and not head.exact:
        parts, whole = batch.both(arrays)
        for name in outputs:
            yield name, parts[name], whole[name]
