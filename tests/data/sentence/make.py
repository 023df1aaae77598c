"""Writes `minilm_stsb.npz`: what sentence-transformers 6.2.0 computes with all-MiniLM-L6-v2 for the STS benchmark.

python tests/data/sentence/make.py FOLDER_OF_MODEL stsb-en-test.csv

It holds the cosines of all 1,379 pairs of the test set and of the captions among the examples' data, and the vectors
of the first four texts of the captions.
"""

import csv
import lzma
import sys
from pathlib import Path

import numpy as np


def main(folder: str, test_set: str) -> None:
    from sentence_transformers import SentenceTransformer

    here = Path(__file__).parent
    captions = here.parents[2] / "examples" / "data" / "stsb_captions_test.tsv.xz"
    with open(test_set, encoding="utf-8", newline="") as file:
        pairs = {"test": [row[:2] for row in csv.reader(file)]}
    with lzma.open(captions, "rt", encoding="utf-8") as file:
        pairs["captions"] = [line.rstrip("\n").split("\t")[1:] for line in file]
    model, arrays = SentenceTransformer(folder, device="cpu"), {}
    for name, rows in pairs.items():
        vectors = model.encode([text for row in rows for text in row])
        arrays[name] = np.sum(vectors[::2] * vectors[1::2], axis=1)
    arrays["vectors"] = vectors[:4]
    np.savez_compressed(here / "minilm_stsb.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
