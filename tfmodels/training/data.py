"""From texts to training batches on tf.data.

Text is tokenised once, into columns: a dict of rows under the names of a model's inputs, which is what a tokenizer
returns. `pack`, `tokenize_words` and `question_windows` make columns for language models, for tokens with labels and
for questions; `batches` turns any columns into a `tf.data.Dataset` of padded batches for `fit`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfmodels.models.losses import IGNORED

# What fills up rows that are shorter than their batch; input_ids take the tokenizer's padding token.
_PADDING = {"attention_mask": 0, "position_ids": 0, "token_type_ids": 0, "labels": IGNORED, "word_ids": -1}


# Batches ---------------------------------------------------------------------------------------------------------


def batches(
    columns: Mapping[str, Any],
    batch_size: int,
    *,
    pad_token_id: int | None = None,
    buckets: Sequence[int] | None = None,
    seed: int | None = None,
    drop_remainder: bool = False,
    transform: Callable[[dict[str, tf.Tensor], tf.Tensor], dict[str, tf.Tensor]] | None = None,
    position: Callable[[], Any] | None = None,
) -> tf.data.Dataset:
    """Batches of rows, padded to the right, shuffled anew in every iteration.

    What comes is a function of `seed` and of the number of batches that came before, so that a run that was broken
    off goes on as it would have: with a `Position`, Keras's `BackupAndRestore` needs nothing else, whether it saves
    every epoch or every few batches.

    Where a row has two texts, zip two datasets of one seed, without buckets: they draw the same rows.

    Args:
        columns: rows by name, `input_ids` among them. Integer columns whose rows are as long as those of `input_ids`
            are padded: attention_mask, position_ids, token_type_ids, labels (with -100) and word_ids (with -1). Others
            (labels of whole rows, start_positions) have rows of one shape.
        batch_size: rows per batch; the last of each bucket has fewer.
        pad_token_id: fills `input_ids`; needed where rows differ in length or there are buckets.
        buckets: lengths to pad to. A batch has rows of one bucket, so that little is padding and compiled functions
            see few shapes. None pads to the longest row of each batch.
        seed: shuffle rows and batches; None leaves them in order (in order of buckets, where there are any).
        drop_remainder: leave smaller batches out: another choice of rows in every iteration.
        transform: what else to do with a batch, as a graph: (features, seed int64 (2,)) -> features, such as
            `mask_tokens` with its settings. It needs `seed`.
        position: says how many batches came before, asked at the first batch of an iteration: a `Position` under
            `fit`. By default iterations are counted, and each is a whole epoch; `lambda: 0` makes all alike.

    Returns:
        A dataset of dicts of tensors: integers as int32, with a known number of batches per iteration.

    Raises:
        ValueError: no rows; columns that do not fit together; a length that no bucket has; no padding token; a
            transform without a seed.

    Example:
        >>> rows = {"input_ids": [[5, 6, 7], [8], [9, 4]], "labels": [0, 1, 0]}
        >>> for batch in batches(rows, 2, pad_token_id=0):
        ...     print(batch["input_ids"].numpy().tolist(), batch["labels"].numpy().tolist())
        [[5, 6, 7], [8, 0, 0]] [0, 1]
        [[9, 4]] [0]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; at least 1 was expected.")
    if transform is not None and seed is None:
        raise ValueError("transform draws at random: give it a seed.")
    tensors, lengths = _as_tensors(columns)
    fills = {name: _PADDING.get(name, pad_token_id) for name, rows in tensors.items() if _is_ragged(rows)}
    sizes = np.unique(lengths) if buckets is None else np.array(sorted(buckets))
    bucket_of = np.zeros_like(lengths) if buckets is None else np.searchsorted(sizes, lengths)
    if lengths.max() > sizes[-1]:
        raise ValueError(
            f"a row has {lengths.max()} tokens; the largest bucket has {sizes[-1]}: truncate, or add one."
        )
    if pad_token_id is None and (len(sizes) > 1 or lengths.min() < sizes[-1]):
        raise ValueError("pad_token_id is None and rows have to be padded: give it the tokenizer's pad_token_id.")
    sizes = tf.constant(sizes, tf.int64)
    steps = len(_batches_of_epoch(bucket_of, batch_size, drop_remainder, None))
    if not steps:
        raise ValueError(f"drop_remainder leaves nothing of {len(lengths)} rows in batches of {batch_size}.")
    iterations = itertools.count()

    def rest_of_epoch() -> np.ndarray:
        """A line per batch of this iteration: which of all batches it is, and its rows, filled up with -1."""
        epoch, first = divmod(next(iterations) * steps if position is None else int(position()), steps)
        generator = None if seed is None else np.random.default_rng((seed, epoch))
        plan = _batches_of_epoch(bucket_of, batch_size, drop_remainder, generator)
        numbers = np.arange(epoch * steps, (epoch + 1) * steps)
        return np.concatenate([numbers[:, None], plan], axis=1)[first:]

    def start(_: tf.Tensor) -> tf.Tensor:
        lines = tf.numpy_function(rest_of_epoch, [], tf.int64, stateful=True)
        # True of whole epochs. Keras asks how many batches there are, and has to hear it of the first one too, of
        # which a resumed run only takes the rest.
        lines.set_shape((steps, 1 + batch_size))
        return lines

    def load(line: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.boolean_mask(line[1:], line[1:] >= 0)
        features = {name: tf.gather(column, rows) for name, column in tensors.items()}
        longest = tf.reduce_max(tf.gather(tf.constant(lengths), rows))
        length = sizes[tf.searchsorted(sizes, longest[None])[0]]
        for name, fill in fills.items():
            features[name] = features[name].to_tensor(fill, shape=tf.stack([-1, length]))
        return features if transform is None else transform(features, tf.stack([tf.cast(seed, tf.int64), line[0]]))

    data = tf.data.Dataset.from_tensors(0).map(start).unbatch()
    return data.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


class Position(keras.callbacks.Callback):
    """Tells `batches` how many batches the model has learned from: a count that checkpoints hold with the optimizer.

    Give one object to `batches(..., position=position)` and to `fit(..., callbacks=[backup, position])`: after Keras's
    `BackupAndRestore`, before callbacks that end training, and without `steps_per_epoch`.

    Raises:
        ValueError: `fit` runs with an optimizer that scales losses (float16): it does not count batches that overflow.

    Example:
        >>> import keras
        >>> from tfmodels import TFLlamaForCausalLM
        >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
        >>> model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        >>> position = Position()
        >>> rows = batches({"input_ids": [[1, 403], [1, 9]], "labels": [[1, 403], [1, 9]]}, 1, position=position)
        >>> history = model.fit(rows, epochs=3, verbose=0, callbacks=[position])
        >>> position()
        4
    """

    def __init__(self):
        super().__init__()
        self.seen = 0
        self._ends_epoch = False

    def __call__(self) -> int:
        """Batches before this epoch's first, or before where this epoch goes on."""
        return self.seen

    def _count(self) -> int:
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "LossScaleOptimizer does not count batches that overflow: train in bfloat16 or float32 to resume "
                "within an epoch, or leave Position out."
            )
        # `iterations` counts updates, of which there are fewer where gradients are accumulated.
        return int(optimizer._iterations)

    def on_train_begin(self, logs: Any = None) -> None:
        # A backup from a run that had itself been resumed may bear the wrong epoch: BackupAndRestore counts epochs
        # from 0 again until one ends.
        if self.model._initial_epoch is not None:
            self.model._initial_epoch = self._count() // self.params["steps"]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # Not read when the data is asked for: in a graph, that may be after the optimizer has counted its next step.
        self.seen = self._count()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # An epoch resumed within is short. Keras would find out by one more step, which has no data and is counted.
        rest = self.params["steps"] - self.seen % self.params["steps"]
        if batch + 1 == rest < self.params["steps"] and not self.model.stop_training:
            self._ends_epoch = self.model.stop_training = True

    def on_test_begin(self, logs: Any = None) -> None:
        self._let_go_on()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._let_go_on()

    def _let_go_on(self) -> None:
        """After the epoch's last batch, and before other callbacks may want to end training."""
        if self._ends_epoch:
            self._ends_epoch = self.model.stop_training = False


def _batches_of_epoch(
    bucket_of: np.ndarray, batch_size: int, drop_remainder: bool, generator: np.random.Generator | None
) -> np.ndarray:
    """Rows of each batch, int64 (batches, batch_size), -1 where there are fewer; as many batches for any generator."""
    order = np.arange(len(bucket_of)) if generator is None else generator.permutation(len(bucket_of))
    found = []
    for bucket in np.unique(bucket_of):
        rows = order[bucket_of[order] == bucket]
        if drop_remainder:
            rows = rows[: len(rows) // batch_size * batch_size]
        found.append(np.pad(rows, (0, -len(rows) % batch_size), constant_values=-1).reshape(-1, batch_size))
    plan = np.concatenate(found).astype("int64")
    return plan if generator is None else generator.permutation(plan)


def _as_tensors(columns: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Columns as tensors, ragged where they are to be padded, and the rows' lengths in tokens."""
    if "input_ids" not in columns:
        raise ValueError(f"columns are {', '.join(columns) or 'none'}; input_ids was expected among them.")
    counts = {name: len(rows) for name, rows in columns.items()}
    if len(set(counts.values())) > 1 or not counts["input_ids"]:
        raise ValueError(f"columns have {counts} rows; the same number, and at least one, was expected.")
    lengths = _lengths(columns["input_ids"])
    if lengths is None:
        raise ValueError("input_ids: a list of token ids per row was expected.")
    if not lengths.all():
        raise ValueError(f"input_ids: row {int(np.argmin(lengths))} has no tokens.")
    tensors = {}
    for name, rows in columns.items():
        if np.array_equal(_lengths(rows), lengths):
            flat = np.concatenate([np.asarray(row) for row in rows])
            if flat.ndim == 1 and np.issubdtype(flat.dtype, np.integer):
                if name != "input_ids" and name not in _PADDING:
                    raise ValueError(
                        f"{name!r} has a number per token; padded columns are input_ids, {', '.join(_PADDING)}."
                    )
                tensors[name] = tf.RaggedTensor.from_row_lengths(flat.astype("int32"), lengths)
                continue
        try:
            values = np.asarray(rows)
        except ValueError:
            values = np.empty((), object)
        if values.dtype == object:
            raise ValueError(f"{name!r}: rows are neither as long as those of input_ids nor of one shape.")
        kind = {"i": "int32", "u": "int32", "f": "float32"}.get(values.dtype.kind)
        tensors[name] = tf.constant(values if kind is None else values.astype(kind))
    return tensors, lengths


def _is_ragged(column: Any) -> bool:
    return isinstance(column, tf.RaggedTensor)


def _lengths(rows: Any) -> np.ndarray | None:
    """The length of each row; None where rows are single values."""
    if any(np.ndim(row) == 0 or isinstance(row, str) for row in rows[:1]):
        return None
    return np.array([len(row) for row in rows], "int64")


# Language models -------------------------------------------------------------------------------------------------


def pack(documents: Sequence[Sequence[int]], length: int, *, pad_token_id: int) -> dict[str, np.ndarray]:
    """Put token sequences side by side into rows, so that hardly any of it is padding.

    Sequences do not see each other: positions start from 0 with each, which decoders take for packed sequences (in
    training; to evaluate too, load them with `use_cache=False`), and the first token of each is no label. A sequence
    longer than a row is cut into several.

    Args:
        documents: token ids of each, with the special tokens that the model wants.
        length: tokens per row.
        pad_token_id: fills what is left.

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
    """Labels for masked language modelling: hide tokens and ask for them.

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
    # A unit is as good as the draw at its first token: the lowest of each row are taken.
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


# Words with labels -----------------------------------------------------------------------------------------------


def tokenize_words(
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    labels: Sequence[Sequence[int]],
    *,
    max_length: int | None = None,
    labelled: str = "first",
    inside: Mapping[int, int] | None = None,
) -> dict[str, list]:
    """Tokenise sentences that are split into words, and give the words' labels to their tokens.

    Args:
        tokenizer: the model's.
        sentences: words of each.
        labels: a class id per word; -100 for words that do not count.
        max_length: tokens that a sentence is cut to; None keeps all.
        labelled: which tokens of a word bear its label: "first"; "last", for decoders, which have read the word only
            then; or "all". The others get -100.
        inside: with "all", the labels of a word's tokens after the first, by the word's, such as {1: 2} where 1 is
            B-person and 2 is I-person. Labels that it lacks stay.

    Returns:
        Columns: what the tokenizer returns, and `labels`.

    Raises:
        ValueError: no label for some word, another `labelled`, or `inside` without "all".

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> rows = tokenize_words(tokenizer, [["Lily", "smiled"]], [[3, 0]])
        >>> tokenizer.convert_ids_to_tokens(rows["input_ids"][0]), rows["labels"][0]
        (['<s>', '▁Lily', '▁s', 'm', 'il', 'ed'], [-100, 3, 0, -100, -100, -100])
    """
    if len(sentences) != len(labels):
        raise ValueError(f"{len(sentences)} sentences and {len(labels)} rows of labels; as many were expected.")
    for row, (words, own) in enumerate(zip(sentences, labels, strict=True)):
        if len(words) != len(own):
            raise ValueError(f"sentence {row} has {len(words)} words and {len(own)} labels; one each was expected.")
    if labelled not in ("first", "last", "all"):
        raise ValueError(f'labelled={labelled!r}; "first", "last" or "all" was expected.')
    if inside is not None and labelled != "all":
        raise ValueError(f'inside is for labelled="all"; with {labelled!r} a word has one label.')
    encoded = tokenizer(
        [list(words) for words in sentences],
        is_split_into_words=True,
        truncation=max_length is not None,
        max_length=max_length,
    )
    columns = {name: list(rows) for name, rows in encoded.items()}
    columns["labels"] = []
    for row, own in enumerate(labels):
        words = encoded.word_ids(row)
        of_row = []
        for word, before, after in zip(words, [None, *words[:-1]], [*words[1:], None], strict=True):
            label = IGNORED if word is None else int(own[word])
            if (labelled == "first" and word == before) or (labelled == "last" and word == after):
                label = IGNORED
            elif inside is not None and word == before:
                label = inside.get(label, label)
            of_row.append(label)
        columns["labels"].append(of_row)
    return columns


# Questions -------------------------------------------------------------------------------------------------------


class Windows(NamedTuple):
    """Questions with pieces of their contexts.

    Fields:
        columns: for `batches`.
        questions: per row, which question it belongs to.
        offsets: per row and token the (start, end) characters of the context that it stands for, None where it is not
            of the context.
    """

    columns: dict[str, list]
    questions: list[int]
    offsets: list[list[tuple[int, int] | None]]


def question_windows(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[tuple[int, int] | None] | None = None,
    *,
    max_length: int,
    doc_stride: int,
) -> Windows:
    """Tokenise questions with their contexts, long contexts in several windows that overlap.

    Args:
        tokenizer: the model's.
        questions, contexts: a text each per question.
        answers: per question the characters (start, end) of its answer in the context, None where there is none.
            Given, the columns have `start_positions` and `end_positions`: the answer's first and last token, or 0 and
            0 (SQuAD's "no answer here") in windows that do not hold all of it.
        max_length: tokens per window, question and special tokens included.
        doc_stride: tokens of the context that a window repeats from the one before.

    Raises:
        ValueError: not one context and answer per question; an answer outside its context; a question that leaves no
            room for the context.

    Source:
        Rajpurkar et al., https://arxiv.org/abs/1606.05250.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> context = "Tom lives by the sea and Lily lives in a big red house on the hill."
        >>> windows = question_windows(
        ...     tokenizer, ["Where is Tom?"], [context], [(10, 20)], max_length=30, doc_stride=6
        ... )
        >>> windows.questions, windows.columns["start_positions"]
        ([0, 0], [16, 0])
        >>> start, end = windows.columns["start_positions"][0], windows.columns["end_positions"][0]
        >>> context[windows.offsets[0][start][0] : windows.offsets[0][end][1]]
        ' by the sea'
    """
    for name, values in (("contexts", contexts), ("answers", answers)):
        if values is not None and len(values) != len(questions):
            raise ValueError(f"{len(questions)} questions and {len(values)} {name}; one each was expected.")
    for number, answer in enumerate(answers or ()):
        if answer is not None and not 0 <= answer[0] < answer[1] <= len(contexts[number]):
            raise ValueError(
                f"answer {number} has the characters {tuple(answer)}; its context has 0 to {len(contexts[number])}."
            )
    encoded = tokenizer(
        list(questions),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    columns = {name: list(rows) for name, rows in encoded.items()}
    numbers, all_offsets = columns.pop("overflow_to_sample_mapping"), columns.pop("offset_mapping")
    offsets = [
        [tuple(span) if part == 1 else None for span, part in zip(spans, encoded.sequence_ids(row), strict=True)]
        for row, spans in enumerate(all_offsets)
    ]
    if answers is not None:
        spans = [_tokens_of(answers[number], own) for number, own in zip(numbers, offsets, strict=True)]
        columns["start_positions"] = [start for start, _ in spans]
        columns["end_positions"] = [end for _, end in spans]
    return Windows(columns, numbers, offsets)


def _tokens_of(answer: tuple[int, int] | None, offsets: list[tuple[int, int] | None]) -> tuple[int, int]:
    """The first and the last token of an answer in a window; (0, 0) if it is not wholly there."""
    if answer is None:
        return 0, 0
    start, end = answer
    inside = [i for i, span in enumerate(offsets) if span is not None and span[0] < end and span[1] > start]
    if not inside or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


class Answer(NamedTuple):
    """A span of a context: its text ("" for no answer), its score (logits added up), its characters."""

    text: str
    score: float
    characters: tuple[int, int]


def best_answers(
    windows: Windows,
    contexts: Sequence[str],
    start_logits: Sequence[Any],
    end_logits: Sequence[Any],
    *,
    max_tokens: int = 30,
    no_answer: float | None = None,
) -> list[Answer]:
    """The best span of each question over all its windows.

    Args:
        windows: what `question_windows` gave, in that order.
        contexts: as given there.
        start_logits, end_logits: per window float (length,), or (windows, length); padding to the right is not looked
            at.
        max_tokens: longest answer.
        no_answer: None to answer always; else how much better than the best span position 0 must score in every
            window for the answer to be "".

    Raises:
        ValueError: not one row of logits per window.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> contexts = ["Tom lives by the sea."]
        >>> windows = question_windows(tokenizer, ["Where is Tom?"], contexts, [(13, 20)], max_length=64, doc_stride=8)
        >>> start, end = (windows.columns[f"{side}_positions"] for side in ("start", "end"))
        >>> best_answers(windows, contexts, np.eye(64)[start], np.eye(64)[end])[0].text
        'the sea'
    """
    count = len(windows.questions)
    if len(start_logits) != count or len(end_logits) != count:
        raise ValueError(f"{len(start_logits)} and {len(end_logits)} rows of logits; {count} windows.")
    best = [Answer("", -np.inf, (0, 0)) for _ in contexts]
    nothing = np.full(len(contexts), np.inf)
    for row, number in enumerate(windows.questions):
        own = windows.offsets[row]
        # Tokens that stand for no characters begin and end nothing.
        inside = np.array([i for i, span in enumerate(own) if span is not None and span[1] > span[0]], int)
        starts, ends = (np.asarray(logits[row], "float32")[: len(own)] for logits in (start_logits, end_logits))
        nothing[number] = min(nothing[number], float(starts[0] + ends[0]))
        if not len(inside):
            continue
        scores = starts[inside][:, None] + ends[inside][None, :]
        far = inside[None, :] - inside[:, None]
        scores[(far < 0) | (far >= max_tokens)] = -np.inf
        first, last = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[first, last] > best[number].score:
            start, end = own[inside[first]][0], own[inside[last]][1]
            text = contexts[number][start:end]
            start, end = start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())
            best[number] = Answer(contexts[number][start:end], float(scores[first, last]), (start, end))
    if no_answer is None:
        return best
    return [
        Answer("", float(none), (0, 0)) if none - answer.score > no_answer else answer
        for answer, none in zip(best, nothing, strict=True)
    ]
