"""Random compositions: whatever is put together, the stream equals the batch run, at both ends and at any pulse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testing.corners import OLD, ROWWISE
from testing.networks import (
    LAYERS,
    Layer,
    conv,
    conv_transpose,
    cut,
    join,
    network,
    pad,
    pool,
    recurrence,
    resize,
    running_sum,
)
from testing.oracle import check
from testing.streams import check_streams
from testing.two_ways import TWO_WAYS, with_taken_names

CORE: tuple[tuple[Layer, float], ...] = tuple(
    (layer, weight)
    for layer, weight in LAYERS
    if layer in (conv, pad, cut, pool, conv_transpose, resize, join, recurrence, running_sum)
)
OF_ROWS = tuple((layer, weight) for layer, weight in LAYERS if layer in dict(ROWWISE))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), size=st.integers(1, 6), pulse=st.integers(1, 9), pick=st.integers(0, 24))
def test_core(seed: int, size: int, pulse: int, pick: int) -> None:
    """Convolutions, padding, crops, pools, strides, upsampling, joins and recurrences."""
    net = network(seed, size, CORE)
    check(net.model, pulses=(pulse,), length=net.lengths[pick], unit=net.unit, shortest=net.lengths[0], rtol=2e-3)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), size=st.integers(5, 40), pulse=st.integers(1, 40), pick=st.integers(0, 24))
def test_networks(seed: int, size: int, pulse: int, pick: int) -> None:
    """Whole networks of every family."""
    net = network(seed, size)
    check(net.model, pulses=(pulse,), length=net.lengths[pick], unit=net.unit, shortest=net.lengths[0], rtol=2e-3)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), size=st.integers(1, 8), pulse=st.integers(1, 9), pick=st.integers(0, 24))
def test_sizes_that_are_seen_in_two_ways(seed: int, size: int, pulse: int, pick: int) -> None:
    """Windows that hang over, SAME padding of short kernels, crops before resampling; with names that are taken."""
    net = with_taken_names(network(seed, size, TWO_WAYS), np.random.default_rng(seed))
    check(net.model, pulses=(pulse,), length=net.lengths[pick], unit=net.unit, shortest=net.lengths[0], rtol=2e-3)


@pytest.mark.parametrize("seed", range(20))
def test_streams_of_any_length(seed: int) -> None:
    """Short ones and long ones, in pulses of one size or of many, whatever is past their ends; of new and old
    opsets, and side by side on lanes.
    """
    for net in (network(seed, 8), network(seed, 8, opsets=OLD), network(seed, 8, OF_ROWS, lanes=True)):
        check_streams(net.model, net, np.random.default_rng(seed))
