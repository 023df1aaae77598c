"""The JSON files of a sentence-transformers folder: modules and their options, read and written without a backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tfmodels.utils.files import is_file_name
from tfmodels.utils.json_files import check_kinds, read_object, read_value, write_object
from tfmodels.utils.text import quote

MODULES_NAME = "modules.json"
SETTINGS_NAME = "sentence_bert_config.json"
SENTENCE_NAME = "config_sentence_transformers.json"
NORMALIZE = "normalize"
# The older schema of pooling has a flag for each mode; results are put together in this order.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "linear",
    **{f"torch.nn.modules.activation.{name}": name.lower() for name in ("Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")},
}


@dataclasses.dataclass
class Dense:
    """A dense layer behind the pooling; its weights lie in the folder `path`."""

    out_features: int
    bias: bool = True
    activation: str = "tanh"
    path: str = ""


@dataclasses.dataclass
class Dropout:
    """Dropout behind the pooling, which acts in training alone."""

    dropout: float = 0.2


@dataclasses.dataclass
class LayerNorm:
    """Layer normalisation of vectors of so many values behind the pooling; its weights lie in the folder `path`."""

    layer_norm: int
    path: str = ""


Part = str | Dense | Dropout | LayerNorm
"""What may follow the pooling: "normalize", or one of these."""


@dataclasses.dataclass
class SentenceFolder:
    """The content of the JSON files.

    Fields:
        transformer: folder of the model and the tokenizer, inside the whole one.
        pooling: modes, in the order in which their results are put together.
        tail: what follows the pooling, a `Part` each.
        max_seq_length, lower_case, prompts, default_prompt_name, truncate_dim, similarity_fn_name: as in
            `SentenceEncoder`.
        more_settings, more_sentence: what else sentence_bert_config.json and config_sentence_transformers.json say.
    """

    transformer: str = ""
    pooling: tuple[str, ...] = ("mean",)
    tail: list[Part] = dataclasses.field(default_factory=list)
    max_seq_length: int | None = None
    lower_case: bool = False
    prompts: dict[str, str] = dataclasses.field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    similarity_fn_name: str | None = None
    more_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    more_sentence: dict[str, Any] = dataclasses.field(default_factory=dict)


def part_of(value: Any) -> Part:
    """A part of `SentenceFolder.tail` of itself or of a dict of its fields.

    Raises:
        ValueError: it is none.

    Example:
        >>> part_of({"dropout": 0.1}), part_of("normalize")
        (Dropout(dropout=0.1), 'normalize')
    """
    if value == NORMALIZE or isinstance(value, (Dense, Dropout, LayerNorm)):
        return value
    if isinstance(value, Mapping):
        fields = {field.name for field in dataclasses.fields(Dense)}
        if set(value) == {"dropout"}:
            return Dropout(**value)
        if "layer_norm" in value and set(value) <= {"layer_norm", "path"}:
            return LayerNorm(**value)
        if "out_features" in value and set(value) <= fields:
            return Dense(**value)
    raise ValueError(
        f'tail holds {quote(value)}; "normalize", a dict of out_features, bias and activation for a dense layer, '
        '{"layer_norm": size} or {"dropout": rate} was expected.'
    )


def read_folder(folder: Path) -> SentenceFolder:
    """Read the JSON files of a folder; one without modules.json is a plain model, which gets mean pooling.

    Raises:
        ValueError: broken files, or modules and options that are not known here; the message names the file.
    """
    found = SentenceFolder()
    if (folder / MODULES_NAME).is_file():
        (kind, found.transformer), (second, pooling), *rest = _modules(folder / MODULES_NAME)
        if (kind, second) != ("Transformer", "Pooling"):
            raise ValueError(
                f"{folder / MODULES_NAME} begins with {kind[:60]}, {second[:60]}; Transformer, Pooling was expected."
            )
        found.pooling = _pooling(folder / pooling / "config.json")
        found.tail = [_tail(folder, kind, path) for kind, path in rest]
    for file in sorted((folder / found.transformer).glob("sentence_*_config.json"))[:1]:
        settings = read_object(file)
        check_kinds(settings, {"max_seq_length": int, "do_lower_case": bool}, str(file))
        found.max_seq_length = settings.pop("max_seq_length", None)
        found.lower_case = bool(settings.pop("do_lower_case", False))
        found.more_settings = settings
    if (folder / SENTENCE_NAME).is_file():
        file = folder / SENTENCE_NAME
        sentence = read_object(file)
        kinds = {"prompts": dict, "default_prompt_name": str, "truncate_dim": int, "similarity_fn_name": str}
        check_kinds(sentence, kinds, str(file))
        check_kinds(
            sentence.get("prompts") or {},
            dict.fromkeys(sentence.get("prompts") or {}, str),
            f"{folder / SENTENCE_NAME}: prompts",
        )
        found.prompts = sentence.pop("prompts", None) or {}
        for name in ("default_prompt_name", "truncate_dim", "similarity_fn_name"):
            setattr(found, name, sentence.pop(name, None))
        found.more_sentence = sentence
    return found


def write_folder(folder: Path, content: SentenceFolder, width: int) -> None:
    """Write the JSON files; every `Dense` gets its `path`, where its weights belong.

    Args:
        folder: exists.
        content: what to write; the transformer is in the folder itself.
        width: size of the hidden states.
    """
    settings = {
        **content.more_settings,
        "max_seq_length": content.max_seq_length,
        "do_lower_case": content.lower_case,
    }
    write_object(folder / SETTINGS_NAME, settings, sort_keys=True)
    sentence = {**content.more_sentence, "prompts": content.prompts}
    sentence |= {"default_prompt_name": content.default_prompt_name, "similarity_fn_name": content.similarity_fn_name}
    if content.truncate_dim is not None:
        sentence["truncate_dim"] = content.truncate_dim
    write_object(folder / SENTENCE_NAME, sentence, sort_keys=True)
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    pooling |= {flag: mode in content.pooling for flag, mode in POOLING_FLAGS.items()}
    if tuple(mode for mode in POOLING_FLAGS.values() if mode in content.pooling) != content.pooling:
        pooling = {"embedding_dimension": width, "pooling_mode": list(content.pooling)}  # flags tell no order
    width *= len(content.pooling)
    parts: list[tuple[str, dict[str, Any]]] = [("Transformer", {}), ("Pooling", pooling)]
    for part in content.tail:
        if isinstance(part, Dense):
            part.path = f"{len(parts)}_Dense"
            options = {"in_features": width, "out_features": part.out_features, "bias": part.bias}
            torch_name = next(path for path, name in ACTIVATIONS.items() if name == part.activation)
            parts.append(("Dense", {**options, "activation_function": torch_name}))
            width = part.out_features
        elif isinstance(part, LayerNorm):
            part.path = f"{len(parts)}_LayerNorm"
            parts.append(("LayerNorm", {"dimension": part.layer_norm}))
        elif isinstance(part, Dropout):
            parts.append(("Dropout", dataclasses.asdict(part)))
        else:
            parts.append(("Normalize", {}))
    modules = []
    for index, (kind, options) in enumerate(parts):
        path = f"{index}_{kind}" if index else ""
        modules.append(
            {"idx": index, "name": f"{index}", "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
        if options:
            (folder / path).mkdir(exist_ok=True)
            write_object(folder / path / "config.json", options, sort_keys=True)
    write_object(folder / MODULES_NAME, modules)


def cross_encoder_settings(folder: Path) -> dict[str, Any]:
    """Read what the JSON files of a cross-encoder say beside its config.json.

    Returns:
        `max_seq_length`, `prompts`, `default_prompt_name` and `activation_fn`, as far as they are there.

    Raises:
        ValueError: broken files, or more modules than the transformer.
    """
    if (folder / MODULES_NAME).is_file():
        (kind, path), *more = _modules(folder / MODULES_NAME, fewest=1)
        if kind != "Transformer" or path or more:
            names = ", ".join(name[:60] for name, _ in _modules(folder / MODULES_NAME, fewest=1))
            raise ValueError(
                f"{folder / MODULES_NAME} lists {names}; of a cross-encoder one Transformer in the folder itself is "
                f"supported."
            )
    found: dict[str, Any] = {}
    if (folder / SETTINGS_NAME).is_file():
        settings = read_object(folder / SETTINGS_NAME)
        check_kinds(settings, {"max_seq_length": int}, str(folder / SETTINGS_NAME))
        found["max_seq_length"] = settings.get("max_seq_length")
    if (folder / SENTENCE_NAME).is_file():
        sentence = read_object(folder / SENTENCE_NAME)
        kinds = {"prompts": dict, "default_prompt_name": str, "activation_fn": str}
        check_kinds(sentence, kinds, str(folder / SENTENCE_NAME))
        prompts = sentence.get("prompts") or {}
        check_kinds(prompts, dict.fromkeys(prompts, str), f"{folder / SENTENCE_NAME}: prompts")
        found |= {name: sentence.get(name) for name in kinds}
    return found


def write_cross_encoder(
    folder: Path, max_seq_length: int | None, prompts: dict[str, str], default_prompt_name: str | None
) -> None:
    """Write what `cross_encoder_settings` reads, where it says something; the activation is in config.json."""
    if max_seq_length is not None:
        write_object(folder / SETTINGS_NAME, {"max_seq_length": max_seq_length})
    if prompts:
        names = {"prompts": prompts, "default_prompt_name": default_prompt_name, "model_type": "CrossEncoder"}
        write_object(folder / SENTENCE_NAME, names, sort_keys=True)


def _modules(file: Path, fewest: int = 2) -> list[tuple[str, str]]:
    """Kind and folder of each module, in order."""
    try:
        entries = read_value(file)
    except ValueError as error:
        raise ValueError(f"{file} is no list of modules with idx, type and path: {error}") from error
    kinds = {"idx": int, "type": str, "path": str}
    for entry in entries if isinstance(entries, list) else [None]:
        if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in kinds.items()):
            raise ValueError(f"{file} is no list of modules with idx, type and path: it holds {quote(entry)}.")
    entries.sort(key=lambda entry: entry["idx"])
    found = [(entry["type"].rsplit(".", 1)[-1], PurePosixPath(entry["path"])) for entry in entries]
    if len(found) < fewest or not all(map(_is_inside, (path for _, path in found))):
        number = "two or more modules" if fewest == 2 else "a module"
        raise ValueError(f"{file} must list {number}, with paths inside the folder.")
    return [(kind, "/".join(path.parts)) for kind, path in found]


def _is_inside(path: PurePosixPath) -> bool:
    return not path.is_absolute() and all(map(is_file_name, path.parts))


def _pooling(file: Path) -> tuple[str, ...]:
    options = read_object(file)
    check_kinds(options, {"pooling_mode": (str, list)}, str(file))
    if options.get("include_prompt") is False:
        raise ValueError(f"{file} has include_prompt=False; leaving prompts out of the pooling is not supported.")
    modes = options.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in POOLING_FLAGS.items() if options.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not modes or not all(isinstance(mode, str) for mode in modes):
        raise ValueError(f"{file} has pooling_mode={quote(modes)}; names of modes were expected.")
    return tuple(modes)


def _tail(folder: Path, kind: str, path: str) -> Part:
    file = folder / path / "config.json"
    options = read_object(file) if file.is_file() else {}
    tensors = [options.get(name) for name in ("module_input_name", "module_output_name")]
    if any(one not in (None, "sentence_embedding") for one in tensors) or options.get("use_residual"):
        raise ValueError(f"{file}: only modules on sentence_embedding without residuals are supported.")
    if kind == "Normalize":
        return NORMALIZE
    if kind == "Dropout":
        rate = options.get("dropout", 0.2)
        if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f"{file} has dropout={quote(rate)}; a rate from 0 to less than 1 was expected.")
        return Dropout(rate)
    if kind == "LayerNorm":
        check_kinds(options, {"dimension": int}, str(file))
        if (options.get("dimension") or 0) < 1:
            raise ValueError(f"{file} has no dimension, the size of the vectors.")
        return LayerNorm(options["dimension"], path)
    if kind != "Dense":
        raise ValueError(
            f"{folder / MODULES_NAME} lists a module {kind[:200]}; behind the pooling, Dense, LayerNorm, Normalize "
            "and Dropout are known."
        )
    check_kinds(options, {"activation_function": str, "bias": bool, "out_features": int}, str(file))
    activation = options.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in ACTIVATIONS:
        raise ValueError(f"{file} has activation_function={quote(activation)}; known are {', '.join(ACTIVATIONS)}.")
    if (options.get("out_features") or 0) < 1:
        raise ValueError(f"{file} has no out_features, the size of a dense layer's output.")
    return Dense(options["out_features"], options.get("bias", True), ACTIVATIONS[activation], path)
