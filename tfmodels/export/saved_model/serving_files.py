"""The files beside a SavedModel for those who serve it: README.md, and the requests a server warms up with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmodels.export.artifact import Signature
from tfmodels.utils.text import quote

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def write(
    folder: Path,
    model_name: str,
    requests: dict[str, list[dict[str, Any]]],
    signatures: list[Signature],
    *,
    tokenizer: str | None,
) -> None:
    """Write README.md and the warm-up requests.

    Args:
        folder: of the version.
        model_name: what the server calls the model.
        requests: example inputs by signature, as arrays; the first of each is shown in the README.
        signatures: all of them.
        tokenizer: the tokenizer's folder in `folder`, or None.
    """
    warmup = folder / WARMUP_FILE
    warmup.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(warmup)) as writer:
        for name, examples in requests.items():
            for inputs in examples:
                writer.write(prediction_log(model_name, name, inputs))
    (folder / "README.md").write_text(_readme(model_name, requests, signatures, tokenizer), "utf-8")


# Warm-up -------------------------------------------------------------------------------------------------------------


def prediction_log(model_name: str, signature: str, inputs: dict[str, Any]) -> bytes:
    """A `tensorflow.serving.PredictionLog` that holds one PredictRequest.

    The messages are nested strings and little else, so they are put together here: the package that has their classes
    would be needed for nothing but this. Source: prediction_log.proto and predict.proto of TensorFlow Serving.

    Args:
        model_name, signature: of the request's model_spec.
        inputs: arrays by name.
    """
    model_spec = _field(1, model_name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field of a protocol buffer message."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    groups = []
    while True:
        value, group = value >> 7, value & 0x7F
        groups.append(group | (0x80 if value else 0))
        if not value:
            return bytes(groups)


# README --------------------------------------------------------------------------------------------------------------


def rest_body(signature: str, inputs: dict[str, Any]) -> str:
    """The JSON of a REST request in columns ("inputs").

    Example:
        >>> rest_body("serving_default", {"input_ids": np.array([[1, 2]])})
        '{"signature_name": "serving_default", "inputs": {"input_ids": [[1, 2]]}}'
    """
    columns = {name: np.asarray(value).tolist() for name, value in inputs.items()}
    return json.dumps({"signature_name": signature, "inputs": columns}, ensure_ascii=False)


def _readme(
    model_name: str, requests: dict[str, list[dict[str, Any]]], signatures: list[Signature], tokenizer: str | None
) -> str:
    name, examples = next(iter(requests.items()))
    curls = "\n".join(
        f"    curl -s http://localhost:8501/v1/models/{model_name}:predict -d '{_quoted(rest_body(key, inputs[0]))}'"
        for key, inputs in requests.items()
    )
    tensors = "\n".join(
        f'    request.inputs["{key}"].CopyFrom(tf.make_tensor_proto({quote(np.asarray(value).tolist())}, '
        f"tf.{_dtype_of(signatures, name, key)}))"
        for key, value in examples[0].items()
    )
    rows = "\n".join(
        f"| `{signature.name}` | {_tensors(signature.inputs)} | {_tensors(signature.outputs)} |"
        for signature in signatures
    )
    return f"""# {model_name}

A SavedModel for TensorFlow Serving, made by tfmodels, which is not needed to run it. This folder is one version;
the folder above it is the model's.

| signature | inputs | outputs |
|---|---|---|
{rows}

## Serve

With MODELS as the absolute path of the folder that holds `{model_name}/`:

    tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name={model_name} \\
        --model_base_path=$MODELS/{model_name}

    docker run -p 8500:8500 -p 8501:8501 -v $MODELS/{model_name}:/models/{model_name} \\
        -e MODEL_NAME={model_name} tensorflow/serving

On KServe, with the folder in a bucket:

    apiVersion: serving.kserve.io/v1beta1
    kind: InferenceService
    metadata: {{name: {_dns_label(model_name)}}}
    spec:
      predictor:
        model:
          modelFormat: {{name: tensorflow}}
          storageUri: gs://BUCKET/{model_name}

A server runs the requests in `{WARMUP_FILE}` while it loads the model.

## Text

{_text_section(signatures, tokenizer)}
## REST

{curls}

## gRPC

    import grpc, tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "{model_name}"
    request.model_spec.signature_name = "{name}"
{tensors}
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel("localhost:8500"))
    response = stub.Predict(request, timeout=60)
    print({{name: tf.make_ndarray(value) for name, value in response.outputs.items()}})
"""


def takes_text(signatures: list[Signature]) -> bool:
    """Whether any signature takes strings, which TensorFlow Text's operators cut."""
    return any(dtype == "string" for signature in signatures for dtype, _ in signature.inputs.values())


def _text_section(signatures: list[Signature], tokenizer: str | None) -> str:
    """The tokenizer of a SavedModel: text to ids and ids to text."""
    parts = []
    if takes_text(signatures):
        names = " and ".join(
            f"`{signature.name}`" for signature in signatures if "string" in {d for d, _ in signature.inputs.values()}
        )
        parts.append(
            f"""{names} take strings: the tokenizer is part of the graph, made of TensorFlow Text's operators.
TensorFlow Serving has them. Python needs them before it opens the model (`pip install tensorflow-text`), else it
reports `Op type not registered`:

    import tensorflow as tf, tensorflow_text
    model = tf.saved_model.load("PATH OF THIS FOLDER")
"""
        )
    if tokenizer is None:
        parts.append(
            "The other signatures take ids. This export holds no tokenizer: export with `tokenizer=` to add it.\n"
        )
    else:
        parts.append(
            f"""Ids come from the tokenizer in `{tokenizer}` (`pip install tokenizers`):

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file("{tokenizer}/tokenizer.json")
    ids = tokenizer.encode("Once upon a time").ids
    text = tokenizer.decode(ids)

In a batch of unequal rows the `attention_mask` is 1 at tokens and 0 at padding. Prompts of `generate` are padded on
the left.
"""
        )
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """Text inside single quotes of a shell."""
    return text.replace("'", "'\\''")


def _dtype_of(signatures: list[Signature], name: str, tensor: str) -> str:
    return next(signature.inputs[tensor][0] for signature in signatures if signature.name == name)


def _tensors(tensors: dict[str, Any], most: int = 10) -> str:
    def shape(sizes: tuple[int | None, ...]) -> str:
        return f"({', '.join('?' if size is None else str(size) for size in sizes)})"

    shown = [f"`{name}` {dtype} {shape(sizes)}" for name, (dtype, sizes) in list(tensors.items())[:most]]
    return "<br>".join(shown) + (f"<br>... {len(tensors)} in all" if len(tensors) > most else "")


def _dns_label(name: str) -> str:
    """A name as Kubernetes takes it.

    Example:
        >>> _dns_label("My_model.v2")
        'my-model-v2'
    """
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-") or "model"
