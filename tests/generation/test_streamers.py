"""generation/streamers.py: pieces of text against the text of the whole."""

from __future__ import annotations

import asyncio
import queue
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmodels import AutoTokenizer, GenerationConfig, TFLlamaForCausalLM
from tfmodels.generation.streamers import AsyncTextIteratorStreamer, TextIteratorStreamer, TextStreamer


class ByteTokenizer:
    """One token per byte; counts what it is asked to decode."""

    def __init__(self):
        self.decoded = 0

    def decode(self, ids, skip_special_tokens=False):
        self.decoded += len(ids)
        return bytes(ids).decode("utf-8", errors="replace")


@pytest.fixture(scope="module")
def tokenizer(stories260k):
    return AutoTokenizer.from_pretrained(str(stories260k))


def stream(tokenizer, ids, chunk=1, **options):
    pieces = []
    streamer = TextStreamer(tokenizer, write=pieces.append, **options)
    for start in range(0, len(ids), chunk):
        streamer.put(np.array([ids[start : start + chunk]], "int32"))
    streamer.end()
    return pieces


@given(text=st.text(max_size=40), chunk=st.integers(1, 5))
def test_pieces_join_to_the_text_and_hold_whole_characters(text, chunk):
    pieces = stream(ByteTokenizer(), list(text.encode()), chunk)
    assert "".join(pieces) == text
    assert all(pieces)
    assert "\N{REPLACEMENT CHARACTER}" in text or not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("text", ["Once upon a time", "a café 😀 ok", "日本語 and text", "\n\n- \tx"])
def test_sentencepiece_text(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = stream(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_every_character_comes_as_soon_as_it_is_whole():
    pieces = []
    streamer = TextStreamer(ByteTokenizer(), write=pieces.append)
    seen = []
    for byte in "a😀é":
        for token in byte.encode():
            streamer.put([[token]])
        seen.append(list(pieces))
    assert seen == [["a"], ["a", "😀"], ["a", "😀", "é"]]


def test_wrong_bytes_do_not_hold_back_what_follows():
    pieces = []
    streamer = TextStreamer(ByteTokenizer(), write=pieces.append)
    streamer.put([[0xFF, 0xFF, 0xFF, 0xFF]])
    assert pieces == ["\N{REPLACEMENT CHARACTER}" * 4]
    streamer.put([[ord("a")]])
    assert pieces[1:] == ["a"]


def test_unfinished_character_comes_at_the_end():
    pieces = []
    streamer = TextStreamer(ByteTokenizer(), write=pieces.append)
    streamer.put([["é".encode()[0]]])
    assert pieces == []
    streamer.end()
    assert pieces == ["\N{REPLACEMENT CHARACTER}"]


def test_work_per_token_does_not_grow():
    costs = []
    for length in (200, 2000):
        tokenizer = ByteTokenizer()
        stream(tokenizer, list(b"x" * length))
        costs.append(tokenizer.decoded / length)
    assert costs[1] == pytest.approx(costs[0], rel=0.05)
    assert costs[1] < 20


def test_prompt_gives_the_first_piece_its_leading_space(tokenizer):
    ids = tokenizer.encode("Once upon a time there was", add_special_tokens=True)
    cut = len(tokenizer.encode("Once upon a time", add_special_tokens=True))
    assert "".join(stream(tokenizer, ids[cut:], prompt_ids=ids[:cut])) == " there was"
    assert "".join(stream(tokenizer, ids[cut:])) == "there was"


def test_special_tokens(tokenizer):
    ids = [*tokenizer.encode("a cat", add_special_tokens=False), tokenizer.eos_token_id]
    assert "".join(stream(tokenizer, ids)) == "a cat"
    assert "".join(stream(tokenizer, ids, skip_special_tokens=False)).endswith("</s>")


def test_streamer_can_be_used_again(tokenizer):
    pieces = []
    streamer = TextStreamer(tokenizer, write=pieces.append)
    for _ in range(2):
        streamer.put([tokenizer.encode("a cat", add_special_tokens=False)])
        streamer.end()
    assert "".join(pieces) == "a cata cat"


@pytest.mark.parametrize("ids", [[1, 2], [[1], [2]]])
def test_several_rows_are_refused(ids):
    with pytest.raises(ValueError, match=r"\(1, new\)"):
        TextStreamer(ByteTokenizer()).put(ids)


def test_default_writes_to_stdout(capsys):
    streamer = TextStreamer(ByteTokenizer())
    streamer.put([list(b"hello")])
    assert capsys.readouterr().out == "hello"


def test_a_thread_reads_while_another_one_generates():
    streamer = TextIteratorStreamer(ByteTokenizer(), timeout=5)
    writer = threading.Thread(
        target=lambda: (streamer.put([list(b"hel")]), streamer.put([list(b"lo")]), streamer.end())
    )
    writer.start()
    assert "".join(streamer) == "hello"
    writer.join()
    with pytest.raises(queue.Empty):
        next(TextIteratorStreamer(ByteTokenizer(), timeout=0.01))


def test_a_coroutine_reads_while_a_thread_generates():
    async def read():
        streamer = AsyncTextIteratorStreamer(ByteTokenizer(), timeout=5)
        threading.Thread(target=lambda: (streamer.put([list(b"hello")]), streamer.end())).start()
        return [piece async for piece in streamer]

    assert "".join(asyncio.run(read())) == "hello"


@pytest.mark.parametrize("skip", [True, False])
def test_the_prompt_is_written_where_it_is_wanted(skip, stories260k):
    model = TFLlamaForCausalLM.from_pretrained(stories260k)
    ids = list(b"abc")
    pieces = []
    streamer = TextStreamer(ByteTokenizer(), skip, write=pieces.append)
    streamer.tokenizer.decode = lambda ids, skip_special_tokens=False: "".join(f"<{token}>" for token in ids)
    want = model.generate([ids], max_new_tokens=3, jit_compile=False, streamer=streamer).numpy()[0].tolist()
    assert "".join(pieces) == "".join(f"<{token}>" for token in want[3 if skip else 0 :])


def test_beams_of_a_models_file_do_not_count(stories260k):
    model = TFLlamaForCausalLM.from_pretrained(stories260k)
    options = {"max_new_tokens": 6, "jit_compile": False}
    want = np.asarray(model.generate([[1, 403]], **options))
    model.generation_config = GenerationConfig.from_dict({"eos_token_id": 2, "num_beams": 3, "length_penalty": 2.0})
    pieces = []
    streamer = TextStreamer(ByteTokenizer(), write=pieces.append)
    streamer.tokenizer.decode = lambda ids, skip_special_tokens=False: "".join(f"<{token}>" for token in ids)
    with pytest.warns(UserWarning, match="num_beams=3 of the model's file does not count with a streamer"):
        np.testing.assert_array_equal(model.generate([[1, 403]], streamer=streamer, **options), want)
    assert "".join(pieces) == "".join(f"<{token}>" for token in want[0, 2:])
    with pytest.raises(ValueError, match="streamer with num_beams=3"):
        model.generate([[1, 403]], streamer=streamer, num_beams=3, **options)


def test_nobody_waits_for_a_generation_that_fails(stories260k):
    model = TFLlamaForCausalLM.from_pretrained(stories260k)
    streamer = TextIteratorStreamer(ByteTokenizer(), timeout=5)

    def fail(ids, scores):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        model.generate([[1, 2]], logits_processor=[fail], streamer=streamer, jit_compile=False)
    assert list(streamer) == []


class Chunks:
    def __init__(self):
        self.sizes = []

    def put(self, ids):
        self.sizes.append(np.shape(ids)[1])

    def end(self):
        self.sizes.append("end")


def test_a_stream_does_not_wait_for_xla_and_moves_to_it(stories260k):
    """The tokens of graphs, of XLA, and of both in one call are the same, drawn ones too."""
    model = TFLlamaForCausalLM.from_pretrained(stories260k)
    settings = {"max_new_tokens": 40, "do_sample": True, "seed": 3, "eos_token_id": None}
    want = np.asarray(model.generate([[1, 403, 407]], **settings, jit_compile=False))

    def streamed(streamer):
        np.testing.assert_array_equal(model.generate([[1, 403, 407]], streamer=streamer, **settings), want)

    first, moving = Chunks(), Chunks()
    streamed(first)
    assert first.sizes[:3] == [1, 1, 4] and sum(first.sizes[:-1]) == 40 and first.sizes[-1] == "end"
    streamed(Chunks())  # traces prefill, which the first call ran as single operations
    model.programs.wait()
    traced = model.programs.compilations
    moving.put = lambda ids: model.programs.wait()
    for _ in range(3):  # the fifth prompt is worth compiling prefill, too
        streamed(moving)
    assert model.programs.compilations == traced + 1
    streamed(Chunks())
    np.testing.assert_array_equal(model.generate([[1, 403, 407]], **settings), want)
    assert model.programs.compilations == traced + 1
