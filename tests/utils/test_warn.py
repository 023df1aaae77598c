"""utils/warn.py: warnings name the line of the user's."""

import warnings

import numpy as np
import small_models as small

from tfmodels import GenerationConfig


def places(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [(str(one.message), one.filename) for one in caught]


def test_warnings_of_settings_point_here(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"top_k": -1, "token_healing": true}')
    model = small.make("llama", "ForCausalLM")
    prompt = np.array([[5, 6]])
    for action, part in (
        (lambda: GenerationConfig(temperature=0.5), "do_sample=True only"),
        (lambda: GenerationConfig().update(temperature=0.5), "do_sample=True only"),
        (lambda: GenerationConfig(max_length=5, max_new_tokens=3), "max_new_tokens is used"),
        (lambda: GenerationConfig.from_pretrained(tmp_path), "have no effect here"),
        (lambda: GenerationConfig.from_dict({"top_p": 3.0}), "is odd"),
        (lambda: model.generate(prompt, temperature=0.5, max_new_tokens=1, jit_compile=False), "do_sample=True only"),
        (
            lambda: model.generate(prompt, num_assistant_tokens=3, max_new_tokens=1, jit_compile=False),
            "assistant_model only",
        ),
        (
            lambda: model.generate(prompt, GenerationConfig(max_new_tokens=1), max_length=9, jit_compile=False),
            "max_new_tokens is used",
        ),
        (
            lambda: model.generate(prompt, attention_mask=[[1, 0]], max_new_tokens=1, jit_compile=False),
            "padded on the right",
        ),
    ):
        told = places(action)
        assert any(part in message for message, _ in told), (part, told)
        assert all(file == __file__ for _, file in told), told
