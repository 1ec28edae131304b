"""What every node is looked through for."""

from __future__ import annotations

import numpy as np

from testing.oracle import parse, refused


def test_streams_without_elements_are_refused():
    refused(
        parse(
            """agraph (float[2,0,T] x) => (float[2,0,1] y) { y = ReduceSum<keepdims=1>(x, axes) }""",
            axes=np.asarray([2], np.int64),
        ),
        "its input has no elements: dimension 1 is 0",
        op_type="ReduceSum",
    )


def test_results_without_elements_are_refused():
    cut = {"starts": np.asarray([3], np.int64), "ends": np.asarray([3], np.int64)}
    for axis in (1, 2):
        refused(
            parse(
                """agraph (float[1,4,T] x) => (float[1,U,V] y) { y = Slice(x, starts, ends, axes) }""",
                axes=np.asarray([axis], np.int64),
                **cut,
            ),
            f"its result has no elements: dimension {axis} is 0",
            op_type="Slice",
        )
