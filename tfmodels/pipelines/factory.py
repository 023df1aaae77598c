"""`pipeline`: from the name of a task or a model to the pipeline that does it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tfmodels import auto
from tfmodels.checkpoints import hub
from tfmodels.configs.files import read_config_file
from tfmodels.dtypes import to_policy
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.pipelines.base import Pipeline
from tfmodels.pipelines.devices import check_device, check_framework
from tfmodels.pipelines.tasks import HEADS, TASKS, check_checkpoint, head_of, task_class, task_of_checkpoint
from tfmodels.sentence.config import MODULES_NAME
from tfmodels.sentence.encoder import SentenceEncoder
from tfmodels.tokenization import AutoTokenizer, PreTrainedTokenizerFast
from tfmodels.utils.arguments import HUB
from tfmodels.utils.text import quote


def pipeline(
    task: str | None = None,
    model: str | os.PathLike | TFPreTrainedModel | SentenceEncoder | None = None,
    config: Any = None,
    tokenizer: str | os.PathLike | PreTrainedTokenizerFast | None = None,
    *,
    framework: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    device: Any = None,
    device_map: Any = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    pipeline_class: type[Pipeline] | None = None,
    use_fast: bool | None = None,
    trust_remote_code: bool | None = None,
    feature_extractor: None = None,
    image_processor: None = None,
    video_processor: None = None,
    processor: None = None,
    **kwargs: Any,
) -> Pipeline:
    """Make a pipeline: strings in, plain dicts out.

    Args:
        task: "text-generation", "text-classification" (or "sentiment-analysis"), "token-classification" (or "ner"),
            "question-answering", "fill-mask", "feature-extraction", "zero-shot-classification" or
            "sentence-similarity". Default: what the model's architecture was made for.
        model: a folder, a GGUF file, a bundled name, a hub id, or a model.
        config: of the model, as in `from_pretrained`.
        tokenizer: a tokenizer, or where it is; default: where the model is.
        framework: None or "tf".
        revision, token: for the hub.
        device, device_map: accepted where they name the device that TensorFlow takes by itself, see
            `tfmodels.pipelines.devices`.
        dtype: of weights and computation, as in `from_pretrained`; `torch_dtype` is its old name.
        model_kwargs: further arguments of the model's `from_pretrained`.
        pipeline_class: a subclass of the task's class to make instead.
        use_fast, trust_remote_code: without effect: all tokenizers are fast, and no code of a repository is run.
        feature_extractor, image_processor, video_processor, processor: must be None; the tasks are about text.
        **kwargs: `batch_size`, `show_progress`, further arguments of the hub (`cache_dir`, `local_files_only`,
            `subfolder`, `gguf_file`), and parameters of the task, which are the defaults of its calls.

    Returns:
        A pipeline, see the task's class.

    Raises:
        ValueError: no such task; a model that cannot do it (the message says what it can); neither task nor model.
        TypeError: an unknown argument.
        OSError: no such model.

    Example:
        >>> from tfmodels import pipeline
        >>> write = pipeline(model="stories260K")
        >>> write.task
        'text-generation'
        >>> write("Once upon a time", max_new_tokens=5, do_sample=False, jit_compile=False)[0]["generated_text"]
        'Once upon a time, there was a little'
    """
    for name, value in (
        ("feature_extractor", feature_extractor),
        ("image_processor", image_processor),
        ("video_processor", video_processor),
        ("processor", processor),
    ):
        if value is not None:
            raise ValueError(f"{name}={quote(value)}: the tasks here are about text; leave it out.")
    check_framework(framework)
    check_device(device, device_map)
    kind = None if task is None else task_class(task)
    if model is None:
        raise ValueError(
            f"pipeline needs a model: a folder, a hub id, or the bundled one, pipeline('text-generation', "
            f"'stories260K'){'' if task is not None else '; a task alone or a model alone will do for others'}."
        )
    dtype = torch_dtype if dtype is None else dtype
    where = {"revision": revision, "token": token}
    where |= {name: kwargs.pop(name) for name in HUB if name in kwargs and name not in where}
    options = {**{name: value for name, value in where.items() if value is not None}, **(model_kwargs or {})}
    if isinstance(model, (str, os.PathLike)):
        model, options = hub.gguf_in_folder(model, options)
        if kind is None:
            task = _task_of(model, options)
            kind = task_class(task)
        tokenizer = model if tokenizer is None and not _is_encoder(kind, model, options) else tokenizer
        tokenizer = _load_tokenizer(tokenizer, options)  # takes a moment only, so its absence is told first
        model = _load(kind, model, config, dtype, options)
    else:
        if kind is None:
            task = _task_of_object(model)
            kind = task_class(task)
        if dtype is not None and dtype != "auto":
            _check_dtype(model, dtype)
        if tokenizer is None and not isinstance(model, SentenceEncoder):
            tokenizer = _tokenizer_of(model)
        tokenizer = _load_tokenizer(tokenizer, options)
    if pipeline_class is not None:
        if not (isinstance(pipeline_class, type) and issubclass(pipeline_class, Pipeline)):
            raise TypeError(f"pipeline_class={quote(pipeline_class)}; a subclass of Pipeline was expected.")
        kind = pipeline_class
    return kind(model, tokenizer, task=task, framework=framework, device=device, device_map=device_map, **kwargs)


def _hub(options: Mapping[str, Any]) -> dict[str, Any]:
    return hub.split_options(dict(options))[0]


def _is_sentence_folder(model: str | os.PathLike, options: Mapping[str, Any]) -> bool:
    if "gguf_file" in options:
        return False
    return (hub.resolve(model, patterns=("*.json",), **_hub(options)) / MODULES_NAME).is_file()


def _is_encoder(kind: Any, model: str | os.PathLike, options: Mapping[str, Any]) -> bool:
    return kind.task == "sentence-similarity" and "gguf_file" not in options


def _task_of(model: str | os.PathLike, options: Mapping[str, Any]) -> str:
    """The task that a checkpoint was made for."""
    if _is_sentence_folder(model, options):
        return "sentence-similarity"
    if "gguf_file" in options:
        return "text-generation"
    return task_of_checkpoint(read_config_file(model, **_hub(options)), model)


def _task_of_object(model: Any) -> str:
    if isinstance(model, SentenceEncoder):
        return "sentence-similarity"
    tasks = HEADS.get(head_of(model) or "")
    if not tasks:
        raise ValueError(f"{quote(type(model).__name__)} does not tell a task; name one: {', '.join(TASKS)}.")
    return tasks[0]


def _load(kind: Any, model: str | os.PathLike, config: Any, dtype: Any, options: dict[str, Any]) -> Any:
    """The model that a task needs."""
    if _is_encoder(kind, model, options):
        return SentenceEncoder.from_pretrained(model, dtype=dtype, **options)
    if config is None and "gguf_file" not in options:
        check_checkpoint(kind, read_config_file(model, **_hub(options)), model)
    loader = getattr(auto, f"TFAutoModel{'' if kind.head == 'Model' else kind.head}")
    return loader.from_pretrained(model, config=config, dtype=dtype, **options)


def _check_dtype(model: Any, dtype: Any) -> None:
    wanted, own = to_policy(dtype).name, model.dtype_policy.name
    if wanted != own:
        raise ValueError(
            f"dtype={quote(dtype)}: the model that was given has {own} already; load it with another dtype instead."
        )


def _load_tokenizer(tokenizer: Any, options: dict[str, Any]) -> Any:
    """A tokenizer, read from a place where it is no object yet."""
    if not isinstance(tokenizer, (str, os.PathLike)):
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(tokenizer, **{k: v for k, v in options.items() if k in HUB})
    except FileNotFoundError as error:
        if not str(error).startswith("No tokenizer in"):
            raise
        raise FileNotFoundError(
            f"{error} A pipeline needs it: give tokenizer=, an object or another place, or save it beside the model "
            "by tokenizer.save_pretrained."
        ) from error


def _tokenizer_of(model: Any) -> Any:
    """The place of a loaded model's tokenizer."""
    name = getattr(getattr(model, "config", None), "name_or_path", None)
    if not name:
        raise ValueError(
            "which tokenizer the model needs cannot be guessed, since it was not loaded from a checkpoint: give "
            "tokenizer=."
        )
    return name
