"""`TFPreTrainedModel`: the Keras model that every public class is.

It holds a backbone, is built from its configuration alone, reads and writes checkpoints, and trains under `fit` with
the loss that it computes itself when labels are among the inputs.

The file is long because these are the methods of one class; the mixins it inherits say how models are called, trained
and quantised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import keras

from tfmodels.checkpoints import hub, load, reader, save, upload
from tfmodels.checkpoints.weight_map import WeightMap, WeightSlot
from tfmodels.configs.base import ModelConfig
from tfmodels.configs.files import errors_name, read_config_file
from tfmodels.dtypes import to_policy
from tfmodels.layers.linear import linear
from tfmodels.models import adapters, collate, quantization
from tfmodels.models.backbone import Backbone
from tfmodels.models.calling import CallingConvention
from tfmodels.models.losses import Loss
from tfmodels.models.outputs import ModelOutput
from tfmodels.models.quantization import QuantizedModel
from tfmodels.models.quantization_requests import read_request
from tfmodels.models.scripts import ScriptMethods
from tfmodels.models.sharding import Sharding
from tfmodels.models.training import TaskModel
from tfmodels.runtime.compile import ProgramCache
from tfmodels.runtime.device import check_device_map
from tfmodels.runtime.fork import check_not_forked
from tfmodels.runtime.memory import trim_heap
from tfmodels.utils.arguments import SAVING, errors_name_class, old_name, settle
from tfmodels.utils.files import Staged, staged
from tfmodels.utils.warn import warn

if TYPE_CHECKING:
    from typing_extensions import Self


@errors_name_class
class TFPreTrainedModel(ScriptMethods, CallingConvention, QuantizedModel, TaskModel):
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

    # A model's configuration is that of its backbone, where the class names no other.
    config_class: ClassVar[type[ModelConfig]]
    backbone_class: ClassVar[type[Backbone]]
    base_model_prefix: ClassVar[str]
    weight_map: ClassVar[WeightMap]
    sharding: ClassVar[Sharding]
    # Tokenizers of every kind return token types to whoever asks for them.
    ignored_inputs: ClassVar[tuple[str, ...]] = ("token_type_ids",)
    # Further arguments of the backbone's constructor.
    backbone_options: ClassVar[dict[str, Any]] = {}
    # Inputs of the head beside those of the backbone, labels included, in order.
    head_inputs: ClassVar[tuple[str, ...]] = ()
    # The name of the layer that classifies tokens, as in the family's checkpoints.
    token_classifier_name: ClassVar[str] = "classifier"
    # Whether `tie_word_embeddings` makes the embedding table the head's output layer too.
    ties_embeddings: ClassVar[bool] = False
    # Axes of `input_ids`: (batch, length), or one more for heads that compare several texts.
    input_rank: ClassVar[int] = 2
    # Whether an example is a single text, rather than a pair or several choices.
    takes_one_text: ClassVar[bool] = True
    # Whether the logits are scores of the classes in `config.id2label`, one row per text.
    classifies_texts: ClassVar[bool] = False
    # Whether logits are read at each row's last token, which `config.pad_token_id` finds.
    finds_last_token: bool = False
    # The settings of the adapters that `tfmodels.training.lora.add_lora` made, or None.
    lora_config: Any = None
    # The programs that `generate` and pipelines have compiled.
    _programs: ProgramCache | None = None

    def __init_subclass__(cls, **kwargs: Any):
        if "backbone_class" in vars(cls) and "config_class" not in vars(cls):
            cls.config_class = cls.backbone_class.config_class
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
        check_not_forked()  # making weights starts the backend's threads
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

    @property
    def programs(self) -> ProgramCache:
        """The compiled programs of `generate` and of pipelines."""
        if self._programs is None:
            self._programs = ProgramCache()
        return self._programs

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

    def head_output(
        self,
        output_class: type[ModelOutput],
        outputs: ModelOutput,
        return_dict: bool | None,
        labels: Mapping[str, Any],
        *,
        given_loss: Loss | None = None,
        **values: Any,
    ) -> Any:
        """A head's output as the caller wants it: an `output_class`, or a tuple for return_dict=False.

        Args:
            output_class: its fields are filled with the loss and `values` first, then from `outputs` by name.
            outputs: the backbone's output.
            labels: by name; where none of them is None, `loss_of` gives the loss.
            given_loss: in place of what `loss_of` gives, or None.
        """
        if all(label is not None for label in labels.values()):
            values["loss"] = (given_loss or self.loss_of(values, labels)).mean()
        carried = {name: outputs[name] for name in output_class.fields if name in outputs and name not in values}
        output = output_class(**values, **carried)
        return output if self.backbone.flag("return_dict", return_dict) else output.to_tuple()

    def attention_report(self) -> str:
        """The attention paths of the blocks in the last call, and why no faster ones served.

        In compiled code the last call is the last program that was traced; a program that runs again says nothing.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K", attn_implementation="eager")
            >>> _ = model(input_ids=[[1, 2]])
            >>> model.attention_report()
            '5 blocks: eager'
        """
        return self.backbone.attention_log.report() or "no call yet"

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
            config["lora"] = adapters.adapter_settings(self)
        if self.quantization is not None:
            config["quantization"] = quantization.quantized_parts(self)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any] | ModelConfig, custom_objects: Any = None, **kwargs: Any) -> Any:
        if isinstance(config, ModelConfig):  # as transformers calls it
            return cls._from_config(config, **kwargs)
        config = dict(config)
        config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        lora, quantized = config.pop("lora", None), config.pop("quantization", None)
        model = cls(cls.config_class.from_dict(config.pop("config")), **config)
        for part in quantized or ():
            quantization.quantize_part(model, **part)
        if lora is not None:
            adapters.restore_adapters(model, lora)
        return model

    # Changes to a model in place --------------------------------------------------------------------------------

    def forget_compiled(self) -> None:
        """Drop what `fit`, `predict` and `generate` have traced: call it where the model's layers have changed."""
        self.train_function = self.test_function = self.predict_function = None
        self._programs = None

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

    # Data ---------------------------------------------------------------------------------------------------

    def prepare_tf_dataset(
        self,
        dataset: Any,
        batch_size: int = 8,
        shuffle: bool = True,
        tokenizer: Any = None,
        collate_fn: Callable[..., Mapping[str, Any]] | None = None,
        collate_fn_args: Mapping[str, Any] | None = None,
        drop_remainder: bool | None = None,
        prefetch: bool = True,
    ) -> Any:
        """Batches for `fit` from a tokenised dataset of the `datasets` library; columns the model lacks are left out.

        Args:
            dataset: a `datasets.Dataset`, a list with a dict per row, or another object with a length and such rows by
                number.
            batch_size: rows per batch.
            shuffle: draw the rows anew in every epoch.
            tokenizer: pads the rows of each batch, where there is no `collate_fn`.
            collate_fn: makes a batch of arrays from a list of rows, such as `tfmodels.DataCollatorWithPadding`;
                without it and without a tokenizer all rows must have one length.
            collate_fn_args: further arguments of `collate_fn`.
            drop_remainder: leave out a smaller last batch; by default as `shuffle`.
            prefetch: prepare the next batch while one is used.

        Returns:
            A `tf.data.Dataset` of features, or of (features, labels) where the dataset has labels.

        Raises:
            TypeError: `dataset` has no length or no rows by number.
            ValueError: it has no rows; rows of different lengths without a tokenizer or `collate_fn`.

        Example:
            >>> from tfmodels import AutoTokenizer, TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
            >>> rows = [{"input_ids": [1, 5, 6], "labels": [1, 5, 6]}, {"input_ids": [1, 7, 9], "labels": [1, 7, 9]}]
            >>> for features, labels in model.prepare_tf_dataset(rows, batch_size=2, shuffle=False):
            ...     print(features["input_ids"].numpy().tolist(), labels.shape)
            [[1, 5, 6], [1, 7, 9]] (2, 3)
        """
        return collate.to_tf_dataset(
            self,
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            tokenizer=tokenizer,
            collate_fn=collate_fn,
            collate_fn_args=collate_fn_args,
            drop_remainder=drop_remainder,
            prefetch=prefetch,
        )

    # Checkpoints --------------------------------------------------------------------------------------------

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        config: ModelConfig | Mapping[str, Any] | str | os.PathLike | None = None,
        dtype: Any = None,
        output_loading_info: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *, output_loading_info: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        config: ModelConfig | Mapping[str, Any] | str | os.PathLike | None = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        attn_implementation: str | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        from_pt: bool = False,
        from_tf: bool = False,
        from_flax: bool = False,
        variant: str | None = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Load a model from a checkpoint.

        Weights are read tensor by tensor into variables of the wanted dtype: beside them, memory holds one tensor at a
        time. The format of the weights is recognised; safetensors come first.

        Args:
            pretrained_model_name_or_path: folder, bundled model name, or hub id.
            config: use this configuration (or the one at this place, or the dict of a `config.json`) instead of the
                checkpoint's.
            dtype: dtype of weights and computation, or a policy such as "mixed_bfloat16"; "auto" takes the dtype that
                the file stores. Default: Keras's global policy (float32). `torch_dtype` is its old name.
            attn_implementation: as in the constructor.
            ignore_mismatched_sizes: start weights of another shape anew, with a warning, instead of raising.
            output_loading_info: also return what did not fit, see below.
            use_safetensors: True reads safetensors alone, False any other format.
            from_pt, from_tf, from_flax: read `pytorch_model.bin`, `tf_model.h5` or `flax_model.msgpack`; or
                safetensors, where there is no such file.
            variant: the variant in the files' names, as "fp16" in `model.fp16.safetensors`.
            quantization_config: "int8" or "int4", or settings that other libraries have, to quantise the dense layers
                while they are read, see `tfmodels.models.quantization_requests`: memory holds packed weights and one
                tensor. `{"quant_method": "gguf"}` keeps the matrices of a GGUF file quantised. A checkpoint that is
                quantised already needs none.
            **kwargs: fields of the configuration to change (`num_labels=5`); `revision`, `token`, `cache_dir`,
                `local_files_only`, `force_download`, `subfolder` for the hub; `gguf_file`, the name of a GGUF file in
                the folder, to read that one (it holds the configuration too);
                `device_map`, which must name where TensorFlow places the model anyway, or "auto".

        Returns:
            The model. Weights of a head that the checkpoint lacks are drawn at random, with a warning that names them.
            With `output_loading_info=True` the model and a dict: "missing_keys", weights that start at random;
            "unexpected_keys", tensors of heads that this class does not have; "mismatched_keys", triples of a weight,
            its shape in the file and its shape here; "error_msgs", always empty, since errors are raised.

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
        check_device_map(kwargs.get("device_map"))
        wanted = read_request(quantization_config)
        hub_options, overrides = hub.split_options(kwargs)
        if overrides.pop("return_unused_kwargs", False):
            raise ValueError(
                f"{cls.__name__} does not take return_unused_kwargs=True, which is for configurations: a keyword that "
                f"is no field is an error here. Read the configuration with AutoConfig.from_pretrained first."
            )
        formats = reader.choose_formats(use_safetensors, from_pt, from_tf, from_flax)
        source = pretrained_model_name_or_path
        source = source if isinstance(source, hub.Source) else hub.Source(source, **hub_options)
        if isinstance(config, ModelConfig):
            config = config.replace(**overrides) if overrides else config
        elif config is not None and not isinstance(config, Mapping):
            config = cls.config_class.from_pretrained(config, **overrides, **hub_options)
        else:
            values = read_config_file(source, **hub_options) if config is None else config
            with errors_name(source):
                config = cls.config_class.from_dict(values, **overrides)
        folder = source.fetch((*hub.CONFIG_FILES, *hub.QUANTIZATION_FILES, hub.weight_files(formats, variant)))
        schemes = quantization.check_request(wanted, config, source.gguf_file)
        with reader.open_checkpoint(folder, source.gguf_file, formats=formats, variant=variant) as checkpoint:
            model, info = load.load_model(
                cls,
                checkpoint,
                config,
                dtype=torch_dtype if dtype is None else dtype,
                attn_implementation=attn_implementation,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                keep_gguf=wanted.keep_gguf,
                schemes=schemes,
            )
        quantization.finish_request(model, wanted)
        model.config.name_or_path = pretrained_model_name_or_path
        model.after_loading(folder)
        del checkpoint  # holds the texts of a GGUF file's vocabulary
        trim_heap()
        return (model, info) if output_loading_info else model

    def after_loading(self, folder: Path) -> None:
        """Read what else the folder holds for this model; heads override it."""

    @property
    def adapters_apart(self) -> bool:
        """Whether there are adapters that are not merged, so that files of the weights leave them out."""
        layers = {} if self.lora_config is None else adapters.adapted_layers(self)
        return not all(layer.adapter.merged for layer in layers.values())

    @old_name("folder", "save_directory")
    def save_pretrained(
        self, save_directory: str | os.PathLike, *, max_shard_size: str | int = "5GB", **kwargs: Any
    ) -> None:
        """Write a folder that `from_pretrained` here and in transformers load.

        Packed weights (`quantize` with `group_size`, or read from a quantised checkpoint) are written as
        compressed-tensors, bit by bit; packed tables of embeddings as floats. Adapters that are not merged are left
        out, with a warning: `tfmodels.training.lora.save_adapter` writes them.

        Args:
            save_directory: made if needed. Files of an earlier save are replaced once the new ones are whole.
            max_shard_size: weights beyond it are split over files; bytes, or text such as "200MB".
            **kwargs: `push_to_hub=True` with the arguments of `push_to_hub`. Arguments of transformers without effect
                here are accepted, see `tfmodels.utils.arguments`.

        Raises:
            ValueError: the model is quantised by Keras, or in a way that files of this format do not hold.
        """
        push = upload.wanted(settle(kwargs, SAVING, "save_pretrained"), save_directory)
        with staged(save_directory) as stage:
            self.write_files(stage, max_shard_size)
        push()

    def write_files(self, stage: Staged, max_shard_size: str | int = "5GB") -> None:
        """Write what `save_pretrained` writes into a staged folder, whose files all take their names together."""
        if self.keras_quantization is not None:
            raise ValueError(
                f"{self.name} is quantised ({self.keras_quantization}) and checkpoints hold floating-point weights: "
                f"save it before quantize and quantise it again where it is loaded, or quantise it with a group_size, "
                f"which can be saved."
            )
        save.check_writable(self)
        if self.adapters_apart:
            merging = "" if self.quantization else ", and merge_lora(model) before saving merges them"
            warn(
                f"save_pretrained writes {self.name} without its adapters: tfmodels.training.lora.save_adapter(model, "
                f"folder) writes them{merging}."
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
