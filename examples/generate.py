"""Generates a sequence frame by frame, each frame computed once, and the same by running the batch network on
everything so far.

    python examples/generate.py [FRAMES]

The causal network gives frame t + 1 from frames up to t, so its pulsed twin is converted with `allow_advance`: what it
gives for
one frame decides the next. The PixelCNN needs the left part of the row that it draws: the pulse of one row is run again
after every
pixel, and its states move on only when the row is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from pulsify_onnx import pulsify

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
WIDTH = 9

Pick = Callable[[Any], int]


def greedy(scores: Any) -> int:
    """The best choice."""
    return int(np.argmax(scores))


def sampling(seed: int, temperature: float = 1.0) -> Pick:
    """Random choices by their softmax at a temperature, the same for the same seed."""
    rng = np.random.default_rng(seed)

    def pick(scores: Any) -> int:
        weights = np.exp((np.float64(scores) - np.max(scores)) / temperature)
        return int(np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random()))

    return pick


class Stepper:
    """A pulsed model of pulse 1 in plain onnxruntime: states begin as zeros and are fed back."""

    def __init__(self, model: onnx.ModelProto, **options: Any):
        pulsed = pulsify(model, pulse=1, **options)
        self.spec = pulsed.spec
        self.session = ort.InferenceSession(pulsed.proto().SerializeToString(), providers=["CPUExecutionProvider"])
        self.states = {s["input"]: np.zeros(s["shape"], s["dtype"]) for s in self.spec["states"]}

    def step(self, feeds: dict[str, Any], keep: bool = True) -> Any:
        """The first output for one frame; with `keep`, the stream moves on."""
        y, *states = self.session.run(None, {**feeds, **self.states})
        if keep:
            self.states = dict(zip(self.states, states))
        return y


def level(choice: int) -> float:
    """The sample that one of 32 choices stands for."""
    return choice / 16 - 1


def sequence(model: onnx.ModelProto, frames: int, pick: Pick) -> list[int]:
    """A sequence by the pulsed network."""
    stream = Stepper(model, allow_advance=True)
    scores = np.asarray(stream.spec["outputs"][0]["first_frames"], np.float32)
    chosen = []
    for _ in range(frames):
        chosen.append(pick(scores[0, :, -1]))
        scores = stream.step({"x": np.full([1, 1, 1], level(chosen[-1]), np.float32)})
    return chosen


def sequence_again(model: onnx.ModelProto, frames: int, pick: Pick) -> list[int]:
    """The same by running the batch network on everything so far, once per frame."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.zeros([1, 1, frames], np.float32)
    chosen = []
    for t in range(frames):
        scores = session.run(None, {"x": x[..., : t + 1]})[0]
        chosen.append(pick(scores[0, :, t]))
        x[0, 0, t] = level(chosen[-1])
    return chosen


def places(rows: int) -> Any:
    """Where every pixel is: five bits of its row and five of its column."""
    bits = np.zeros([1, 10, rows, WIDTH], bool)
    for k in range(5):
        bits[0, k] = (np.arange(rows) >> k & 1).astype(bool)[:, None]
        bits[0, 5 + k] = (np.arange(WIDTH) >> k & 1).astype(bool)
    return bits


def image(model: onnx.ModelProto, rows: int, pick: Pick) -> Any:
    """An image by the pulsed network, row by row."""
    stream, where = Stepper(model), places(rows)
    drawn = np.zeros([1, 1, rows, WIDTH], np.float32)
    for row in range(rows):
        feeds = {"image": drawn[:, :, row : row + 1], "location": where[:, :, row : row + 1]}
        for column in range(WIDTH):
            drawn[0, 0, row, column] = pick(stream.step(feeds, keep=False)[0, :, 0, column])
        stream.step(feeds)
    return drawn


def image_again(model: onnx.ModelProto, rows: int, pick: Pick) -> Any:
    """The same by running the batch network on everything so far, once per pixel."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    drawn, where = np.zeros([1, 1, rows, WIDTH], np.float32), places(rows)
    for row in range(rows):
        for column in range(WIDTH):
            scores = session.run(None, {"image": drawn[:, :, : row + 1], "location": where[:, :, : row + 1]})[0]
            drawn[0, 0, row, column] = pick(scores[0, :, row, column])
    return drawn


def main(frames: int) -> None:
    """Generate both ways and compare."""
    causal, pixels = onnx.load(FIXTURES / "causal_net.onnx"), onnx.load(FIXTURES / "pixelcnn.onnx")
    for name, make in (("greedy", lambda: greedy), ("sampled", lambda: sampling(1, temperature=20))):
        chosen = sequence(causal, frames, make())
        print(f"{name}: {chosen}")
        print("  the same as by the batch network:", chosen == sequence_again(causal, frames, make()))
        drawn = image(pixels, 6, make())
        print("\n".join("  " + "".join(".#"[int(p)] for p in row) for row in drawn[0, 0]))
        print("  the same as by the batch network:", bool((drawn == image_again(pixels, 6, make())).all()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
