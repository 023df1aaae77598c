"""Buckets of distances by their definition, and the bias they look up."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmodels.layers.relative_bias import RelativeBias, distance_buckets


def test_mpnet_buckets():
    buckets = distance_buckets(16, max_distance=128)
    assert buckets[:8].tolist() == list(range(8))
    # Eight ranges up to 128, each sqrt(2) times the one before; 16, 32 and 64 begin a range.
    starts = {bucket: int(np.argmax(buckets == bucket)) for bucket in range(8, 16)}
    assert starts == {8: 8, 9: 12, 10: 16, 11: 23, 12: 32, 13: 46, 14: 64, 15: 91}
    assert buckets[-1] == 15 and len(buckets) == 129


@given(buckets=st.integers(2, 40), longer=st.integers(1, 200))
def test_buckets_follow_the_logarithm(buckets, longer):
    exact = buckets // 2
    limit = exact + longer
    got = distance_buckets(buckets, limit)
    assert got[0] == 0 and got[-1] == buckets - 1 and (np.diff(got) >= 0).all()
    for distance in range(limit + 1):
        if distance < exact:
            assert got[distance] == distance
        else:
            position = exact + math.log(distance / exact) / math.log(limit / exact) * (buckets - exact)
            assert position - 1 - 1e-6 < min(got[distance], position) <= position + 1e-6


@pytest.mark.parametrize("length", [1, 5, 300])
def test_bias_looks_up_both_directions(length):
    bias = RelativeBias(heads=3, rows=40, buckets=32, max_distance=128, std=1.0)
    got = np.asarray(bias(np.arange(length)))
    assert got.shape == (1, 3, length, length)
    table, buckets = np.asarray(bias.table.embeddings), distance_buckets(16, 128)
    rng = np.random.default_rng(0)
    for query, key in rng.integers(0, length, (50, 2)):
        row = buckets[min(abs(query - key), 128)] + (16 if key > query else 0)
        np.testing.assert_array_equal(got[0, :, query, key], table[row])
