"""LiteRT-LM: a causal language model with its tokenizer in one `.litertlm` file, for Google's on-device engine.

The model is what `tfmodels.export.litert` writes. The tokenizer goes in as `tokenizer.json`, which cuts text as ours
does for every family. Metadata say which token starts a text, which end it, how many fit, and how a chat is written.

    pip install litert-lm-api
    engine = litert_lm.Engine("model.litertlm")
    session = engine.create_session(apply_prompt_template=False)
    session.run_prefill(["Once upon a time"])
    print(session.run_decode().texts[0])
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.export import litert
from tfmodels.export.artifact import ExportOptions, Runner, Signature
from tfmodels.export.extras import require
from tfmodels.export.models import causal, tokenizer_of

_BUILDER = "litert_lm_builder"


def check(model: Any, options: ExportOptions) -> None:
    """Raise where the export cannot work, before anything expensive happens.

    Raises:
        ImportError: a package of the `export` extra is missing.
        ValueError: the model does not generate, there is no tokenizer or one that does not fit, or an option has a
            value that `tfmodels.export.litert` refuses.
    """
    require(_BUILDER, "export", "format='litert_lm'")
    if not causal(model):
        raise ValueError(
            f"{type(model).__name__} does not generate text, as models for LiteRT-LM do; format='litert' takes it."
        )
    litert.check(model, options)
    tokenizer = tokenizer_of(model, options.tokenizer)
    if tokenizer is None:
        raise ValueError("format='litert_lm' needs tokenizer=, a tokenizer or where to find one.")
    size = len(tokenizer)
    if size > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {size} tokens, the model's vocabulary {model.config.vocab_size}.")
    _start_token(tokenizer)
    _stop_tokens(model, tokenizer)


def _start_token(tokenizer: Any) -> int | None:
    """The id that the tokenizer puts before a text, or None.

    Raises:
        ValueError: it puts more around a text than one token before it, which the engine cannot.
    """
    around = tokenizer("", add_special_tokens=True)["input_ids"]
    if not around:
        return None
    text = "a"
    plain, full = (tokenizer(text, add_special_tokens=special)["input_ids"] for special in (False, True))
    if list(full) != [around[0], *plain]:
        raise ValueError(
            f"the tokenizer puts {tokenizer.convert_ids_to_tokens(around)} around a text; LiteRT-LM puts one token "
            f"before it (set add_eos_token=False)."
        )
    return around[0]


def _stop_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a text: the model's, else the tokenizer's.

    Raises:
        ValueError: there is none; the engine does not start without.
    """
    if model.generation_config.eos_token_ids:
        return tuple(model.generation_config.eos_token_ids)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "neither the model's generation_config nor the tokenizer has an end-of-sequence token, which "
            "LiteRT-LM needs: set eos_token_id."
        )
    return (tokenizer.eos_token_id,)


def write(model: Any, target: Path, options: ExportOptions) -> list[Signature]:
    """Write the file."""
    builder = require(f"{_BUILDER}.litertlm_builder", "export", "format='litert_lm'")
    tokenizer = tokenizer_of(model, options.tokenizer)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary)
        signatures = litert.write(model, folder / "model.tflite", options)
        max_length = litert.properties_of(folder / "model.tflite")["max_length"]
        options.step("writing the bundle")
        (folder / "metadata.pb").write_bytes(_metadata(model, tokenizer, max_length).SerializeToString())
        tokenizer.save_pretrained(folder)
        made = builder.LitertLmFileBuilder()
        made.add_system_metadata(
            builder.Metadata(key="Authors", value="exported by tfmodels", dtype=builder.DType.STRING)
        )
        made.add_llm_metadata(str(folder / "metadata.pb"))
        made.add_tflite_model(str(folder / "model.tflite"), builder.TfLiteModelType.PREFILL_DECODE)
        made.add_hf_tokenizer(str(folder / "tokenizer.json"))
        with target.open("wb") as file:
            made.build(file)
    return signatures


def _metadata(model: Any, tokenizer: Any, max_length: int) -> Any:
    """Make the engine's metadata, an `LlmMetadata` message."""
    proto = require(f"{_BUILDER}.runtime.proto.llm_metadata_pb2", "export", "format='litert_lm'")
    metadata = proto.LlmMetadata(max_num_tokens=max_length)
    metadata.llm_model_type.generic_model.SetInParent()
    start = _start_token(tokenizer)
    if start is not None:
        metadata.start_token.token_ids.ids.append(start)
    for token in _stop_tokens(model, tokenizer):
        metadata.stop_tokens.add().token_ids.ids.append(token)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        metadata.jinja_prompt_template = template
    return metadata


class LiteRTLMRunner(Runner):
    """A `.litertlm` file: its graph run by `tfmodels.export.litert`, its texts by the engine.

    Args:
        path: a file that this module wrote.
    """

    generates = True
    padding = False

    def __init__(self, path: str | os.PathLike):
        unpack = require(f"{_BUILDER}.litertlm_builder", "export", "reading a .litertlm file").unpack
        self.path = os.fspath(path)
        self._folder = tempfile.TemporaryDirectory()
        unpack(self.path, self._folder.name)
        (graph,) = Path(self._folder.name).glob("*.tflite")
        self._graph = litert.Generator(graph)
        self.tolerance, self.exact_ids = self._graph.tolerance, self._graph.exact_ids
        self.max_length = self.capacity = self._graph.max_length
        self.weights = self._graph.weights
        self._engine: Any = None

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        return self._graph.run(inputs, signature)

    def generate(self, ids: np.ndarray, max_new_tokens: int) -> np.ndarray:
        return self._graph.generate(ids, max_new_tokens)

    def generate_text(self, text: str, max_new_tokens: int) -> str:
        """Continue a text greedily by LiteRT-LM's own engine.

        Args:
            text: the prompt.
            max_new_tokens: tokens to add.

        Returns:
            The continuation without the prompt, as far as there is room.

        Raises:
            ImportError: the engine is not installed.
        """
        litert_lm = require("litert_lm", "export", "running a .litertlm file as text")
        if self._engine is None:
            self._engine = litert_lm.Engine(self.path, cache_dir=":nocache")
        greedy = litert_lm.SamplerConfig(top_k=1, temperature=0.0)
        with self._engine.create_session(
            apply_prompt_template=False, sampler_config=greedy, max_output_tokens=max_new_tokens
        ) as session:
            session.run_prefill([text])
            return session.run_decode().texts[0]


def open(path: str | os.PathLike) -> LiteRTLMRunner:
    """Open a file that this module wrote."""
    return LiteRTLMRunner(path)
