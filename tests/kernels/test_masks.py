"""Masks against their definition, written out cell by cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmodels.kernels.masks import make_mask, positions_from_mask, segments_of


def dense(mask, rows):
    allowed = np.asarray(mask.allowed)
    return np.broadcast_to(allowed, (rows, *allowed.shape[1:]))[:, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 5), st.integers(1, 4), st.data())
def test_causal_window_padding(rows, queries, past, window, data):
    keys = past + queries
    padding = np.array(
        data.draw(st.lists(st.lists(st.integers(0, 1), min_size=keys, max_size=keys), min_size=rows, max_size=rows))
    )
    mask = make_mask(padding, causal=True, query_length=queries, key_length=keys, offset=past)
    got, limited = dense(mask, rows), dense(mask.with_window(window), rows)
    for row in range(rows):
        for query in range(queries):
            for key in range(keys):
                seen = bool(key <= past + query and padding[row, key])
                assert got[row, query, key] == seen
                assert limited[row, query, key] == (seen and key > past + query - window)


@pytest.mark.parametrize("back, ahead", [(0, 0), (2, 1), (1, 9), (9, 2)])
def test_windows_to_both_sides(back, ahead):
    padding = np.array([[1, 1, 1, 0, 1, 1], [0, 1, 1, 1, 1, 1]])
    mask = make_mask(padding, causal=False, query_length=6, key_length=6).with_window(back + 1, ahead)
    distance = np.arange(6)[None] - np.arange(6)[:, None]
    want = (distance >= -back) & (distance <= ahead) & (padding[:, None] == 1)
    np.testing.assert_array_equal(dense(mask, 2), want)
    np.testing.assert_array_equal(np.asarray(mask.sees())[:, 0, :, 0], want.any(-1))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_packed_sequences_see_only_themselves(lengths):
    positions = np.concatenate([np.arange(n) for n in lengths])[None]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    np.testing.assert_array_equal(np.asarray(segments_of(positions))[0], owner)
    size = len(owner)
    mask = make_mask(None, causal=True, query_length=size, key_length=size, packed_positions=positions)
    want = (owner[:, None] == owner[None]) & np.tri(size, dtype=bool)
    np.testing.assert_array_equal(dense(mask, 1)[0], want)


def test_a_whole_mask_is_used_as_it_is():
    pairs = np.random.default_rng(0).integers(0, 2, (2, 1, 3, 3))
    mask = make_mask(pairs, causal=True, query_length=3, key_length=3)
    np.testing.assert_array_equal(np.asarray(mask.allowed), pairs != 0)
    additive = np.where(pairs, 0.25, np.finfo("float32").min).astype("float32")
    mask = make_mask(additive, causal=True, query_length=3, key_length=3)
    np.testing.assert_array_equal(np.asarray(mask.allowed), pairs != 0)
    np.testing.assert_array_equal(np.asarray(mask.bias), pairs * 0.25)


@pytest.mark.parametrize("shape", [(2, 4), (2, 1, 4, 5), (2, 1, 5, 4)])
def test_a_mask_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match="attention_mask has shape"):
        make_mask(np.ones(shape), causal=True, query_length=5, key_length=5)
    with pytest.raises(ValueError, match=r"\(batch, keys\) or"):
        make_mask(np.ones((1, 5, 5)), causal=True, query_length=5, key_length=5)


def test_positions_count_tokens():
    mask = np.array([[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    assert np.asarray(positions_from_mask(mask)).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3], [0, 1, 0, 0]]


def test_the_same_mask_over_keys_in_another_order():
    scores = np.random.default_rng(0).normal(size=(2, 1, 3, 5)).astype("float32")
    scores[0, 0, :, 2] = -1e9
    for source in (None, np.array([[0, 1, 1, 1, 1], [1, 1, 0, 1, 1]]), scores):
        mask = make_mask(source, causal=True, query_length=3, key_length=5, offset=2).with_window(3)
        other = mask.at_keys(np.array([4, 1, -1, 2], "int32"))
        want = dense(mask, 2)[:, :, [4, 1, 0, 2]] & np.array([True, True, False, True])
        np.testing.assert_array_equal(dense(other, 2), want)
        assert other.key_length == 4
        if source is scores:
            np.testing.assert_array_equal(other.bias, np.asarray(mask.bias)[..., [4, 1, 0, 2]])
