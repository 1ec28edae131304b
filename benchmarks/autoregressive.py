"""What a frame costs in generation as the sequence grows: the pulsed network against the batch network on everything so
far.

python benchmarks/autoregressive.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from generate import Stepper  # noqa: E402

LENGTHS = (64, 256, 1024, 4096)
TURNS = 30


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs of `run`."""
    best = float("inf")
    for _ in range(TURNS):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Print the cost of the next frame after so many frames, in multiples of that after the fewest."""
    for name in ("causal_net_dilated", "wavenet"):
        model = onnx.load(ROOT / "fixtures" / f"{name}.onnx")
        batch = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        stream = Stepper(model, allow_advance=True)
        frame = {"x": np.zeros([1, 1, 1], np.float32)}
        rows, done = [], 0
        for length in LENGTHS:
            while done < length:
                stream.step(frame)
                done += 1
            sofar = {"x": np.zeros([1, 1, length], np.float32)}
            rows.append(
                (length, fastest(partial(stream.step, frame, keep=False)), fastest(partial(batch.run, None, sofar)))
            )
        print(f"{name}: the next frame after\n  frames  pulsed  batch on all  batch/pulsed")
        for length, ours, theirs in rows:
            print(f"  {length:6}  {ours / rows[0][1]:5.1f}x  {theirs / rows[0][2]:11.1f}x  {theirs / ours:11.1f}x")


if __name__ == "__main__":
    main()
