"""Networks in the idioms of exporters, streamed by plain onnxruntime and compared with themselves.

    python -m tools.second --seconds 60
    python -m tools.second --only 4711 --shrink --save finds
    python -m tools.second --model finds/wrong_4711.onnx --axis x=2

Written from README and docs alone, and shares no code with the other generator. Every network follows from its seed.
Exit status 1 where a stream is wrong or something crashes.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import onnx

from tools.idioms import checks
from tools.idioms.grammar import Sentence, draw, write
from tools.idioms.saved import load

PATIENCE = 240
ALIKE = 3
"""How many failures of one kind are shrunk."""
BAD = ("WRONG", "CRASH")


def judge(sentence: Sentence) -> checks.Result:
    """Writes a network and checks it."""
    return checks.check(write(sentence), sentence.seed)


def usable(sentence: Sentence) -> bool:
    """Whether the batch model loads and runs; if the process dies of that, it does not."""
    return checks.answers(write(sentence), sentence.seed)


def replay(path: Path, axes: dict[str, int], count: int) -> int:
    """Checks a saved model, each time at other pulses and lengths."""
    kinds: Counter[str] = Counter()
    for seed in range(count):
        result = checks.check(load(path, axes, seed), seed)
        kinds[result.kind] += 1
        if result.kind != "same" and kinds[result.kind] <= ALIKE:
            print(f"{result.kind} {path.name}: {result.text or result.reasons}", flush=True)
    print(path.name, "  ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())))
    return int(any(kinds[kind] for kind in BAD))


class Worker:
    """A process of its own, so that a crash of a library is one network's result."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1)

    def __call__(self, sentence: Sentence) -> checks.Result:
        try:
            return self.pool.submit(judge, sentence).result(PATIENCE)
        except BrokenProcessPool:
            self.pool = ProcessPoolExecutor(1)
            return self._died(sentence)
        except TimeoutError:
            for process in self.pool._processes.values():
                process.kill()
            self.pool = ProcessPoolExecutor(1)
            return checks.Result("CRASH", f"took more than {PATIENCE} seconds")

    def _died(self, sentence: Sentence) -> checks.Result:
        try:
            if self.pool.submit(usable, sentence).result(PATIENCE):
                return checks.Result("CRASH", "the process died")
        except BrokenProcessPool:
            self.pool = ProcessPoolExecutor(1)
        return checks.Result("unusable", "onnxruntime dies of the batch model")


def lessened(s: Sentence, without: list[str]) -> Sentence:
    """The sentence without some of its words."""
    heads = tuple(h for h in s.heads if h[0] not in without) or (("stream", 0),)
    style = "plain" if s.style in without else s.style
    return replace(
        s, blocks=tuple(b for b in s.blocks if b[0] not in without), heads=heads, style=style, without=tuple(without)
    )


def smaller(s: Sentence) -> list[Sentence]:
    """Sentences with something left out, or plainer."""
    out = [replace(s, blocks=s.blocks[:i] + s.blocks[i + 1 :]) for i in range(len(s.blocks))]
    out += [replace(s, heads=s.heads[:i] + s.heads[i + 1 :]) for i in range(len(s.heads)) if len(s.heads) > 1]
    plain = {"second": "", "style": "plain", "batch": 1, "front": "BCT", "dtype": "float32", "opset": 17, "told": True}
    return out + [replace(s, **{key: value}) for key, value in plain.items() if getattr(s, key) != value]  # type: ignore[arg-type]


def shrink(worker: Worker, sentence: Sentence, sign: str, seconds: float = 60) -> tuple[Sentence, str]:
    """The smallest sentence near this one that fails in the same way."""
    stop = time.monotonic() + seconds
    text = ""
    moved = True
    while moved and time.monotonic() < stop:
        moved = False
        for candidate in smaller(sentence):
            result = worker(candidate)
            if result.sign == sign:
                sentence, text, moved = candidate, result.text, True
                break
            if time.monotonic() > stop:
                break
    return sentence, text


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, help="how long to go on")
    parser.add_argument("--count", type=int, help="how many networks")
    parser.add_argument("--seed", type=int, default=None, help="the first one's seed (default: by the clock)")
    parser.add_argument("--only", type=int, help="this seed alone")
    parser.add_argument("--save", type=Path, help="a folder for models that fail")
    parser.add_argument("--shrink", action="store_true", help="make what fails smaller")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        help="leave out a block, a head or a manner of naming (odd) that is known to fail",
    )
    parser.add_argument("--verbose", action="store_true", help="a line for every network")
    parser.add_argument("--model", type=Path, help="a file to check instead of what the grammar writes")
    parser.add_argument(
        "--axis", action="append", default=[], metavar="INPUT=AXIS", help="the stream axis of an input of --model"
    )
    args = parser.parse_args()
    if args.model:
        told = [text.rpartition("=") for text in args.axis]
        return replay(args.model, {name: int(axis) for name, _, axis in told}, args.count or 12)
    first = (
        args.only if args.only is not None else args.seed if args.seed is not None else int(time.time()) % 10**6 * 1000
    )
    count = 1 if args.only is not None else args.count or 10**9
    stop = time.monotonic() + (args.seconds or (60 if not (args.count or args.only is not None) else 10**9))
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    signs: Counter[str] = Counter()
    worker = Worker()
    for seed in range(first, first + count):
        if time.monotonic() > stop:
            break
        sentence = lessened(draw(seed), args.without)
        result = worker(sentence)
        kinds[result.kind] += 1
        counts += result.counts
        if result.kind == "refused":
            reasons.update(result.reasons[:1])
        if args.verbose or result.kind in BAD:
            print(f"{result.kind} seed {seed}: {sentence}\n    {result.text or result.reasons}", flush=True)
        elif result.counts["late"]:
            print(f"late seed {seed}: {sentence}\n    {result.reasons}", flush=True)
        if result.kind in BAD:
            signs[result.sign] += 1
            if args.shrink and signs[result.sign] <= ALIKE:
                sentence, text = shrink(worker, sentence, result.sign)
                print(f"    shrunk: {sentence}\n    {text or result.text}", flush=True)
            if args.save:
                args.save.mkdir(parents=True, exist_ok=True)
                onnx.save(write(sentence).model, args.save / f"{result.kind.lower()}_{seed}.onnx")
    worker.pool.shutdown()
    for sign, n in signs.most_common():
        print(f"{n:6d}  {sign}")
    for reason, n in reasons.most_common():
        print(f"{n:6d}  refused  {reason}")
    print("  ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())))
    print("  ".join(f"{name} {n}" for name, n in sorted(counts.items())))
    return int(any(kinds[kind] for kind in BAD))


if __name__ == "__main__":
    raise SystemExit(main())
