"""`/tokenize` and `/detokenize`: texts and conversations to token ids, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmodels.serving import fields, messages, tools
from tfmodels.serving.errors import BadRequest
from tfmodels.serving.inputs import check_ids
from tfmodels.serving.service import Service

TOKENIZE = fields.Fields(
    {
        "model": fields.text,
        "prompt": fields.text,
        "messages": messages.check_messages,
        "tools": tools.check_tools,
        "add_special_tokens": fields.flag,
        "return_token_strs": fields.flag,
    }
)
DETOKENIZE = fields.Fields(
    {"model": fields.text, "tokens": check_ids, "skip_special_tokens": fields.flag},
)


async def tokenize(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    """Token ids of a text (`prompt`) or a conversation (`messages`)."""
    request = TOKENIZE.read(body)
    model = service.model(request.get("model"))
    if ("prompt" in request) == ("messages" in request):
        raise BadRequest("Give prompt or messages, one of the two.", "prompt")
    if "tools" in request and "messages" not in request:
        raise BadRequest("tools is only allowed with messages.", "tools")
    if request.get("add_special_tokens") and "messages" in request:
        raise BadRequest("add_special_tokens is for prompt; the chat template writes its own.", "add_special_tokens")

    def ids() -> list[int]:
        if "messages" in request:
            return messages.render(model.tokenizer, request["messages"], request.get("tools"), {})
        special = request.get("add_special_tokens", True)
        return model.tokenizer(request["prompt"], add_special_tokens=special)["input_ids"]

    found = await service.in_background(ids)
    answer = {"tokens": found, "count": len(found), "max_model_len": model.capacity}
    if request.get("return_token_strs"):
        answer["token_strs"] = [model.tokens.text(token) for token in found]
    return answer


async def detokenize(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    """The text of token ids (`tokens`)."""
    request = DETOKENIZE.read(body)
    model = service.model(request.get("model"))
    if "tokens" not in request:
        raise BadRequest("tokens is missing.", "tokens")
    ids = request["tokens"].ids(model) if request["tokens"].value else []
    skip = request.get("skip_special_tokens", False)
    text = await service.in_background(lambda: model.tokenizer.decode(ids, skip_special_tokens=skip))
    return {"prompt": text}
