"""Which axis of which input is the stream."""

from __future__ import annotations

from testing.oracle import parse, rand, refused


def test_blockers_of_the_reading_that_gets_furthest():
    """With a batch of no known name, what blocks the batch axis is of no interest."""
    model = parse(
        """agraph (float[s0,2,s1] x) => (float[s0,2,s1] y) { a = Conv<pads=[1,1]>(x, w)
        m = ReduceMean<axes=[2]>(a)
        y = Mul(a, m) }""",
        w=rand(2, 2, 3),
    )
    refused(model, "brings a value over the whole stream back", op_type="Mul")
