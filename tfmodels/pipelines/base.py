"""The base of all pipelines: inputs in, batches through the model, results out in the order of the inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from tfmodels.pipelines import devices
from tfmodels.pipelines.forward import Compute, Row, logits, reads_one_row, run_rows
from tfmodels.pipelines.inputs import LIST, ONE, STREAM, read_inputs
from tfmodels.pipelines.settings import Settings, count
from tfmodels.pipelines.tasks import check_head
from tfmodels.tokenization import PreTrainedTokenizerFast
from tfmodels.utils.text import quote

# Batches that are sorted by length together: of a list, and of a stream, which is read ahead so far.
_LIST_WINDOW, _STREAM_WINDOW = 64, 4


class PipelineException(ValueError):
    """An input that a pipeline cannot work on."""


class Pipeline:
    """Base of the pipelines: a model, its tokenizer, and everything between texts and results.

    A pipeline is called with one input, a list of inputs, or an iterator over inputs (a generator, a
    `tf.data.Dataset`), and returns one result, a list of results, or an iterator over results, in the order of the
    inputs. Inputs of similar length share a batch; what a text gets does not depend on its neighbours.

    Args:
        model: a model that can do the task.
        tokenizer: the model's tokenizer; it is not changed.
        task: the name that the task was asked for by.
        framework, device, device_map: see `tfmodels.pipelines.devices`.
        batch_size: inputs that the model reads at a time.
        num_workers: accepted for scripts that have it; the tokenizer is threaded by itself.
        show_progress: draw a bar while a list is worked on.
        **parameters: defaults of the parameters that calls take.

    Raises:
        TypeError: an unknown parameter, or a model or tokenizer of another kind.
        ValueError: a model that cannot do the task, or a wrong value.
    """

    task: ClassVar[str]
    # The head a model needs, by the end of its class name, and what its class says it is.
    head: ClassVar[str]
    settings_class: ClassVar[type[Settings]] = Settings
    compute: ClassVar[Compute] = staticmethod(logits)
    # Whether every token has outputs of its own.
    per_token: bool = False
    default_batch_size: ClassVar[int] = 8

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        task: str | None = None,
        framework: str | None = None,
        device: Any = None,
        device_map: Any = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        show_progress: bool = False,
        **parameters: Any,
    ):
        self.check_model(model)
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise TypeError(
                f"{type(self).__name__} needs the model's tokenizer, such as AutoTokenizer.from_pretrained gives; got "
                f"{quote(tokenizer)}."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.framework = devices.check_framework(framework)
        self.device = devices.check_device(device, device_map)
        self.batch_size = None if batch_size is None else count("batch_size", batch_size)
        if num_workers is not None:
            count("num_workers", num_workers, 0)
        self.show_progress = show_progress
        if task is not None:
            self.task = task
        self.settings = self.first_settings().changed(parameters, type(self).__name__)

    @classmethod
    def check_model(cls, model: Any) -> None:
        """Raise ValueError where a model cannot do the task, with what it can."""
        check_head(cls, model)

    def first_settings(self) -> Settings:
        """The parameters before any is given."""
        return self.settings_class()

    @property
    def dtype(self) -> str:
        """The dtype that the model computes in."""
        return self.model.compute_dtype

    # Calls -----------------------------------------------------------------------------------------------------------

    def __call__(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
        show_progress: bool | None = None,
        **parameters: Any,
    ) -> Any:
        """Work on inputs.

        Args:
            inputs: one input, a list, or an iterator; see the class.
            batch_size, show_progress: instead of those of the constructor.
            num_workers: as of the constructor.
            **parameters: parameters of the task for this call.

        Returns:
            One result, a list, or an iterator.
        """
        if num_workers is not None:
            count("num_workers", num_workers, 0)
        settings = self.settings.changed(parameters, type(self).__name__)
        kind, items = self.read_inputs(inputs, settings)
        return self.run(kind, items, settings, batch_size, show_progress)

    def read_inputs(self, inputs: Any, settings: Any) -> tuple[str, Any]:
        """The form of the inputs, ONE, LIST or STREAM, and the inputs; tasks whose inputs are lists override it."""
        return read_inputs(inputs)

    def run(
        self, kind: str, items: Any, settings: Any, batch_size: int | None = None, show_progress: bool | None = None
    ) -> Any:
        """Work on inputs of one kind.

        Args:
            kind: ONE, LIST or STREAM.
            items: what `read_inputs` returned with it.
            settings: the parameters.
            batch_size, show_progress: of the call, None where they are not given.
        """
        given = self.batch_size if batch_size is None else count("batch_size", batch_size)
        if kind == ONE:
            return next(self.results([items], settings, given or self.default_batch_size, 1))
        if kind == STREAM:
            # What a stream's source has not been asked for, it may be waiting for somebody to bring.
            return self.results(items, settings, given or 1, 1 if given in (None, 1) else given * _STREAM_WINDOW)
        size = given or self.default_batch_size
        results: Iterable[Any] = self.results(items, settings, size, size * _LIST_WINDOW)
        if self.show_progress if show_progress is None else show_progress:
            from rich.progress import track

            results = track(results, description=self.task, total=len(items))
        return list(results)

    def results(self, items: Iterable[Any], settings: Any, batch_size: int, window: int) -> Iterator[Any]:
        """The results of inputs, in order; `window` inputs are sorted by length together."""
        items = iter(items)
        while group := list(itertools.islice(items, window)):
            rows = [list(self.encode(item, settings)) for item in group]
            flat = list(itertools.chain.from_iterable(rows))
            order = sorted(range(len(flat)), key=lambda index: -len(flat[index]))
            outputs: list[Any] = [None] * len(flat)
            for batch in self.batches(flat, order, batch_size):
                for index, output in zip(batch, self.forward([flat[index] for index in batch], settings), strict=True):
                    outputs[index] = output
            done = 0
            for item, own in zip(group, rows, strict=True):
                yield self.decode(item, own, outputs[done : done + len(own)], settings)
                done += len(own)

    def batches(self, rows: Sequence[Row], order: Sequence[int], batch_size: int) -> Iterator[list[int]]:
        """Groups of row numbers that go through the model together: `batch_size` rows with the same inputs."""
        if reads_one_row(self.model):
            batch_size = 1
        groups: dict[tuple[str, ...], list[int]] = {}
        for index in order:
            if len(rows[index]):
                groups.setdefault(tuple(rows[index].inputs), []).append(index)
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                yield group[start : start + batch_size]

    # What tasks fill in ----------------------------------------------------------------------------------------------

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        """The rows of an input: one, or several where the text is long or there are several questions to it."""
        raise NotImplementedError

    def forward(self, rows: Sequence[Row], settings: Any) -> list[Any]:
        """The model's outputs for a batch of rows."""
        for row in rows:
            self.check_length(row)
        outputs = run_rows(self.model, type(self).compute_key(), type(self).compute, rows, self.pad_id)
        if self.per_token:
            outputs = [
                {name: value[: len(row)] for name, value in output.items()}
                for row, output in zip(rows, outputs, strict=True)
            ]
        return outputs

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        """The result of an input; an output is None where its row has no tokens."""
        raise NotImplementedError

    @classmethod
    def compute_key(cls) -> str:
        """The name of the computation in the model's cache of programs."""
        return f"pipeline {cls.compute.__module__}.{cls.compute.__qualname__}"

    @property
    def pad_id(self) -> int:
        """The token that fills rows up."""
        for found in (self.model.config.pad_token_id, self.tokenizer.pad_token_id):
            if found is not None:
                return found
        return 0

    def check_length(self, row: Row) -> None:
        """Raise ValueError where a row is longer than the model can read."""
        limit = self.model.backbone.longest_input
        if limit is not None and len(row) > limit:
            raise ValueError(
                f"a text of {len(row)} tokens is longer than the {limit} that {type(self.model).__name__} reads"
                f"{self.way_out}"
            )

    # What to do about a text that is too long, to end a message with.
    way_out: ClassVar[str] = "; shorten it, or pass truncation=True, max_length=..."

    # Beside calls ----------------------------------------------------------------------------------------------------

    def predict(self, inputs: Any) -> Any:
        """The same as a call, by the name that scikit-learn has for it."""
        return self(inputs)

    def transform(self, inputs: Any) -> Any:
        """The same as a call, by the name that scikit-learn has for it."""
        return self(inputs)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write the model and the tokenizer into a folder, which `pipeline(task, folder)` loads."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.tokenizer.save_pretrained(save_directory)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(task={self.task!r}, model={type(self.model).__name__}, dtype={self.dtype})"


def softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Softmax along an axis.

    Example:
        >>> softmax(np.array([0.0, 0.0])).tolist()
        [0.5, 0.5]
    """
    scores = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return scores / scores.sum(axis=axis, keepdims=True)


__all__ = ["LIST", "ONE", "STREAM", "Pipeline", "PipelineException", "Row", "softmax"]
