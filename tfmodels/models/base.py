"""`TFPreTrainedModel`: the Keras model that every public class is.

It holds a backbone, is built from its configuration alone, reads and writes checkpoints, and trains under `fit` with
the loss that it computes itself when labels are among the inputs.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.checkpoints import hub, load, save
from tfmodels.checkpoints.weight_map import WeightMap, WeightSlot, walk
from tfmodels.configs.base import ModelConfig, read_config_file
from tfmodels.dtypes import to_policy
from tfmodels.layers.linear import linear
from tfmodels.models import losses
from tfmodels.models.backbone import Backbone
from tfmodels.models.calling import CallingConvention
from tfmodels.models.outputs import ModelOutput
from tfmodels.models.training import TrainedModel
from tfmodels.utils.files import Staged, staged


class TFPreTrainedModel(CallingConvention, TrainedModel):
    """Base of all models.

    Args:
        config: the family's configuration. Weights are created at once, drawn at random.
        dtype: dtype or policy of weights and computation: "float32", "bfloat16", "float16", "mixed_bfloat16", a
            TensorFlow dtype, or a `keras.DTypePolicy`. None takes Keras's global policy.
        attn_implementation: "auto" (default), "eager", "blockwise", "flash", or the names "sdpa" (= "auto") and
            "flash_attention_2" (= "flash"); see `attention_report`.
        name: Keras name.

    Raises:
        TypeError: `config` is of another class.
        ValueError: its values contradict each other.
    """

    config_class: ClassVar[type[ModelConfig]]
    backbone_class: ClassVar[type[Backbone]]
    base_model_prefix: ClassVar[str]
    weight_map: ClassVar[WeightMap]
    # Further arguments of the backbone's constructor.
    backbone_options: ClassVar[dict[str, Any]] = {}
    label_names: ClassVar[tuple[str, ...]] = ()
    # What a head takes beside the backbone's inputs, labels included, in order.
    head_inputs: ClassVar[tuple[str, ...]] = ()
    # The fields that a compiled loss and metrics see.
    main_outputs: ClassVar[tuple[str, ...]] = ("logits",)
    # What `tfmodels.training.lora.add_lora` was asked for.
    lora_config: Any = None
    # The programs that `generate` has compiled (`tfmodels.runtime.compile.ProgramCache`).
    _programs: Any = None

    def __init_subclass__(cls, **kwargs: Any):
        if hasattr(cls, "backbone_class"):
            names = cls.backbone_class.input_names
            cls.input_names = (*names[:2], *cls.unused_inputs, *names[2:], *cls.head_inputs)
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable("tfmodels")(cls)

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: Any = None,
        attn_implementation: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        if not isinstance(config, self.config_class):
            raise TypeError(
                f"{type(self).__name__} takes a {self.config_class.__name__}; got {type(config).__name__}. To read a "
                f"checkpoint use {type(self).__name__}.from_pretrained(...)."
            )
        super().__init__(name=name, dtype=to_policy(dtype), **kwargs)
        # The layers inside cast what they are given; here it would round float labels to the compute dtype.
        self.autocast = False
        self.config = config
        backbone = self.backbone_class(
            config,
            attn_implementation=attn_implementation,
            dtype=self.dtype_policy,
            name=self.base_model_prefix,
            **self.backbone_options,
        )
        setattr(self, self.base_model_prefix, backbone)
        self.make_head()
        self.build()

    @property
    def backbone(self) -> Backbone:
        """The model without its head, a layer of its own."""
        return getattr(self, self.base_model_prefix)

    def make_head(self) -> None:
        """Create the head's layers; heads override it."""

    def build_head(self) -> None:
        """Create the head's weights; heads override it."""

    def make_linear(self, units: int, *, use_bias: bool, name: str) -> keras.layers.Dense:
        """A dense layer of the head, initialised and typed like the rest of the model."""
        return linear(units, std=self.config.initializer_range, use_bias=use_bias, dtype=self.dtype_policy, name=name)

    def without_cache(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs for a head that returns no cache."""
        return {**inputs, "use_cache": False} if "use_cache" in inputs else inputs

    def build(self, input_shape: Any = None) -> None:
        self.backbone.build(None)
        self.build_head()
        self.built = True

    def forward(self, **inputs: Any) -> Any:
        return self.backbone(**inputs)

    def finish(
        self, output_class: type[ModelOutput], outputs: ModelOutput, return_dict: bool | None, **values: Any
    ) -> Any:
        """A head's output as the caller wants it: an `output_class`, or a tuple for return_dict=False.

        Args:
            output_class: its fields are filled with `values` first, then with what of `outputs` bears the same name.
            outputs: what the backbone gave.
        """
        carried = {name: outputs[name] for name in output_class.fields if name in outputs and name not in values}
        output = output_class(**values, **carried)
        return output if self.backbone.flag("return_dict", return_dict) else output.to_tuple()

    def attention_report(self) -> str:
        """How the blocks of the last call computed attention, and why not faster.

        In compiled code the last call is the last program that was traced; a program that runs again says nothing.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K", attn_implementation="eager")
            >>> _ = model(input_ids=[[1, 2]])
            >>> model.attention_report()
            '5 blocks: eager'
        """
        counts = Counter(self.backbone.attention_choices)
        lines = [
            f"{count} block{'s' if count > 1 else ''}: {name}{f' ({reason})' if reason else ''}"
            for (name, reason), count in counts.items()
        ]
        return "\n".join(lines) or "no call yet"

    def get_input_embeddings(self) -> keras.layers.Embedding:
        """The table of token embeddings."""
        return self.backbone.embed_tokens

    # Keras serialisation ------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        config = {
            "config": self.config.to_dict(),
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "attn_implementation": self.backbone.attn_implementation,
            "name": self.name,
            "trainable": self.trainable,
        }
        if self.lora_config is not None:
            from tfmodels.training import lora

            config["lora"] = lora.adapter_settings(self)
        if self.quantization is not None:
            config["quantization"] = _quantized_parts(self)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> TFPreTrainedModel:
        config = dict(config)
        config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        adapters, quantization = config.pop("lora", None), config.pop("quantization", None)
        model = cls(cls.config_class.from_dict(config.pop("config")), **config)
        for part in quantization or ():
            _quantize_part(model, **part)
        if adapters is not None:
            from tfmodels.training import lora

            lora.restore_adapters(model, adapters)
        return model

    # Training -----------------------------------------------------------------------------------------------

    def compile(self, *args: Any, **kwargs: Any) -> None:
        # Keras keeps the loss of an earlier call where this one names none; here that means the model's own.
        self._compile_loss = self.loss = None
        super().compile(*args, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras leaves this to classes with a `compile` of their own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def forget_compiled(self) -> None:
        """Drop what `fit`, `predict` and `generate` have traced: call it where the model's layers have changed."""
        self.train_function = self.test_function = self.predict_function = None
        self._programs = None

    def quantize(self, *arguments: Any, **options: Any) -> None:
        """As in Keras: "int8" or "int4" weights, in place, for inference; `save_pretrained` does not write them.

        `config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)` quantises the weights only, and not
        what they are multiplied with: that is nearer to the whole model, and made for decoding on a GPU.

        Raises:
            ValueError: the model has adapters (quantise it before `add_lora`), or computes in float16.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> model.quantize("int8")
            >>> model.quantization, model.get_input_embeddings().embeddings.dtype
            ('int8', 'int8')
        """
        if self.lora_config is not None:
            raise ValueError(
                f"{self.name} has adapters: quantise it before add_lora, which then leaves them as they are."
            )
        with warnings.catch_warnings():
            # Said of every norm and dropout, in which there is nothing to quantise.
            warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
            super().quantize(*arguments, **options)
        self.forget_compiled()

    @property
    def quantization(self) -> str | None:
        """What `quantize` has made of the weights: "int8", "int4", None, or, separated by commas, several of them."""
        modes = {getattr(layer, "quantization_mode", None) for layer in self._flatten_layers()} - {None}
        return ", ".join(sorted(modes)) or None

    def gradient_checkpointing_enable(self) -> None:
        """Compute each block a second time when gradients flow back, instead of keeping what it computed.

        Training takes the memory of one block instead of all and about a third longer; gradients stay what they are.
        Switched on again after loading: files do not hold it.

        Source:
            Chen et al., https://arxiv.org/abs/1604.06174.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> model.gradient_checkpointing_enable()
            >>> model.backbone.gradient_checkpointing
            True
        """
        self.backbone.gradient_checkpointing = True
        self.forget_compiled()

    def gradient_checkpointing_disable(self) -> None:
        """Undo `gradient_checkpointing_enable`."""
        self.backbone.gradient_checkpointing = False
        self.forget_compiled()

    def resize_token_embeddings(self, new_num_tokens: int) -> keras.layers.Embedding:
        """Give the vocabulary another size; see `tfmodels.training.embeddings.resize_token_embeddings`."""
        from tfmodels.training import embeddings

        return embeddings.resize_token_embeddings(self, new_num_tokens)

    def _with_labels(self, data: Any) -> tuple[Any, Any, Any]:
        """Labels among the inputs where the model computes its own loss, apart where a loss was compiled."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.label_names:
            return x, y, sample_weight
        if self._compile_loss is not None:
            if y is None and isinstance(x, Mapping):
                y = {name: x[name] for name in self.label_names if name in x} or None
                x = {name: value for name, value in x.items() if name not in self.label_names}
            return x, self._as_targets(y), sample_weight
        if y is None:
            return x, y, sample_weight
        names = (*self.input_names, "training")
        if not isinstance(x, Mapping):
            x = dict(zip(names, x if isinstance(x, (list, tuple)) else (x,), strict=False))
        if not isinstance(y, Mapping):
            y = dict(zip(self.label_names, y if isinstance(y, (list, tuple)) else (y,), strict=True))
        return {**x, **y}, None, sample_weight

    def _as_targets(self, y: Any) -> Any:
        """Labels in the form of the main output: alone, or a dict under the names of the outputs they belong to."""
        if isinstance(y, Mapping) and set(y) == set(self.label_names):
            y = [y[name] for name in self.label_names]
        if not isinstance(y, (list, tuple)) or len(y) != len(self.main_outputs):
            return y
        return dict(zip(self.main_outputs, y, strict=True)) if len(y) > 1 else y[0]

    def train_step(self, *arguments: Any) -> Any:
        *state, data = arguments
        with losses.counting(_mean_over_replicas):
            return super().train_step(*state, self._with_labels(data))

    def test_step(self, *arguments: Any) -> Any:
        *state, data = arguments
        with losses.counting(_mean_over_replicas):
            return super().test_step(*state, self._with_labels(data))

    def predict_step(self, *arguments: Any) -> Any:
        result = super().predict_step(*arguments)
        outputs, *state = result if type(result) is tuple else (result,)
        if isinstance(outputs, ModelOutput) and "past_key_values" in outputs:
            # Caches of separate batches do not belong together, and nobody decodes from `predict`.
            outputs = type(outputs)((key, value) for key, value in outputs.items() if key != "past_key_values")
        return (outputs, *state) if state else outputs

    def _main_output(self, y_pred: Any) -> Any:
        if not isinstance(y_pred, Mapping):
            return y_pred
        main = {name: y_pred[name] for name in self.main_outputs}
        return main if len(main) > 1 else next(iter(main.values()))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The compiled loss on the main output, or, where none was compiled, the model's own."""
        if self._compile_loss is not None:
            return super().compute_loss(x, y, self._main_output(y_pred), sample_weight, training=training)
        if not isinstance(y_pred, Mapping) or "loss" not in y_pred:
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: give {' and '.join(self.label_names) or 'targets'} "
                f"among the inputs or as targets, or compile with a loss."
            )
        if sample_weight is not None:
            raise ValueError("sample weights need compile(loss=...): the model's own loss is one number per batch.")
        loss = ops.cast(y_pred["loss"], "float32")
        for penalty in self.losses:
            loss = loss + ops.sum(ops.cast(penalty, "float32"))
        return loss / _replicas()

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        if y is None and isinstance(x, Mapping) and self.label_names:
            y = self._as_targets({name: x[name] for name in self.label_names if name in x} or None)
        return super().compute_metrics(x, y, self._main_output(y_pred), sample_weight)

    # Checkpoints --------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        config: ModelConfig | str | os.PathLike | None = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        attn_implementation: str | None = None,
        ignore_mismatched_sizes: bool = False,
        **kwargs: Any,
    ) -> TFPreTrainedModel:
        """Load a model from a checkpoint.

        Weights are read tensor by tensor into variables of the wanted dtype: beside them, memory holds one tensor at a
            time.

        Args:
            pretrained_model_name_or_path: folder, bundled model name, or hub id.
            config: use this configuration (or the one at this place) instead of the checkpoint's.
            dtype: dtype of weights and computation, or a policy such as "mixed_bfloat16"; "auto" takes the dtype that
                the file stores. Default: Keras's global policy (float32). `torch_dtype` is its old name.
            attn_implementation: as in the constructor.
            ignore_mismatched_sizes: start weights of another shape anew, with a warning, instead of raising.
            **kwargs: fields of the configuration to change (`num_labels=5`); `revision`, `token`, `cache_dir`,
                `local_files_only`, `force_download`, `subfolder` for the hub; `gguf_file`, the name of a GGUF file in
                the folder, to read that one (it holds the configuration too).

        Returns:
            The model. Weights of a head that the checkpoint lacks are drawn at random, with a warning that names them.

        Raises:
            FileNotFoundError: no such folder or no weights in it.
            ValueError: broken files, missing, unexpected or wrongly shaped tensors, another family's checkpoint.
            TypeError: an unknown argument.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> model.count_params()
            260032
        """
        hub_options, overrides = hub.split_options(kwargs)
        if isinstance(config, ModelConfig):
            config = config.replace(**overrides) if overrides else config
        elif config is not None:
            config = cls.config_class.from_pretrained(config, **overrides, **hub_options)
        else:
            config = cls.config_class.from_dict(
                read_config_file(pretrained_model_name_or_path, **hub_options), **overrides
            )
        folder = hub.resolve(
            pretrained_model_name_or_path, patterns=(*hub.CONFIG_FILES, hub.WEIGHT_FILES), **hub_options
        )
        model = load.load_model(
            cls,
            folder,
            config,
            dtype=torch_dtype if dtype is None else dtype,
            attn_implementation=attn_implementation,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            gguf_file=hub_options.get("gguf_file"),
        )
        model.after_loading(folder)
        return model

    def after_loading(self, folder: Path) -> None:
        """Read what else the folder holds for this model; heads override it."""

    def save_pretrained(self, folder: str | os.PathLike, *, max_shard_size: str | int = "5GB") -> None:
        """Write a folder that `from_pretrained` here and in transformers load.

        Args:
            folder: made if needed. Files of an earlier save are replaced once the new ones are whole.
            max_shard_size: weights beyond it are split over files; bytes, or text such as "200MB".

        Raises:
            ValueError: the model is quantised; files of this format hold floating-point weights.
        """
        with staged(folder) as stage:
            self.write_files(stage, max_shard_size)

    def write_files(self, stage: Staged, max_shard_size: str | int = "5GB") -> None:
        """Write what `save_pretrained` writes into a staged folder, whose files all take their names together."""
        if self.quantization is not None:
            raise ValueError(
                f"{self.name} is quantised ({self.quantization}) and checkpoints hold floating-point weights: save it "
                f"before quantize, and quantise it again where it is loaded."
            )
        save.save_model(self, stage, max_shard_size=max_shard_size)

    def export(self, path: str | os.PathLike, format: str = "saved_model", **options: Any) -> Any:
        """Write the model in a format that runs without tfmodels; arguments and result as `tfmodels.export.export`."""
        from tfmodels.export import export

        return export(self, path, format, **options)

    def stored_names(self, slots: dict[str, WeightSlot]) -> dict[str, WeightSlot]:
        """Slots under the names that a file gives them: a bare backbone is stored without its prefix."""
        slots = {self.weight_map.stored_name(name): slot for name, slot in slots.items()}
        if type(self).head_inputs:
            return slots
        start = self.base_model_prefix + "."
        return {name.removeprefix(start): slot for name, slot in slots.items()}


def _quantized_parts(model: TFPreTrainedModel) -> list[dict[str, Any]]:
    """What `quantize` has done to a model: arguments of `_quantize_part`, as JSON has them."""
    parts: dict[str, dict[str, Any]] = {}
    for path, layer in walk(model):
        if mode := getattr(layer, "quantization_mode", None):
            part = {"mode": mode, "config": keras.saving.serialize_keras_object(layer.quantization_config)}
            parts.setdefault(json.dumps(part, sort_keys=True), {**part, "layers": []})["layers"].append(path)
    return list(parts.values())


def _quantize_part(model: TFPreTrainedModel, mode: str, config: Any, layers: list[str]) -> None:
    chosen = {id(layer) for path, layer in walk(model) if path in layers}
    config = keras.saving.deserialize_keras_object(config)
    model.quantize(mode, config=config, filters=lambda layer: id(layer) in chosen)


def _replicas() -> int:
    """Replicas that sum their losses under `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def _mean_over_replicas(value: Any) -> Any:
    """The mean of a tensor that each replica under `tf.distribute` has one of."""
    if _replicas() == 1:
        return value
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)
