"""Errors that clients are told, in OpenAI's form."""

from __future__ import annotations

from typing import Any

from tfmodels.utils.text import shorten

# Seconds after which a client that was refused may ask again.
RETRY_SECONDS = 1
_LONGEST_MESSAGE = 1000


class APIError(Exception):
    """An error with the status and the words that a client gets.

    Args:
        status: of HTTP.
        message: for people.
        kind: OpenAI's `type`.
        param: field of the request that is wrong.
        code: a word for programs.
        headers: of the answer.

    Example:
        >>> BadRequest("n=0: an integer from 1 to 128 was expected.", "n").content()["error"]["param"]
        'n'
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = shorten(message, _LONGEST_MESSAGE)
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers or {}

    def content(self) -> dict[str, Any]:
        """The body of the answer, ready for JSON."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class BadRequest(APIError):
    """A field is missing, unknown or wrong (400)."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None):
        super().__init__(400, message, param=param, code=code)


class TooLarge(APIError):
    """The body is larger than the server reads (413)."""

    def __init__(self, limit: int):
        super().__init__(
            413,
            f"The body is larger than {limit} bytes, the most that this server reads.",
            code="request_too_large",
            headers={"connection": "close"},  # not all of the body may have been read
        )


class Unauthorized(APIError):
    """The key is missing or wrong (401)."""

    def __init__(self, message: str):
        super().__init__(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


class UnknownModel(APIError):
    """No model of this name is served (404)."""

    def __init__(self, message: str):
        super().__init__(404, message, param="model", code="model_not_found")


class Overloaded(APIError):
    """The server works on, and keeps waiting, as many requests as it may (429)."""

    def __init__(self, message: str):
        super().__init__(
            429,
            message,
            "rate_limit_error",
            code="rate_limit_exceeded",
            headers={"retry-after": str(RETRY_SECONDS)},
        )


class Unavailable(APIError):
    """The model is not loaded yet, or the server ends (503)."""

    def __init__(self, message: str, code: str, retry_seconds: int = RETRY_SECONDS):
        super().__init__(503, message, "server_error", code=code, headers={"retry-after": str(retry_seconds)})


class ServerEnds(Unavailable):
    """The server ends before it has answered (503)."""

    def __init__(self, code: str = "stopped"):
        super().__init__("The server ends.", code)


class ServerError(APIError):
    """Something failed here (500)."""

    def __init__(self, message: str):
        super().__init__(500, message, "server_error", code="internal_error")
