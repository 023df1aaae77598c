"""Data for language models: documents packed into rows, and masked tokens."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfmodels.models.losses import IGNORED


def pack(documents: Sequence[Sequence[int]], length: int, *, pad_token_id: int) -> dict[str, np.ndarray]:
    """Pack token sequences side by side into rows of one length, with hardly any padding.

    Sequences do not attend to each other: the positions of each start from 0, which decoders recognise as packed
    sequences (in training; for evaluation load them with `use_cache=False`). The first token of a sequence is no
    label. A sequence longer than a row is cut into several.

    Args:
        documents: token ids of each, with the special tokens that the model wants.
        length: tokens per row.
        pad_token_id: fills the rest of a row.

    Returns:
        Columns `input_ids`, `position_ids` and `labels` (-100 where there is nothing to predict), int32
        (rows, length).

    Raises:
        ValueError: no tokens at all, or a length below 2.

    Source:
        Best-fit decreasing; Ding et al., https://arxiv.org/abs/2404.10830.

    Example:
        >>> rows = pack([[5, 6, 7], [8, 9]], 6, pad_token_id=0)
        >>> for name, values in rows.items():
        ...     print(name, values.tolist())
        input_ids [[5, 6, 7, 8, 9, 0]]
        position_ids [[0, 1, 2, 0, 1, 0]]
        labels [[-100, 6, 7, -100, 9, -100]]
    """
    if length < 2:
        raise ValueError(f"length={length}; at least 2 was expected: one token predicts the next.")
    pieces = [np.asarray(ids[i : i + length]) for ids in documents for i in range(0, len(ids), length)]
    if not pieces:
        raise ValueError(f"{len(documents)} documents without a token: nothing to pack.")
    rows: list[list[np.ndarray]] = []
    with_space: dict[int, list[int]] = {}  # free tokens -> rows that have as many
    spaces: list[int] = []  # its keys, ascending
    for piece in sorted(pieces, key=len, reverse=True):
        at = bisect.bisect_left(spaces, len(piece))
        if at == len(spaces):
            row, space = len(rows), length
            rows.append([])
        else:
            space = spaces[at]
            row = with_space[space].pop()
            if not with_space[space]:
                del with_space[space], spaces[at]
        rows[row].append(piece)
        left = space - len(piece)
        if left not in with_space:
            bisect.insort(spaces, left)
        with_space.setdefault(left, []).append(row)
    shape = (len(rows), length)
    ids, positions = np.full(shape, pad_token_id, "int32"), np.zeros(shape, "int32")
    labels = np.full(shape, IGNORED, "int32")
    for row, inside in enumerate(rows):
        start = 0
        for piece in inside:
            end = start + len(piece)
            ids[row, start:end] = piece
            positions[row, start:end] = np.arange(len(piece))
            labels[row, start + 1 : end] = piece[1:]
            start = end
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


def mask_tokens(
    features: Mapping[str, tf.Tensor],
    seed: Any,
    *,
    mask_token_id: int,
    vocab_size: int,
    special_ids: Sequence[int],
    share: float = 0.15,
) -> dict[str, tf.Tensor]:
    """Mask tokens of a batch and make labels for masked language modelling.

    In each row the share of tokens is chosen, at least one; 80 % of those become the mask, 10 % another token, 10 %
    stay. With `word_ids` among the features whole words are chosen instead of tokens.

    Args:
        features: a batch with `input_ids` int32 (batch, length), and `word_ids` of the same shape or none: the number
            of the word that each token belongs to, -1 for none (`encoding.word_ids()` of a tokenizer).
        seed: int (2,); the same seed chooses the same tokens.
        mask_token_id, vocab_size: of the tokenizer.
        special_ids: tokens that are never chosen, padding among them: `tokenizer.all_special_ids`.
        share: of the tokens, or words, of each row, between 0 and 1.

    Returns:
        The features without `word_ids`, with other `input_ids` and with `labels`.

    Raises:
        ValueError: a share that is none; a mask beyond the vocabulary; no token that is not special.

    Source:
        Devlin et al., https://arxiv.org/abs/1810.04805.

    Example:
        >>> import functools
        >>> hide = functools.partial(mask_tokens, mask_token_id=4, vocab_size=99, special_ids=[0, 1, 2, 4], share=0.5)
        >>> batch = hide({"input_ids": tf.constant([[1, 50, 51, 52, 53, 2, 0]])}, [0, 0])
        >>> int(tf.math.count_nonzero(batch["labels"] != -100))
        2
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}; a number between 0 and 1 was expected.")
    if not 0 <= mask_token_id < vocab_size:
        raise ValueError(f"mask_token_id={mask_token_id}; the vocabulary has ids 0 to {vocab_size - 1}.")
    ordinary = np.setdiff1d(np.arange(vocab_size, dtype="int32"), np.asarray(list(special_ids), "int32"))
    if not len(ordinary):
        raise ValueError(f"special_ids: all of the vocabulary's {vocab_size} tokens are special.")
    features = dict(features)
    ids = tf.cast(features["input_ids"], tf.int32)
    words = features.pop("word_ids", None)
    special = tf.constant(list(special_ids), tf.int32)
    may = tf.reduce_all(ids[..., None] != special, axis=-1)
    if words is None:
        units = tf.broadcast_to(tf.range(tf.shape(ids)[1]), tf.shape(ids))
        first = may
    else:
        may &= words >= 0
        new = tf.concat([tf.ones_like(may[:, :1]), words[:, 1:] != words[:, :-1]], axis=1)
        units = tf.cumsum(tf.cast(new, tf.int32), axis=1) - 1
        first = may & new
    draws, kinds = tf.unstack(tf.random.stateless_uniform((2, *tf.unstack(tf.shape(ids))), seed))
    # Each unit has the random number drawn at its first token; the units with the lowest are chosen.
    ranks = tf.argsort(tf.argsort(tf.where(first, draws, 2.0), axis=1), axis=1)
    count = tf.reduce_sum(tf.cast(first, tf.float32), axis=1, keepdims=True)
    wanted = tf.maximum(tf.cast(tf.round(share * count), tf.int32), 1)
    chosen_units = tf.cast(first & (ranks < wanted), tf.int32)
    starts = tf.reduce_max(tf.one_hot(units, tf.shape(ids)[1], dtype=tf.int32) * chosen_units[..., None], axis=1)
    chosen = may & (tf.gather(starts, units, batch_dims=1) > 0)
    others = tf.gather(
        tf.constant(ordinary),
        tf.random.stateless_uniform(
            tf.shape(ids), tf.cast(seed, tf.int64) + [1, 0], maxval=len(ordinary), dtype=tf.int32
        ),
    )
    hidden = tf.where(kinds < 0.8, mask_token_id, tf.where(kinds < 0.9, others, ids))
    features["labels"] = tf.where(chosen, ids, IGNORED)
    features["input_ids"] = tf.where(chosen, hidden, ids)
    return features
