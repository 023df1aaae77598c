"""Methods and attributes of models that scripts written for transformers use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from tfmodels.checkpoints.upload import PushToHub
from tfmodels.configs.base import ModelConfig
from tfmodels.layers.quantized import parameters_of
from tfmodels.models import vocabulary
from tfmodels.runtime.sub_layers import all_layers
from tfmodels.utils.arguments import LOADING, settle
from tfmodels.utils.text import quote

if TYPE_CHECKING:
    from typing_extensions import Self

# Methods of PyTorch models -> what users of these models do instead.
_OTHER_WAYS = {
    "cpu": "TensorFlow places weights; choose devices with CUDA_VISIBLE_DEVICES or tf.device",
    "cuda": "TensorFlow places weights; choose devices with CUDA_VISIBLE_DEVICES or tf.device",
    "to": "TensorFlow places weights, and from_pretrained(..., dtype=...) chooses the dtype",
    "half": 'load with from_pretrained(..., dtype="float16")',
    "bfloat16": 'load with from_pretrained(..., dtype="bfloat16")',
    "eval": "models are in evaluation mode unless called with training=True",
    "train": "call the model with training=True, or use fit",
    "parameters": "use model.weights or model.trainable_weights",
    "named_parameters": "use model.weights, whose elements have a path",
    "state_dict": "use model.get_weights() or save_pretrained",
    "load_state_dict": "use model.set_weights(...) or from_pretrained",
    "modules": "use model.layers",
    "requires_grad_": "set layer.trainable",
    # Of the TensorFlow classes.
    "serving": "model.export(path) writes a SavedModel with its signatures",
    "serving_output": "model.export(path) writes a SavedModel with its signatures",
    "prepare_inputs_for_generation": "generate prepares its inputs by itself",
    "seed_generator": "give generate(..., seed=...)",
    "greedy_search": "use generate(..., do_sample=False)",
    "sample": "use generate(..., do_sample=True)",
    "beam_search": "use generate(..., num_beams=4)",
    "contrastive_search": "use generate(..., penalty_alpha=0.6, top_k=4)",
    "create_model_card": "write README.md into the folder that save_pretrained made",
    "register_for_auto_class": "Auto classes pick classes of tfmodels alone, and run no code of a checkpoint",
    "get_label_to_output_name_mapping": "labels are inputs: labels, start_positions and end_positions, by name",
}


class ScriptMethods(PushToHub):
    """Mixin for `TFPreTrainedModel`.

    Attributes:
        base_model: the model without its head; the model itself where it has none.
    """

    main_input_name = "input_ids"
    framework = "tf"

    @classmethod
    def _from_config(cls, config: ModelConfig, **kwargs: Any) -> Self:
        kwargs = settle(kwargs, LOADING, cls.__name__)
        torch_dtype = kwargs.pop("torch_dtype", None)
        return cls(config, **{"dtype": torch_dtype, **kwargs})  # type: ignore[call-arg]

    @property
    def name_or_path(self) -> str:
        """The place that the model was read from, or ""."""
        return self.config.name_or_path

    @property
    def device(self) -> str:
        """Name of the device that holds the first weight."""
        return str(getattr(self.weights[0].value, "device", "cpu"))

    @property
    def dummy_inputs(self) -> dict[str, Any]:
        """A small batch to call the model with: int32 `input_ids` of the rank it takes.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> TFLlamaForCausalLM.from_pretrained("stories260K").dummy_inputs["input_ids"].shape
            TensorShape([3, 5])
        """
        ids = np.array([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]], "int32") % self.config.vocab_size
        if self.input_rank == 3:
            ids = np.stack([ids, ids], axis=1)
        return {"input_ids": ops.convert_to_tensor(ids, "int32")}

    @classmethod
    def can_generate(cls) -> bool:
        """Whether the model, or the class, has `generate`."""
        return hasattr(cls, "generate")

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of weights, each counted once; packed ones as what they stand for.

        Args:
            only_trainable: leave out weights that do not train.
            exclude_embeddings: leave out the tables of tokens and positions.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> model.num_parameters(), model.num_parameters(exclude_embeddings=True)
            (260032, 227264)
        """
        weights = self.trainable_weights if only_trainable else self.weights
        left_out = set()
        if exclude_embeddings:
            tables = [layer for layer in all_layers(self) if isinstance(layer, keras.layers.Embedding)]
            left_out = {id(weight) for table in tables for weight in table.weights}
        return parameters_of(self, (weight for weight in weights if id(weight) not in left_out))

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes that the weights take; there are no buffers beside them."""
        del return_buffers
        return sum(math.prod(weight.shape) * _item_size(str(weight.dtype)) for weight in self.weights)

    def get_input_embeddings(self) -> keras.layers.Embedding:
        """The table of token embeddings."""
        return self.backbone.embed_tokens

    def get_output_embeddings(self) -> keras.layers.Layer | None:
        """The layer that gives scores over the vocabulary; None for heads that give none."""
        return None

    def get_lm_head(self) -> keras.layers.Layer | None:
        """The language model's head; None for other heads, and where scores come from the input embeddings alone."""
        return getattr(self, "lm_head", None)

    def get_bias(self) -> dict[str, Any] | None:
        """The bias of the language model's head, {"bias": variable}; None where it has none.

        Example:
            >>> from tfmodels import BertConfig, TFBertForMaskedLM
            >>> config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
            >>> tuple(TFBertForMaskedLM(config).get_bias()["bias"].shape)
            (30,)
        """
        head = self.get_lm_head()
        bias = getattr(getattr(head, "decoder", None) or head, "bias", None)
        return None if bias is None else {"bias": bias}

    def set_bias(self, value: dict[str, Any]) -> None:
        """Replace the values of the language model's head's bias.

        Args:
            value: {"bias": (vocab_size,)}, as an array, tensor or variable.

        Raises:
            ValueError: the head has no bias, or the value is no such dict or has another shape.
        """
        own = self.get_bias()
        if own is None:
            raise ValueError(f"{type(self).__name__} has no bias of a language model's head to set.")
        if not isinstance(value, dict) or value.keys() != own.keys():
            raise ValueError(f'set_bias({quote(value)}); {{"bias": values}} was expected.')
        values = np.asarray(ops.convert_to_numpy(value["bias"]))
        if values.shape != tuple(own["bias"].shape):
            raise ValueError(f"the bias has shape {values.shape}; {tuple(own['bias'].shape)} was expected.")
        own["bias"].assign(values)

    def get_head_mask(self, head_mask: Any, num_hidden_layers: int) -> Any:
        """Spread a mask of heads over the layers, as layers written for transformers take it.

        Args:
            head_mask: (heads,) or (layers, heads), 1 for a head to keep; None for all.
            num_hidden_layers: how many layers there are.

        Returns:
            float32 (layers, 1, heads, 1, 1), or a list of None for None.

        Raises:
            ValueError: the mask has another number of axes.
        """
        if head_mask is None:
            return [None] * num_hidden_layers
        head_mask = ops.cast(ops.convert_to_tensor(head_mask), "float32")
        if len(head_mask.shape) == 1:
            head_mask = ops.repeat(ops.expand_dims(head_mask, 0), num_hidden_layers, axis=0)
        if len(head_mask.shape) != 2:
            raise ValueError(
                f"head_mask has shape {tuple(head_mask.shape)}; (heads,) or (layers, heads) was expected."
            )
        return ops.reshape(head_mask, (head_mask.shape[0], 1, head_mask.shape[1], 1, 1))

    def build_in_name_scope(self) -> None:
        """Nothing to do: a model has its weights as soon as it is made."""

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the values of the token embeddings.

        Args:
            value: (tokens, hidden_size) as an array or tensor, or a layer that holds such a table. With another number
                of tokens the vocabulary is resized first; see `resize_token_embeddings`.

        Raises:
            ValueError: the width is another.
        """
        table = _table_of(value, self.config.hidden_size)
        if len(table) != self.config.vocab_size:
            self.resize_token_embeddings(len(table))
        self.get_input_embeddings().embeddings.assign(table)

    def set_output_embeddings(self, value: Any) -> None:
        """Replace the values of the layer that gives scores over the vocabulary; arguments as `set_input_embeddings`.

        Raises:
            ValueError: the model has no such layer, or the width is another.
        """
        layer = self.get_output_embeddings()
        if layer is None:
            raise ValueError(
                f"{type(self).__name__} has no output embeddings: its head does not score the vocabulary."
            )
        table = _table_of(value, self.config.hidden_size)
        if len(table) != self.config.vocab_size:
            self.resize_token_embeddings(len(table))
            layer = self.get_output_embeddings()
        if isinstance(layer, keras.layers.Embedding):
            layer.embeddings.assign(table)
        else:
            layer.kernel.assign(table.T)

    def tie_weights(self) -> None:
        """Nothing to do: tied weights are one variable."""

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> keras.layers.Embedding:
        """Give the vocabulary another size; see `tfmodels.models.vocabulary.resize_token_embeddings`.

        Args:
            new_num_tokens: the new size; None keeps it.
            pad_to_multiple_of: round the size up to a multiple of this.
            mean_resizing: new rows are drawn around the mean of the old ones; there is no other way.

        Returns:
            The table of token embeddings.
        """
        if not mean_resizing:
            raise ValueError("mean_resizing=False: new rows are always drawn around the mean of the old ones.")
        if new_num_tokens is None and pad_to_multiple_of is None:
            return self.get_input_embeddings()
        if new_num_tokens is None:
            new_num_tokens = self.config.vocab_size
        if pad_to_multiple_of is not None:
            if not isinstance(pad_to_multiple_of, int) or pad_to_multiple_of < 1:
                raise ValueError(f"pad_to_multiple_of={quote(pad_to_multiple_of)}; a positive integer was expected.")
            new_num_tokens = -(-new_num_tokens // pad_to_multiple_of) * pad_to_multiple_of
        return vocabulary.resize_token_embeddings(self, new_num_tokens)

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Not supported; a head mask has the same effect on what the model computes.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not remove attention heads (heads_to_prune={quote(heads_to_prune)}): call it "
            f"with head_mask of shape (layers, heads), 0 for a head to leave out."
        )

    def __getattr__(self, name: str) -> Any:
        # No property: Keras walks through those when it saves, and would never come out of a bare model again.
        if name == "base_model":
            return self.backbone if type(self).head_inputs else self
        way = _OTHER_WAYS.get(name)
        message = f"{quote(type(self).__name__)} object has no attribute {quote(name)}"
        raise AttributeError(f"{message}: {way}." if way else message)


def _item_size(dtype: str) -> int:
    return {"bfloat16": 2, "int4": 1}.get(dtype) or np.dtype(dtype).itemsize


def _table_of(value: Any, width: int) -> np.ndarray:
    """A (tokens, width) array of the values of a layer, tensor or array."""
    for name, transposed in (("embeddings", False), ("weight", False), ("kernel", True)):
        inner = getattr(value, name, None)
        if inner is not None and not callable(inner):
            value = ops.convert_to_numpy(inner)
            value = value.T if transposed else value
            break
    table = np.asarray(ops.convert_to_numpy(value))
    if table.ndim != 2 or table.shape[1] != width or not len(table):
        raise ValueError(f"the embeddings have shape {table.shape}; (tokens, {width}) was expected.")
    return table
