"""Models spread over several devices with `keras.distribution`, which needs Keras on JAX.

Tensor parallelism (Shoeybi et al., https://arxiv.org/abs/1909.08053): each device holds some attention heads, some
columns of the feed-forward block and some rows of the vocabulary. This module says how weights are laid out, from the
`Sharding` of each family; XLA adds the communication.

    import keras
    from tfmodels import LlamaConfig, TFLlamaForCausalLM
    from tfmodels.training.distribution import tensor_parallel

    config = LlamaConfig.from_pretrained(folder)
    keras.distribution.set_distribution(tensor_parallel(config, shards=4))
    model = TFLlamaForCausalLM.from_pretrained(folder)    # and compile, fit, generate as ever

On several hosts every process runs the same script, which begins by meeting the others; devices are then those of all
hosts, and a distribution spreads over them as over one's own:

    keras.distribution.initialize("10.0.0.1:1234", num_processes=2, process_id=0)    # on the other host: process_id=1
    keras.distribution.set_distribution(data_parallel())
    model = TFLlamaForCausalLM.from_pretrained(folder)
    model.compile("adamw")
    model.fit(dataset.batch(64))    # a tf.data.Dataset of all rows: 32 of each batch are this process's
    if jax.process_index() == 0:
        model.save_pretrained("trained")

The address is the first process's, on a port that is free there; nothing may be computed before. It is
`jax.distributed.initialize` and a seed that all share; what is left out comes from the environment
(`KERAS_DISTRIBUTION_JOB_ADDRESSES`, `..._NUM_PROCESSES`, `..._PROCESS_ID`), on a TPU from the machine. `fit` divides
`tf.data` datasets only; where each process has its part of the rows already, set `auto_shard_dataset = False` on the
distribution; arrays will do then. With `tensor_parallel(config, shards=n)`, n the devices of one host, a model stays
within a host, which is the faster way and the one in which `save_pretrained` finds all weights; across hosts, of which
each reads its own devices' parts of the file alone, it trains too, but raises JAX's error about devices that are not
addressable when it saves.

On TensorFlow use `tf.distribute`: `MirroredStrategy` under `fit` for the devices of one host, and for several hosts
the loop of examples/multi_worker.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfmodels.auto import family_of
from tfmodels.configs.base import ModelConfig
from tfmodels.utils.text import quote


def layout_map(
    config: ModelConfig, device_mesh: keras.distribution.DeviceMesh, *, axis: str = "model"
) -> keras.distribution.LayoutMap:
    """The layout of a model's weights under tensor parallelism.

    Queries, keys, values and the widening half of the feed-forward block are split by columns, so that each device
    computes whole heads; what follows them by rows; embeddings and output layer by tokens, or, where the vocabulary
    does not divide, by hidden dimensions. Everything else is whole on every device, and so are keys and values where
    there are fewer of their heads than devices.

    Args:
        config: of the model.
        device_mesh: one of its axes is called `axis`.
        axis: the mesh axis to split over.

    Returns:
        The map for `keras.distribution.ModelParallel`, by regular expressions on variable paths.

    Raises:
        ValueError: no such axis, or heads or feed-forward columns do not divide by its size.

    Source:
        Shoeybi et al., https://arxiv.org/abs/1909.08053, section 3.
    """
    if axis not in device_mesh.axis_names:
        raise ValueError(f"axis={quote(axis)}; the mesh has {', '.join(device_mesh.axis_names)}.")
    shards = device_mesh.shape[device_mesh.axis_names.index(axis)]
    intermediate = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    for name, size in (("num_attention_heads", config.num_attention_heads), ("intermediate_size", intermediate)):
        if size % shards:
            raise ValueError(f"{name}={size} does not split over {shards} devices.")
    family = family_of(config)
    sharding = family.load(family.class_name("Model")).sharding
    layouts = keras.distribution.LayoutMap(device_mesh)

    def put(names: str, layout: tuple[str | None, ...]) -> None:
        layouts[f"(.*/)?{names}"] = layout

    split = [sharding.queries, sharding.widened]
    heads_divide = (getattr(config, "num_key_value_heads", None) or config.num_attention_heads) % shards == 0
    if sharding.keys_and_values and heads_divide:
        split.append(sharding.keys_and_values)
    for names in split:
        put(f"{names}/kernel", (None, axis))
        put(f"{names}/bias", (axis,))
    for names in (sharding.attended, sharding.narrowed):
        put(f"{names}/kernel", (axis, None))
    if config.vocab_size % shards == 0:
        put(f"{sharding.tokens}/embeddings", (axis, None))
        put(f"{sharding.scores}/kernel", (None, axis))
        put(f"{sharding.scores}/bias", (axis,))
    else:
        put(f"{sharding.tokens}/embeddings", (None, axis))
        put(f"{sharding.scores}/kernel", (axis, None))
    return layouts


def tensor_parallel(
    config: ModelConfig, *, shards: int | None = None, devices: Sequence[str] | None = None
) -> keras.distribution.ModelParallel:
    """Tensor parallelism, combined with data parallelism over the remaining devices.

    Args:
        config: of the model.
        shards: devices that a model is split over; by default all. With 2 of 8, four groups share the batch.
        devices: as `keras.distribution.list_devices()` names them; by default all.

    Returns:
        The distribution: set it, or enter its `scope()`, before the model is made.

    Raises:
        RuntimeError: Keras does not run on JAX.
        ValueError: `shards` does not divide the number of devices, or the model does not split; see `layout_map`.
    """
    _check_backend()
    devices = list(devices or keras.distribution.list_devices())
    shards = len(devices) if shards is None else shards
    if shards < 1 or len(devices) % shards:
        raise ValueError(f"shards={shards} does not divide the number of devices, {len(devices)}.")
    mesh = keras.distribution.DeviceMesh((len(devices) // shards, shards), ("batch", "model"), devices)
    return keras.distribution.ModelParallel(layout_map=layout_map(config, mesh), batch_dim_name="batch")


def data_parallel(devices: Sequence[str] | None = None) -> keras.distribution.DataParallel:
    """The whole model on every device, each with its part of the batch.

    Args:
        devices: as `keras.distribution.list_devices()` names them; by default all. Their number divides the batch.

    Returns:
        The distribution: set it, or enter its `scope()`, before the model is made.

    Raises:
        RuntimeError: Keras does not run on JAX.
    """
    _check_backend()
    return keras.distribution.DataParallel(devices=list(devices or keras.distribution.list_devices()))


def _check_backend() -> None:
    backend = keras.backend.backend()
    if backend != "jax":
        raise RuntimeError(
            f"keras.distribution does nothing on {backend}: set KERAS_BACKEND=jax before Keras is imported, or, on "
            f"TensorFlow, use tf.distribute (MirroredStrategy under fit; examples/multi_worker.py on several hosts)."
        )
