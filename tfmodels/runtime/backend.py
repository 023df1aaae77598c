"""The Keras backends that models run on."""

from __future__ import annotations

import os

BACKENDS = ("tensorflow", "jax")


def check_backend() -> None:
    """Raise ImportError where Keras is set to a backend that the models do not run on.

    A refusal before Keras is imported saves the user an error about a package that the backend needs.
    """
    name = os.environ.get("KERAS_BACKEND")
    if name is None or name in BACKENDS:
        import keras

        name = keras.backend.backend()
    if name not in BACKENDS:
        raise ImportError(
            f"KERAS_BACKEND={name}: the models of tfmodels run on {' and '.join(BACKENDS)}. Set the environment "
            f'variable KERAS_BACKEND (or "backend" in ~/.keras/keras.json) to one of them before Keras is imported.'
        )
