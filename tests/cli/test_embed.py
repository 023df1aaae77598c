"""`tfmodels embed`: vectors of lines, and mistakes before anything is loaded."""

from __future__ import annotations

import io

import numpy as np
import pytest

from tfmodels.cli import main as cli


def standard_input(content):
    """A pipe with these bytes."""
    return io.TextIOWrapper(io.BytesIO(content), "utf-8")


@pytest.fixture
def encoder_folder(tmp_path):
    """A small sentence encoder, as sentence-transformers stores one."""
    from tfmodels import AutoTokenizer, SentenceEncoder, TFAutoModel

    model, tokenizer = (auto.from_pretrained("stories260K") for auto in (TFAutoModel, AutoTokenizer))
    SentenceEncoder(model, tokenizer).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_embed(encoder_folder, tmp_path, capsys, monkeypatch):
    from tfmodels import SentenceEncoder

    lines = ["Once upon a time", "a", "there was a little girl"]
    (tmp_path / "texts.txt").write_text("\r\n".join(lines) + "\r\n")
    output = tmp_path / "vectors.npy"
    assert cli.main(["embed", str(encoder_folder), str(tmp_path / "texts.txt"), "-o", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 vectors of 64 in" in captured.err
    expected = SentenceEncoder.from_pretrained(encoder_folder).encode(lines)
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    monkeypatch.setattr("sys.stdin", standard_input("\n".join(lines).encode()))
    command = ["embed", str(encoder_folder), "-", "-o", str(output), "--normalize", "--batch-size", "2"]
    assert cli.main(command) == 0
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(output), unit, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "texts.txt", "vectors.npy"]


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        (b"", [], "there is no text"),
        (b"a\n\nb\n", [], "line 2 is empty"),
        (b"\xff\xfe", [], "is not UTF-8 text"),
        (None, [], "No such file"),
        (b"a", ["--batch-size", "0"], "--batch-size 0: a positive number"),
        (b"a", ["-o", "vectors.txt"], "a name ending in .npy in an existing folder"),
        (b"a", ["-o", "/nowhere/vectors.npy"], "a name ending in .npy in an existing folder"),
    ],
)
def test_embed_mistakes(tmp_path, capsys, text, more, message):
    if text is not None:
        (tmp_path / "texts.txt").write_bytes(text)
    output = tmp_path / "vectors.npy"
    output.write_bytes(b"kept")
    assert cli.main(["embed", "stories260K", str(tmp_path / "texts.txt"), "-o", str(output), *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tfmodels embed: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert output.read_bytes() == b"kept"
