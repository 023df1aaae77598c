"""Caches beyond their room."""

import numpy as np
import pytest
import small_models as small

from tfmodels.cache.kv import to_static
from tfmodels.layers.tokens import TokenInputs


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gpt_neo", "mpt"])
def test_a_static_cache_written_beyond_its_room_raises(name):
    model = small.make(name, "ForCausalLM")
    _, cache = model.backbone.step(TokenInputs(np.array([[5, 9, 2]])))
    cache = to_static(cache, 5)
    for token in (7, 8):
        hidden, cache = model.backbone.step(TokenInputs(np.array([[token]])), cache)
    want = model.backbone(np.array([[5, 9, 2, 7, 8]])).last_hidden_state[:, -1:]
    np.testing.assert_allclose(hidden, want, atol=1e-5)
    message = "room for 5 positions, of which 5 are filled; 1 more do not fit"
    with pytest.raises(ValueError, match=message):
        model.backbone.step(TokenInputs(np.array([[4]])), cache)
    with pytest.raises(ValueError, match=message):
        model(np.array([[4]]), past_key_values=cache)
