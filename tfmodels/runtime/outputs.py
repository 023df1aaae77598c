"""`ModelOutput`, the ordered dict that models and `generate` return: it leaves out what was not computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import optree

from tfmodels.utils.text import quote


class PastKeyValues(tuple):
    """A growing cache with the methods that scripts call: one (key, value) pair per layer.

    Models return and take plain tuples, which graphs and exports know; this is what `outputs.past_key_values` shows
    of one outside of graphs.

    Example:
        >>> from tfmodels import TFLlamaForCausalLM
        >>> cache = TFLlamaForCausalLM.from_pretrained("stories260K")(input_ids=[[1, 2, 3]]).past_key_values
        >>> len(cache), cache.get_seq_length(), cache[0][0].shape
        (5, 3, TensorShape([1, 4, 3, 8]))
    """

    __slots__ = ()

    @property
    def pairs(self) -> tuple[Any, ...]:
        """The plain tuple."""
        return tuple(self)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of positions that the cache holds."""
        return self[layer_idx][0].shape[2] if self else 0

    def get_max_length(self) -> None:
        """A growing cache has no largest length."""

    get_max_cache_shape = get_max_length

    def to_legacy_cache(self) -> tuple[Any, ...]:
        """The plain tuple."""
        return tuple(self)


def _is_concrete(value: Any) -> bool:
    """Whether a tensor holds values now, rather than standing for them in a graph."""
    return hasattr(value, "numpy") or type(value).__module__.startswith("jaxlib")


# Attributes of tensors that scripts look for in an output taken for one.
_OF_TENSORS = ("shape", "dtype", "ndim", "numpy")
# Fields of transformers' outputs that these models never fill.
_NEVER_FILLED = ("cross_attentions", "encoder_last_hidden_state", "encoder_hidden_states", "encoder_attentions")


def one_of(outputs: Mapping[str, Any]) -> str:
    """The names of outputs and how to get one tensor of them, as the end of a message."""
    names = list(outputs)
    return (
        f"{', '.join(names)}: take one, as outputs.{names[0]}; for TimeDistributed, Sequential and the like make a "
        f"model that gives one, keras.Model(ids, model(ids).{names[0]}) of ids = keras.Input((None,), dtype='int32')"
    )


def _several(outputs: Mapping[str, Any]) -> str:
    return f"holds several by name, {one_of(outputs)}"


def _is_shape(value: Any) -> bool:
    return type(value) is tuple and all(size is None or isinstance(size, int) for size in value)


class ModelOutput(OrderedDict):
    """Base of all outputs.

    Fields stand in the order of `fields`: the loss, where there is one, comes first. Those that are None are left out,
    so that tuples, graphs and exports hold only what was computed; reading such a field as an attribute gives None.
    Every subclass is a pytree node: `tf.function`, `jax.jit`, the Functional API, `predict` and export keep its type.

    Example:
        >>> from tfmodels.models.outputs import CausalLMOutput
        >>> output = CausalLMOutput(logits=[0.5])
        >>> output.logits, output["logits"], output[0], output.loss
        ([0.5], [0.5], [0.5], None)
        >>> output.to_tuple()
        ([0.5],)
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *pairs: Any, **values: Any):
        super().__init__()
        given = OrderedDict(*pairs, **values)
        for name in dict.fromkeys((*self.fields, *given)):
            if given.get(name) is not None:
                self[name] = given[name]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)

        def rebuild(names: tuple[str, ...], values: Any) -> ModelOutput:
            return cls(zip(names, values, strict=True))

        optree.register_pytree_node(
            cls, lambda output: (list(output.values()), tuple(output), tuple(output)), rebuild, namespace="keras"
        )
        if keras.backend.backend() == "jax":
            import jax

            jax.tree_util.register_pytree_node(cls, lambda output: (list(output.values()), tuple(output)), rebuild)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            value = self[name]
            cache = name == "past_key_values" and type(value) is tuple and value and type(value[0]) is tuple
            return PastKeyValues(value) if cache and _is_concrete(value[0][0]) else value
        if name in type(self).fields or name in _NEVER_FILLED:
            return None
        if name in _OF_TENSORS and self:
            raise AttributeError(f"{type(self).__name__} has no {name}: it {_several(self)}.")
        raise AttributeError(
            f"{type(self).__name__} has no field {quote(name)}; it has {', '.join(type(self).fields)}."
        )

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        # Keras layers look for their input's last axis in the shapes of what they are given.
        if isinstance(key, tuple) or _is_shape(next(iter(self.values()), None)):
            raise TypeError(f"{type(self).__name__} is no tensor: it {_several(self)}.")
        return self.to_tuple()[key]

    def __reduce__(self):
        return type(self), (list(self.items()),)

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> Any:
        raise TypeError(f"{type(self).__name__} is no tensor: it {_several(self)}.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} is no array: it {_several(self)}.")

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that were computed, in field order."""
        return tuple(self.values())
