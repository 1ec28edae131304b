"""The batch side of a comparison with a sliding classifier: what the model gives for a window of a recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from pulsify_onnx.arrays import Array
from pulsify_onnx.ort import session
from pulsify_onnx.prepare.fixed_length import runnable
from pulsify_onnx.prepare.passes import Prepared, window_of
from pulsify_onnx.runtime.runner import take
from pulsify_onnx.runtime.sidecar import Head, Sidecar, StreamInput


class SlidingBatch:
    """A model of clips on recordings of any length: streams for the whole recording, values over a window for the first
    clip.

    Where the sidecar says that windows are exact, a window is run through `model` itself. Else the body is run on the
    whole recording and the head on the frames of the window, since padding inside the body is there once and not in
    every window.
    """

    def __init__(self, model: str | Path | onnx.ModelProto, cut: Prepared, sidecar: Sidecar, head: Head):
        self.inputs, self.head = sidecar.inputs, head
        self.model = session(
            model.SerializeToString() if isinstance(model, onnx.ModelProto) else model, severity=4, plain=True
        )
        self._body = _session(runnable(cut.source.model))
        assert cut.head is not None, "a model whose head is cut off has one"
        self._head = _session(runnable(cut.head.source.model))
        self._windows = cut.head.windows
        self._late = [] if self._head is None else [o.name for o in self._head.get_outputs()]

    def get_outputs(self) -> list[Any]:
        """As an onnxruntime session has them."""
        return list(self.model.get_outputs())

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """As an onnxruntime session does."""
        found = self._streams(feeds) | next(iter(self.clips(feeds, [0])))
        return [found[name] for name in names or [o.name for o in self.model.get_outputs()]]

    def clips(self, feeds: Mapping[str, Array], starts: Iterable[int]) -> Iterator[dict[str, Array]]:
        """The values over the windows that begin at base frames `starts` of a recording."""
        if self.head.exact:
            for start in starts:
                yield dict(zip(self._late, self.model.run(self._late, self._cut(feeds, start))))
            return
        streams = self._streams(feeds)
        for start in starts:
            yield self._scored(feeds, streams, start)

    def both(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """The values for the first clip alone, as body and head give them one after the other and as the model does."""
        clip = self._cut(feeds, 0)
        return self._scored(clip, self._streams(clip), 0), dict(zip(self._late, self.model.run(self._late, clip)))

    def _streams(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What the body gives, the inputs among it."""
        if self._body is None:
            return dict(feeds)
        return {**feeds, **dict(zip((o.name for o in self._body.get_outputs()), _run(self._body, feeds)))}

    def _scored(self, feeds: Mapping[str, Array], streams: Mapping[str, Array], start: int) -> dict[str, Array]:
        assert self._head is not None
        windows = {
            window_of(wire): take(
                streams[wire], x.axis, first := int(start * x.rate), first + x.extent.at(self.head.frames)
            )
            for wire, x in self._windows.items()
        }
        return dict(zip((o.name for o in self._head.get_outputs()), _run(self._head, {**feeds, **windows})))

    def _cut(self, feeds: Mapping[str, Array], start: int) -> dict[str, Array]:
        """The inputs of one window."""
        made = {}
        for i in self.inputs:
            x = feeds[i.name]
            made[i.name] = (
                take(x, i.axis, i.count(start), i.count(start + self.head.frames)) if isinstance(i, StreamInput) else x
            )
        return made


def _session(model: onnx.ModelProto) -> ort.InferenceSession | None:
    return session(model.SerializeToString(), severity=4, plain=True) if model.graph.output else None


def _run(runner: ort.InferenceSession, feeds: Mapping[str, Array]) -> list[Array]:
    wanted = {i.name for i in runner.get_inputs()}
    found: list[Array] = runner.run(None, {name: x for name, x in feeds.items() if name in wanted})
    return found


__all__ = ["SlidingBatch"]
