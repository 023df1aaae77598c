"""generation/sizes.py: the sizes cover everything, and the best fit comes first."""

from __future__ import annotations

import pytest

from tfmodels.generation.row_settings import Kind
from tfmodels.generation.sizes import column_counts, decode_sizes, fitting
from tfmodels.runtime.compile import DEFAULT_LIMIT


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 16, 33, 128])
@pytest.mark.parametrize("room", [16, 272, 2032, 2048, 4112])
def test_every_number_of_rows_and_slots_has_a_size(rows, room):
    sizes = decode_sizes(rows, room)
    assert sizes[-1] == (rows, room) == max(sizes) and sizes[0].rows == 1
    assert len(sizes) == len(set(sizes)) <= 6
    for wanted_rows in range(1, rows + 1):
        for columns in (1, room // 9, room):
            found = fitting(sizes, wanted_rows, columns)
            assert found[0] == min(found) and found[-1] == sizes[-1]
            assert all(size.rows >= wanted_rows and size.columns >= columns for size in found)


def test_parts_of_rows_are_aligned_and_not_small():
    assert column_counts(2032) == (256, 2032) and column_counts(1024) == (1024,)
    assert all(count % 16 == 0 for room in (2064, 4112, 32784) for count in column_counts(room))


def test_all_programs_of_an_engine_stay_compiled():
    """A model's cache of programs holds all that its engine may need, so that none is compiled twice."""
    chunks = 2 * 8  # 16, 32, ... 2048 tokens of one prompt, and of several
    kinds = 2 * len(Kind)  # with a grammar and without
    for rows, room in ((1, 272), (16, 4112), (128, 131088)):
        decoding, others = len(decode_sizes(rows, room)) * kinds, 2  # a row's copy, a number of each weight
        assert chunks * len(column_counts(room)) + decoding + others <= DEFAULT_LIMIT
