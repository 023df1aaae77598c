"""generation/detokenizer.py: pieces of text against the text of the whole, and stop strings cut out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmodels.generation.detokenizer import Detokenizer, StopCutter

UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class Bytes:
    """A tokenizer with a token per byte."""

    def decode(self, ids, skip_special_tokens=False):
        return bytes(ids).decode("utf-8", errors="replace")


def pieces_of(data, sizes):
    text, pieces, start = Detokenizer(Bytes()), [], 0
    while start < len(data):
        size = next(sizes)
        pieces.append(text.add(data[start : start + size]))
        start += size
    return [*pieces, text.finish()]


@given(text=st.text(max_size=40), sizes=st.lists(st.integers(1, 9), min_size=1))
def test_pieces_hold_whole_characters_whatever_the_number_of_tokens(text, sizes):
    steps = (size for _ in range(99) for size in sizes)
    pieces = pieces_of(list(text.encode()), steps)
    assert "".join(pieces) == text
    assert UNDECODABLE in text or not any(UNDECODABLE in piece for piece in pieces)
    assert pieces[-1] == ""


def test_bytes_that_are_no_characters_are_told_in_time():
    assert pieces_of([0xFF] * 8, iter([4, 4]))[:2] == [UNDECODABLE * 4] * 2
    assert pieces_of([0x61, 0xE2, 0x82], iter([3])) == ["a", UNDECODABLE]


@given(text=st.text("abc", max_size=30), sizes=st.lists(st.integers(1, 4), min_size=1))
@pytest.mark.parametrize("stops", [["ab"], ["abc", "cc"], ["aab", "b"], ["zz"]])
def test_the_text_ends_before_the_first_stop_string(stops, text, sizes):
    """The stop string that is complete first counts, and of those with the same end the one that begins first."""
    cutter, pieces, start = StopCutter(stops), [], 0
    steps = (size for _ in range(99) for size in sizes)
    want = text
    for end in range(len(text) + 1):
        places = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if places:
            want = text[: min(places)]
            break
    for size in steps:
        pieces.append(cutter.add(text[start : start + size]))
        start += size
        # The pieces that were given out still make up the text.
        assert want.startswith("".join(pieces)) or size > 1
        if start >= len(text):
            break
    pieces.append(cutter.finish())
    if max(sizes) == 1:
        assert "".join(pieces) == want
    assert not any(stop in "".join(pieces) for stop in stops)


def test_a_stop_string_may_begin_in_the_prompt():
    cutter = StopCutter(["\n\nQ:"], before="answer\n")
    assert [cutter.add("\n"), cutter.add("Q"), cutter.add(": no")] == ["", "", ""] and cutter.finish() == ""
    cutter = StopCutter(["\n\nQ:"], before="answer\n")
    assert [cutter.add("\n"), cutter.add("A"), cutter.finish()] == ["", "\nA", ""]
