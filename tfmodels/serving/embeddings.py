"""`/v1/embeddings`: texts or token ids to vectors."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmodels.serving import fields
from tfmodels.serving.errors import BadRequest
from tfmodels.serving.inputs import Input, check_inputs
from tfmodels.serving.service import Service

MOST_INPUTS = 2048
_BATCH = 16

FIELDS = fields.Fields(
    {
        "model": fields.text,
        "input": check_inputs(MOST_INPUTS),
        "encoding_format": fields.one_of("float", "base64"),
        "dimensions": fields.integer(1),
    },
    ignored={"user": fields.text},
)


async def embed(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request.

    Raises:
        APIError: the request is wrong, or there is no room for it.
    """
    request = FIELDS.read(body)
    model = service.model(request.get("model"))
    if "input" not in request:
        raise BadRequest("input is missing.", "input")
    encoder = model.encoder
    wanted = request.get("dimensions", encoder.dimension)
    if wanted > encoder.dimension:
        raise BadRequest(f"dimensions={wanted}: this model's vectors have {encoder.dimension}.", "dimensions")
    with service.worker.reserve(1):
        rows = await service.in_background(_ids, model, encoder, request["input"])
        vectors = np.zeros((len(rows), encoder.dimension), "float32")
        # Texts of about the same length share a batch; the engines step between two of them.
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        for start in range(0, len(rows), _BATCH):
            own = order[start : start + _BATCH]
            batch = [rows[index] for index in own]
            vectors[own] = await service.worker.call(lambda batch=batch: encoder.encode(batch))
    data = await service.in_background(_data, vectors, wanted, request.get("encoding_format", "float"))
    read = sum(map(len, rows))
    service.metrics.embedded(read)
    usage = {"prompt_tokens": read, "total_tokens": read}
    return {"object": "list", "data": data, "model": model.name, "usage": usage}


def _ids(model: Any, encoder: Any, inputs: list[Input]) -> list[list[int]]:
    rows = []
    for one in inputs:
        if isinstance(one.value, str) and not one.value:
            raise BadRequest("input holds an empty text.", "input")
        ids = encoder.ids(one.value) if isinstance(one.value, str) else one.ids(model)
        if len(ids) > encoder.longest:
            raise BadRequest(
                f"This model's maximum context length is {encoder.longest} tokens; an input has {len(ids)}.",
                "input",
                "context_length_exceeded",
            )
        rows.append(ids)
    return rows


def _data(vectors: np.ndarray, wanted: int, encoding: str) -> list[dict[str, Any]]:
    if wanted < vectors.shape[1]:  # a cut vector has length 1, as OpenAI's
        vectors = vectors[:, :wanted]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    data = []
    for index, vector in enumerate(vectors):
        if encoding == "base64":
            content: Any = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        else:
            content = vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": content})
    return data
