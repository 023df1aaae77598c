"""TensorFlow Serving's REST messages: requests to arrays, outputs and errors to JSON.

Source: https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from typing import Any

DEFAULT_SIGNATURE = "serving_default"


class BadRequest(ValueError):
    """A request that cannot be answered; `status` is the HTTP status that says so."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a client's request.

    Fields:
        body_bytes: of a request.
        rows, length: of each input (of caches, the length is free).
        tokens: rows x length of all of them.
        read_seconds: for sending headers, or a body, or for taking an answer.
    """

    body_bytes: int = 4 * 2**20
    rows: int = 256
    length: int = 4096
    tokens: int = 32768
    read_seconds: float = 10.0

    def check(self, inputs: dict[str, Any]) -> None:
        """Raise BadRequest for inputs that are too large, or whose rows do not agree."""
        rows = {name: len(value) for name, value in inputs.items() if value.ndim and name != "eos_token_id"}
        if len(set(rows.values())) > 1:
            described = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise BadRequest(f"all inputs must have the same number of rows; these have {described}")
        for name, value in inputs.items():
            if value.ndim and len(value) > self.rows:
                raise BadRequest(f"{name} has {len(value)} rows; at most {self.rows} are taken")
            text = value.dtype == object
            longest = max(map(len, value.ravel()), default=0) if text else (value.shape[-1] if value.ndim > 1 else 0)
            if longest > self.length * (8 if text else 1) or (
                not text and value.ndim < 4 and value.size > self.tokens
            ):
                raise BadRequest(
                    f"{name} is too long: rows of at most {self.length} tokens (texts of {8 * self.length} bytes), "
                    f"{self.tokens} tokens in all, are taken"
                )


@dataclasses.dataclass(frozen=True)
class Served:
    """A signature as requests are read by it."""

    inputs: dict[str, Any]
    defaults: frozenset[str]


def cut(value: Any, limit: int = 100) -> str:
    """A value for a message, of at most so many characters."""
    text = json.dumps(value[: limit + 1] if isinstance(value, (str, list)) else value)
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def read_request(body: bytes, signatures: dict[str, Any]) -> tuple[str, dict[str, Any], bool]:
    """Read a predict request.

    Args:
        body: JSON.
        signatures: by name, each with `inputs` (name -> (dtype, shape)) and `defaults`, names that may be left out.

    Returns:
        The signature's name, arrays by name, and whether they came in rows ("instances").

    Raises:
        BadRequest: the body is no such request, or does not fit the signature.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"JSON Parse error: {reason[:200]}") from error
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise BadRequest('one of "instances" and "inputs" is expected in a JSON object')
    name = request.get("signature_name", "")
    name = DEFAULT_SIGNATURE if name == "" else name
    if not isinstance(name, str) or name not in signatures:
        raise BadRequest(f"signature {cut(name)} does not exist; there are {', '.join(signatures)}")
    signature = signatures[name]
    in_rows = "instances" in request
    values = _columns(request["instances"], signature) if in_rows else _named(request["inputs"], signature)
    needed = signature.inputs.keys() - signature.defaults
    if not needed <= values.keys() <= signature.inputs.keys():
        raise BadRequest(
            f"{name} takes {', '.join(signature.inputs)}; the request has "
            f"{', '.join(cut(key) for key in list(values)[:10]) or 'none of them'}"
        )
    inputs = {}
    for key, value in values.items():
        dtype, shape = signature.inputs[key]
        if in_rows and not shape:  # a number for the whole call, repeated in every row
            if any(type(other) is not type(value[0]) or other != value[0] for other in value):
                raise BadRequest(f"{key} is one value for all rows; the rows differ")
            value = value[0]
        inputs[key] = as_array(key, value, dtype, len(shape))
    return name, inputs, in_rows


def _columns(rows: Any, signature: Any) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not rows:
        raise BadRequest('"instances" must be a list of at least one row')
    only = next(iter(signature.inputs)) if len(signature.inputs) - len(signature.defaults) == 1 else None
    if only is not None and not all(isinstance(row, dict) and row.keys() <= signature.inputs.keys() for row in rows):
        rows = [{only: row} for row in rows]
    if not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        raise BadRequest(f"every row must name the same inputs, of {', '.join(signature.inputs)}")
    return {key: [row[key] for row in rows] for key in rows[0]}


def _named(values: Any, signature: Any) -> dict[str, Any]:
    required = [key for key in signature.inputs if key not in signature.defaults]
    if isinstance(values, dict) and values.keys() != {"b64"}:
        return values
    if len(required) != 1:
        raise BadRequest(f'"inputs" must be an object with {", ".join(signature.inputs)}')
    return {required[0]: values}


def as_array(name: str, value: Any, dtype: str, rank: int) -> Any:
    """JSON lists as an array of a dtype and rank, taking nothing for what it is not: 1.0 and true are no int32.

    Raises:
        BadRequest: the lists are nested in another way or unequally long, or a value is of another type.
    """
    import numpy as np

    level, shape = [value], []
    for axis in range(rank):
        if not all(isinstance(part, list) for part in level):
            raise BadRequest(f"{name} has {axis} axes; {rank} are expected")
        sizes = {len(part) for part in level}
        if len(sizes) > 1:
            raise BadRequest(f"{name}: {dtype} values of equally long rows are expected")
        shape.append(sizes.pop() if sizes else 0)
        level = [item for part in level for item in part]
    if any(isinstance(item, list) for item in level):
        raise BadRequest(f"{name} has more than {rank} axes")
    if dtype == "string":
        return np.array([_bytes(name, item) for item in level], "object").reshape(shape)
    kind = np.dtype(dtype).kind
    allowed = {"i": {int}, "u": {int}, "f": {int, float}, "b": {bool}}[kind if kind in "iufb" else "f"]
    wrong = next((item for item in level if type(item) not in allowed), None)
    if wrong is not None or not all(type(item) in allowed for item in level):
        raise BadRequest(f"{name}: {cut(wrong)} is not of expected type: {dtype}")
    if kind in "iu":
        bounds = np.iinfo(dtype)
        wrong = next((item for item in level if not bounds.min <= item <= bounds.max), None)
    elif kind == "f":
        largest = float(np.finfo(dtype).max)
        wrong = next((item for item in level if largest < abs(item) < float("inf")), None)
    if wrong is not None:
        raise BadRequest(f"{name}: {cut(wrong)} is out of the range of {dtype}")
    return np.array(level, dtype).reshape(shape)


def _bytes(name: str, item: Any) -> bytes:
    if isinstance(item, str):
        try:
            return item.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRequest(f"{name}: half of a surrogate pair is no text") from error
    if isinstance(item, dict) and item.keys() == {"b64"} and isinstance(item["b64"], str):
        try:
            return base64.b64decode(item["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"{name}: unable to base64 decode {cut(item['b64'])}") from error
    raise BadRequest(f'{name}: {cut(item)} is not of expected type: string, or {{"b64": "..."}}')


def write_answer(outputs: dict[str, Any], in_rows: bool) -> bytes:
    """The answer as JSON: "predictions" for rows, "outputs" for columns; a single output stands without its name.

    Raises:
        BadRequest: the outputs have no rows, which the request asked for.
    """
    columns = {name: as_json(name, values) for name, values in outputs.items()}
    only = next(iter(columns.values())) if len(columns) == 1 else None
    if not in_rows:
        answer = {"outputs": columns if only is None else only}
    elif len({values.shape[:1] for values in outputs.values()}) != 1 or not all(v.ndim for v in outputs.values()):
        raise BadRequest('the outputs have no common rows: ask with "inputs" instead of "instances"')
    elif only is not None:
        answer = {"predictions": only}
    else:
        answer = {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}
    return json.dumps(answer).encode()


def as_json(name: str, values: Any) -> Any:
    """Numbers and strings as JSON has them; an output whose name ends in `_bytes` in base64."""
    if values.dtype != object:
        return values.tolist()
    raw = name.endswith("_bytes")

    def text(item: Any) -> Any:
        if isinstance(item, list):
            return [text(part) for part in item]
        item = item if isinstance(item, bytes) else str(item).encode()
        return {"b64": base64.b64encode(item).decode()} if raw else item.decode("utf-8", "replace")

    return text(values.tolist())


def metadata(runner: Any, name: str, version: str) -> dict[str, Any]:
    """The answer to `/metadata`: every signature as protocol buffers' JSON has it."""
    from google.protobuf import json_format

    from tfmodels.export.saved_model.runner import signature_defs

    def as_dict(tensors: Any) -> dict[str, Any]:
        try:
            options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
            return {name: json_format.MessageToDict(tensor, **options) for name, tensor in tensors.items()}
        except TypeError:  # protobuf before 5
            options = {"preserving_proto_field_name": True, "including_default_value_fields": True}
            return {name: json_format.MessageToDict(tensor, **options) for name, tensor in tensors.items()}

    found = {
        key: {
            "inputs": as_dict(definition.inputs),
            "outputs": as_dict(definition.outputs),
            "method_name": definition.method_name,
            "defaults": as_dict(definition.defaults),
        }
        for key, definition in signature_defs(runner.folder).items()
    }
    spec = {"name": name, "signature_name": "", "version": version}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": found}}}


def status_of(error: Exception) -> int:
    """The HTTP status that TensorFlow Serving has for an error of a run."""
    import tensorflow as tf

    kinds = {
        tf.errors.InvalidArgumentError: 400,
        tf.errors.FailedPreconditionError: 400,
        tf.errors.OutOfRangeError: 400,
        tf.errors.NotFoundError: 404,
        tf.errors.ResourceExhaustedError: 429,
        tf.errors.UnavailableError: 503,
        tf.errors.UnimplementedError: 501,
    }
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), 500)
