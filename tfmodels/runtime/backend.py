"""The Keras backends that models run on."""

from __future__ import annotations

import os

BACKENDS = ("tensorflow", "jax")


def check_setting() -> None:
    """Raise ImportError where the environment asks Keras for a backend that the models do not run on.

    Imports nothing: a refusal before Keras is imported saves the user an error about a package that the backend needs.
    """
    name = os.environ.get("KERAS_BACKEND")
    if name is not None:
        _check(name)


def check_backend() -> None:
    """Raise ImportError where Keras is set, by the environment or its file, to a backend without models."""
    check_setting()
    import keras

    _check(keras.backend.backend())


def _check(name: str) -> None:
    if name not in BACKENDS:
        raise ImportError(
            f"KERAS_BACKEND={name}: the models of tfmodels run on {' and '.join(BACKENDS)}. Set the environment "
            f'variable KERAS_BACKEND (or "backend" in ~/.keras/keras.json) to one of them before Keras is imported.'
        )
