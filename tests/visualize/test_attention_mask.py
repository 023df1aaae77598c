"""Masks of every kind, as the models that use them show them, in text and as PNG."""

import struct
import zlib

import numpy as np
import pytest
from small_models import make

import tfmodels
from tfmodels import AttentionMaskVisualizer
from tfmodels.visualize import attention_mask, png

IDS = [5, 9, 2, 44, 17]


def tril(length, window=None):
    mask = np.tril(np.ones((length, length), bool))
    return mask if window is None else np.triu(mask, 1 - window)


@pytest.fixture(scope="module")
def llama():
    return AttentionMaskVisualizer("stories260K")


def test_causal_and_padded(llama):
    picture = llama("Once upon a time", show=False)
    ((layers, mask),) = picture.masks
    assert layers == (0, 1, 2, 3, 4)
    assert np.array_equal(mask, tril(5))
    ((_, mask),) = llama("Once upon a time", pad_to=7, show=False).masks
    assert np.array_equal(mask[2:, 2:], tril(5))  # its tokenizer pads on the left
    assert not mask[:2].any()
    assert not mask[:, :2].any()
    ((_, mask),) = llama(input_ids=IDS, attention_mask=[1, 1, 1, 0, 0], show=False).masks
    assert np.array_equal(mask[:3, :3], tril(3))
    assert mask.sum() == 6


def test_packed_prefix_and_pairs(llama):
    packed = llama(packed=["Once upon", "a time"], show=False)
    ((_, mask),) = packed.masks
    first = len(llama.tokenizer("Once upon")["input_ids"])
    expected = tril(len(packed.tokens))
    expected[first:, :first] = False
    assert np.array_equal(mask, expected)
    assert "causal in parts" in repr(packed)
    ((_, mask),) = llama(input_ids=IDS, prefix=3, show=False).masks
    assert mask[:3, :3].all()
    assert np.array_equal(mask[3:], tril(5)[3:])
    own = np.eye(5, dtype=int)
    ((_, mask),) = llama(input_ids=IDS, attention_mask=own, show=False).masks
    assert np.array_equal(mask, own.astype(bool))


def test_windows_and_encoders():
    neo = AttentionMaskVisualizer(make("gpt_neo", "ForCausalLM"))(input_ids=IDS, show=False)
    assert [(layers, attention_mask.kind_of(mask)) for layers, mask in neo.masks] == [
        ((0,), "causal"),
        ((1,), "causal, window of 3"),
    ]
    assert "GPTNeoModel, layer 1: causal, window of 3\n   0 5   ■ · · · ·" in str(neo)
    mpnet = AttentionMaskVisualizer(make("mpnet", "Model"))(input_ids=IDS, show=False)
    assert repr(mpnet) == "AttentionMaskPicture(MPNetModel, 5 tokens: both ways)"


@pytest.mark.parametrize("name", ["gpt_neox", "mpt"])
def test_other_families(name):
    ((layers, mask),) = AttentionMaskVisualizer(make(name, "Model"))(input_ids=IDS, show=False).masks
    assert layers == (0, 1)
    assert np.array_equal(mask, tril(5))


def test_colours_in_the_terminal(llama, capsys):
    llama("Once", show=True)
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith("■ ■")
    from rich.console import Console

    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as caught:
        console.print(llama("Once", show=False))
    assert "\x1b[32m ■" in caught.get()


def test_png(llama, tmp_path):
    llama("Once upon", show=False).save(tmp_path / "mask.png", cell=8)
    content = (tmp_path / "mask.png").read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (24, 24)
    start = content.index(b"IDAT") + 4
    size = struct.unpack(">I", content[start - 8 : start - 4])[0]
    rows = np.frombuffer(zlib.decompress(content[start : start + size]), "uint8").reshape(24, 1 + 72)
    pixels = rows[:, 1:].reshape(24, 24, 3)
    assert pixels[4, 4].tolist() == list(attention_mask._OWN)
    assert pixels[12, 4].tolist() == list(attention_mask._SEEN)
    assert pixels[4, 12].tolist() == list(attention_mask._HIDDEN)
    pytest.importorskip("matplotlib")
    from matplotlib import image

    assert image.imread(tmp_path / "mask.png").shape[:2] == (24, 24)
    assert png.png(np.zeros((2, 3, 3), "uint8")).endswith(b"IEND\xaeB`\x82")


def test_mistakes(llama):
    for wrong in ({}, {"text": "a", "input_ids": IDS}):
        with pytest.raises(ValueError, match="one of text, packed and input_ids"):
            llama(**wrong)
    with pytest.raises(ValueError, match="attention_mask, prefix and pad_to"):
        llama(input_ids=IDS, prefix=2, pad_to=9)
    with pytest.raises(ValueError, match=r"shape \(3,\); \(5,\) or \(5, 5\) was expected"):
        llama(input_ids=IDS, attention_mask=[1, 1, 1])
    with pytest.raises(ValueError, match="give tokenizer="):
        AttentionMaskVisualizer(make("mpt", "Model"))("text")
    with pytest.raises(TypeError, match="a model of tfmodels"):
        AttentionMaskVisualizer(tfmodels)
