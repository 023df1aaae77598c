"""Keyword arguments that scripts written for transformers pass, and what becomes of each one here.

The lists hold every keyword that `from_pretrained`, `save_pretrained`, `push_to_hub` and `generate` of transformers 4
and 5 take. Models, Auto classes, configurations, tokenizers and generation settings share them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Class = TypeVar("_Class", bound=type)


@dataclasses.dataclass(frozen=True)
class Fate:
    """The treatment of a keyword argument: acted on, accepted or refused.

    Fields:
        kind: "done" (the function acts on it), "renamed" (it is handed on as `note`), "harmless" (it is dropped),
            "warned" (dropped with a warning, unless its value is neutral) or "refused" (an error, unless its value is
            neutral).
        note: what is done, the new name, why nothing is lost, or what to do instead.
        neutral: values that ask for nothing and therefore always pass.
    """

    kind: str
    note: str
    neutral: tuple[Any, ...] = (None, False)

    def is_neutral(self, value: Any) -> bool:
        return any(value is one or (type(value) is type(one) and value == one) for one in self.neutral)


def _done(note: str) -> Fate:
    return Fate("done", note)


def _harmless(note: str) -> Fate:
    return Fate("harmless", note)


def _refused(way: str, *neutral: Any) -> Fate:
    return Fate("refused", way, (None, False, *neutral))


_FORMATS = "every format is recognised by itself and read without running code"
_DEVICES = "TensorFlow places weights and operations; choose devices with CUDA_VISIBLE_DEVICES or tf.device"
_SPREAD = "spread a model over devices with tf.distribute or keras.distribution"
_QUANTIZED = 'load the model and call model.quantize("int8") or model.quantize("int4")'
_INTERNAL = "internal to transformers"

# Where files come from: `tfmodels.checkpoints.hub.resolve` takes these.
HUB = {
    "revision": _done("branch, tag or commit on the hub"),
    "token": _done("access token for the hub"),
    "cache_dir": _done("folder of the hub's cache"),
    "local_files_only": _done("do not ask the hub"),
    "force_download": _done("fetch again"),
    "subfolder": _done("folder inside the repository"),
    "gguf_file": _done("read this GGUF file"),
    "use_auth_token": Fate("renamed", "token"),
}

# `from_pretrained` of every class. What only models can act on is harmless to configurations and tokenizers.
LOADING = {
    **HUB,
    "resume_download": _harmless("downloads always resume"),
    "proxies": _refused("set HTTPS_PROXY in the environment", {}),
    "mirror": _refused("set HF_ENDPOINT in the environment"),
    "user_agent": _harmless(_INTERNAL),
    "trust_remote_code": _harmless("no code of a repository is ever run; the families are part of tfmodels"),
    "code_revision": _harmless("no code of a repository is ever run"),
    "use_fast": _harmless("there is one implementation of each tokenizer, the fast one"),
    "low_cpu_mem_usage": _harmless("weights are always read one tensor at a time"),
    "_fast_init": _harmless("weights are always read one tensor at a time"),
    "disable_mmap": _harmless("tensors are read one at a time"),
    "weights_only": _harmless(_FORMATS),
    **{
        name: _harmless("models read that format; other classes have no weights")
        for name in ("from_pt", "from_tf", "from_flax", "use_safetensors", "variant", "output_loading_info")
    },
    "device_map": _harmless(_DEVICES),
    "max_memory": _harmless(_DEVICES),
    "offload_folder": _harmless("nothing is moved to disk"),
    "offload_state_dict": _harmless("weights are read one tensor at a time"),
    "offload_buffers": _harmless("there are no buffers"),
    "tp_plan": _refused(_SPREAD),
    "tp_size": _refused(_SPREAD, 1),
    "device_mesh": _refused(_SPREAD),
    "distributed_config": _refused(_SPREAD),
    "load_in_8bit": _refused(_QUANTIZED),
    "load_in_4bit": _refused(_QUANTIZED),
    "quantization_config": _refused(_QUANTIZED),
    "key_mapping": _refused("rename the tensors in the file"),
    "load_weight_prefix": _refused("rename the tensors in the file", ""),
    "tf_to_pt_weight_rename": _refused("rename the tensors in the file"),
    "state_dict": _refused("build the model from its configuration and call set_weights, or load a file"),
    "generation_config": _refused("set model.generation_config after loading"),
    "add_pooling_layer": Fate(
        "refused", "models without a head have their pooler, others have none: read last_hidden_state", (None, True)
    ),
    "adapter_kwargs": _refused("load adapters with tfmodels.training.lora.load_adapter", {}),
    "adapter_name": _harmless("a model has one set of adapters"),
    "use_kernels": _harmless("kernels are chosen by attn_implementation"),
    "allow_all_kernels": _harmless("kernels are chosen by attn_implementation"),
    "kernel_config": _refused("choose kernels by attn_implementation"),
    "fusion_config": _harmless("XLA fuses operations"),
    "experts_implementation": _harmless("no family here has experts"),
    "use_flash_attention_2": _refused('use attn_implementation="flash"'),
    "tqdm_class": _harmless("progress bars are huggingface_hub's"),
    **{
        name: _harmless(_INTERNAL)
        for name in ("_from_auto", "_from_pipeline", "_commit_hash", "_configuration_file", "_adapter_model_path")
    },
}

# `push_to_hub(...)`, and `save_pretrained(..., push_to_hub=True, ...)`: `tfmodels.checkpoints.upload` takes these.
PUSHING = {
    "repo_id": _done("repository to push to; save_pretrained takes the folder's name by default"),
    "commit_message": _done("message of the commit"),
    "commit_description": _done("description of the commit"),
    "private": _done("make a new repository private"),
    "token": _done("access token for the hub"),
    "use_auth_token": Fate("renamed", "token"),
    "revision": _done("branch to push to"),
    "create_pr": _done("open a pull request instead of committing to the branch"),
    "use_temp_dir": _harmless("files are always gathered in a temporary folder"),
    "tags": _refused("write them into the repository's README.md", []),
    "repo_url": _refused("name the repository by repo_id"),
    "organization": _refused('name the repository as "organization/name" by repo_id'),
    "repo_path_or_name": _refused("name the repository by repo_id"),
}

# `save_pretrained` of every class.
SAVING = {
    **PUSHING,
    "push_to_hub": _done("also push to the hub, through huggingface_hub"),
    "max_shard_size": _done("weights beyond it are split over files"),
    "safe_serialization": Fate("warned", "weights are always written as safetensors", (None, True)),
    "is_main_process": Fate("refused", "call save_pretrained in the main process only", (None, True)),
    "saved_model": _refused('call model.export(path, "saved_model")'),
    "version": _harmless("part of a path for saved_model=True"),
    "signatures": _refused('call model.export(path, "saved_model")'),
    "state_dict": _refused("put the weights into the model before saving it"),
    "save_function": _refused("weights are always written as safetensors"),
    "variant": _refused("save to a folder of its own"),
    "save_peft_format": Fate("harmless", "adapters are saved by tfmodels.training.lora.save_adapters"),
    "save_original_format": _harmless("names are always those of the original checkpoints"),
    "distributed_checkpoint": _refused("checkpoints are written by one process"),
    "legacy_format": _harmless("all files that either version reads are written"),
    "filename_prefix": _done("text before the names of a tokenizer's files"),
    "use_diff": _harmless("files hold every value"),
}

_DECODERS = "the models that generate are decoders: give the prompt as input_ids"

# `generate`, beside its own arguments and the settings of `GenerationConfig`.
GENERATING = {
    "assistant_tokenizer": _refused(
        "drafts of another tokenizer would go through text; give an assistant_model that shares this model's tokenizer"
    ),
    "cache_position": _harmless("places in a cache follow from its length"),
    "custom_generate": _refused("no code of a repository is ever run; logits_processor takes functions"),
    "head_mask": _refused("it runs all heads; call the model with head_mask, or set weights of heads to 0"),
    "logits_to_keep": _harmless("it computes the logits that it needs"),
    "num_logits_to_keep": _harmless("it computes the logits that it needs"),
    "output_router_logits": _harmless("no family here has experts"),
    # Of families that look them up; the others drop them with a warning.
    "token_type_ids": _refused("new tokens have no types; leave them out, or call the model with token_type_ids"),
    "trust_remote_code": _harmless("no code of a repository is ever run"),
    "use_model_defaults": Fate(
        "refused", "settings that are not given are the model's; give them in generation_config", (None, True)
    ),
    "decoder_attention_mask": _refused(_DECODERS),
    "decoder_input_ids": _refused(_DECODERS),
    "encoder_attention_mask": _refused(_DECODERS),
    "encoder_outputs": _refused(_DECODERS),
}

# Arguments of a model's `from_pretrained` that say how to build it; configurations do not keep them.
MODELS_ALONE = ("attn_implementation", "ignore_mismatched_sizes", "config")


def settle(given: Mapping[str, Any], table: Mapping[str, Fate], owner: str) -> dict[str, Any]:
    """Drop, rename or refuse keyword arguments as a table says.

    Args:
        given: keyword arguments as they came.
        table: `LOADING`, `SAVING`, `PUSHING` or `GENERATING`.
        owner: name of the class or function, for messages.

    Returns:
        The arguments that the function itself acts on: those that are "done", renamed ones under their new name, and
        those that the table does not know.

    Raises:
        ValueError: an argument asks for what there is not; the message says what to do instead.
        TypeError: an argument came under both its names.

    Example:
        >>> settle({"use_auth_token": "hf_x", "device_map": "auto", "num_labels": 3}, LOADING, "TFLlamaModel")
        {'num_labels': 3, 'token': 'hf_x'}
        >>> settle({"load_in_8bit": True}, LOADING, "TFLlamaModel")
        Traceback (most recent call last):
        ...
        ValueError: TFLlamaModel does not take load_in_8bit=True: load the model and call model.quantize("int8") or
        model.quantize("int4").
    """
    kept: dict[str, Any] = {}
    renamed: dict[str, Any] = {}
    for name, value in given.items():
        fate = table.get(name)
        if fate is None or fate.kind == "done":
            kept[name] = value
        elif fate.kind == "renamed":
            if given.get(fate.note) is not None and value is not None:
                raise TypeError(f"{owner} got {fate.note} twice: also as {name}, its old name.")
            if value is not None:
                renamed[fate.note] = value
        elif fate.kind == "refused" and not fate.is_neutral(value):
            raise ValueError(f"{owner} does not take {name}={quote(value)}: {fate.note}.")
        elif fate.kind == "warned" and not fate.is_neutral(value):
            warn(f"{name}={quote(value)} is ignored: {fate.note}.")
    return {**kept, **renamed}


def old_name(old: str, new: str) -> Callable[[_Function], _Function]:
    """Decorate a function so that it also takes the argument `new` under the name `old`.

    Example:
        >>> @old_name("folder", "save_directory")
        ... def save(save_directory):
        ...     return save_directory
        >>> save(folder="a"), save(save_directory="b"), save("c")
        ('a', 'b', 'c')
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{function.__qualname__}() got {quote(new)} twice: also as {quote(old)}.")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def errors_name_class(cls: _Class) -> _Class:
    """Decorate a class made of parts, so that Python's errors about arguments name it instead of the part.

    The parts are the bases that lie in the same package folder; classes of others are shared, and keep their names.

    Example:
        >>> class Part:
        ...     def pad(self): ...
        >>> @errors_name_class
        ... class Tokenizer(Part): ...
        >>> Tokenizer().pad(1)
        Traceback (most recent call last):
        ...
        TypeError: Tokenizer.pad() takes 1 positional argument but 2 were given
    """
    folder = cls.__module__.rpartition(".")[0]
    for part in cls.__mro__[1:-1]:
        if part.__module__.rpartition(".")[0] == folder:
            for name, function in vars(part).items():
                if inspect.isfunction(function):
                    function.__qualname__ = f"{cls.__name__}.{name}"
    return cls
