"""`quantization_config` of a `from_pretrained`: settings of other libraries, as arguments of `quantize` here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from tfmodels.utils.text import quote

_TAKEN = (
    "'int8' or 'int4', a dict with quant_method, or a BitsAndBytesConfig, TorchAoConfig, GPTQConfig, QuantoConfig or "
    "GGUFQuantizationConfig"
)
# Layers that no quantisation here touches, so that leaving them out is no wish of its own.
_HEADS = frozenset({"lm_head", "embed_out", "score", "classifier"})


@dataclasses.dataclass(frozen=True)
class Request:
    """The quantisation that a caller of `from_pretrained` wants.

    Fields:
        mode, group_size, symmetric, calibration, tokenizer: arguments of `QuantizedModel.quantize`; mode None: none.
        skip: parts of the names of layers that are left as they are.
        keep_gguf: whether weights of a GGUF file stay quantised.
        method: the method named, which the checkpoint itself may be quantised by.
    """

    mode: str | None = None
    group_size: int | str | None = None
    symmetric: bool | None = None
    calibration: Any = None
    tokenizer: Any = None
    skip: tuple[str, ...] = ()
    keep_gguf: bool = False
    method: str | None = None

    def chooses(self, name: str) -> bool:
        """Whether the layer of that name is quantised."""
        return not any(re.search(rf"(^|\.){re.escape(part)}(\.|$)", name) for part in self.skip)


def read_request(given: Any) -> Request:
    """The request that a `quantization_config` stands for.

    Args:
        given: None, "int8", "int4", a dict, or an object with `to_dict`, as transformers and diffusers have them.

    Raises:
        ValueError: it asks for what there is not; the message says what to do instead.

    Example:
        >>> read_request({"quant_method": "bitsandbytes", "load_in_8bit": True}).mode
        'int8'
        >>> read_request({"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs":
        ...               {"group_size": 128}}).group_size
        128
    """
    if given is None:
        return Request()
    if given in ("int8", "int4") if isinstance(given, str) else False:
        return Request(mode=given)
    values = given if isinstance(given, Mapping) else _to_dict(given)
    method = values.get("quant_method")
    method = getattr(method, "value", method)  # an enumeration in objects
    if method is None and (values.get("load_in_8bit") or values.get("load_in_4bit")):
        method = "bitsandbytes"
    if method not in _READERS:
        raise ValueError(
            f"quantization_config={quote(given)} cannot be used; {_TAKEN} was expected. A checkpoint that is "
            f"quantised already needs none."
        )
    return _READERS[method](values)


def _to_dict(given: Any) -> Mapping[str, Any]:
    if not callable(getattr(given, "to_dict", None)):
        raise ValueError(f"quantization_config={quote(given)}; {_TAKEN} was expected.")
    values = dict(given.to_dict())
    values.setdefault("quant_method", getattr(given, "quant_method", None))
    for name in ("quant_type", "load_in_8bit", "load_in_4bit"):  # objects hold more than their dict says
        if hasattr(given, name):
            values[name] = getattr(given, name)
    return values


def _skipped(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    listed = values.get(name) or ()
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, str) for one in listed):
        raise ValueError(f"{name}={quote(listed)} in quantization_config; a list of names was expected.")
    return tuple(one for one in listed if one not in _HEADS)


def _bitsandbytes(values: Mapping[str, Any]) -> Request:
    four, eight = values.get("load_in_4bit"), values.get("load_in_8bit")
    if bool(four) == bool(eight):
        raise ValueError(
            "quantization_config of bitsandbytes: one of load_in_8bit=True and load_in_4bit=True is expected."
        )
    if values.get("llm_int8_enable_fp32_cpu_offload"):
        raise ValueError(
            "llm_int8_enable_fp32_cpu_offload=True in quantization_config: nothing is moved to the host here."
        )
    # Its block of 64 weights is along the inputs, as here; its numbers, nf4 or fp4, become evenly spaced ones.
    size = 64 if four else None
    skip = _skipped(values, "llm_int8_skip_modules")
    return Request("int4" if four else "int8", size, skip=skip, method="bitsandbytes")


_TORCHAO = {"int4weightonly": "int4", "int8weightonly": "int8"}


def _torchao(values: Mapping[str, Any]) -> Request:
    kind, options = values.get("quant_type"), dict(values.get("quant_type_kwargs") or {})
    if isinstance(kind, Mapping):  # as `to_dict` writes an object
        inner = kind.get("default", kind)
        kind, options = inner.get("_type", ""), {**(inner.get("_data") or {}), **options}
    elif not isinstance(kind, str) and kind is not None:
        options = {**{name: getattr(kind, name) for name in ("group_size",) if hasattr(kind, name)}, **options}
        kind = type(kind).__name__
    mode = _TORCHAO.get(str(kind).lower().replace("_", "").removesuffix("config"))
    if mode is None:
        raise ValueError(
            f"quant_type={quote(kind)} in quantization_config; int8_weight_only and int4_weight_only are done here, "
            "which round weights and leave activations as they are."
        )
    size = options.get("group_size")
    size = 128 if size is None and mode == "int4" else size
    return Request(mode, size, skip=_skipped(values, "modules_to_not_convert"), method="torchao")


def _gptq(values: Mapping[str, Any]) -> Request:
    bits, dataset = values.get("bits"), values.get("dataset")
    if bits not in (4, 8):
        raise ValueError(f"bits={quote(bits)} in quantization_config; 4 or 8 can be made here.")
    if isinstance(dataset, str):
        raise ValueError(
            f"dataset={quote(dataset)} in quantization_config: named data sets are not downloaded here; give a list "
            "of texts."
        )
    size = values.get("group_size", 128)
    return Request(
        f"int{bits}",
        "channel" if size == -1 else size,
        bool(values.get("sym", True)),
        dataset,
        values.get("tokenizer"),
        _skipped(values, "modules_to_not_convert"),
        method="gptq",
    )


def _quanto(values: Mapping[str, Any]) -> Request:
    mode = values.get("weights", "int8")
    if mode not in ("int8", "int4") or values.get("activations") is not None:
        raise ValueError(
            f"weights={quote(mode)} and activations={quote(values.get('activations'))} in quantization_config; "
            "weights 'int8' or 'int4' and no activations are done here."
        )
    skip = _skipped(values, "modules_to_not_convert")
    return Request(mode, 128 if mode == "int4" else None, skip=skip, method="quanto")


def _gguf(values: Mapping[str, Any]) -> Request:
    return Request(keep_gguf=True, method="gguf")


def _read_already(method: str) -> Any:
    """A method that checkpoints are read by, and none is made by here."""
    return lambda values: Request(method=method)


_READERS: dict[Any, Any] = {
    "bitsandbytes": _bitsandbytes,
    "torchao": _torchao,
    "gptq": _gptq,
    "quanto": _quanto,
    "gguf": _gguf,
    "awq": _read_already("awq"),
    "compressed-tensors": _read_already("compressed-tensors"),
}
