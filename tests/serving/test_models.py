"""serving/models.py: models as they are loaded, adapters, sentence encoders, restarts."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from tfmodels import AutoTokenizer, GenerationConfig, SentenceEncoder, TFAutoModel, TFAutoModelForCausalLM
from tfmodels.serving import models as serving_models
from tfmodels.serving.errors import BadRequest
from tfmodels.serving.models import EngineOptions, LanguageModel, Spec, load
from tfmodels.training.lora import adapted_layers, add_lora, save_adapter

OPTIONS = EngineOptions(rows=2, capacity=64, jit_compile=False, warm_up=False)
PROMPT = [1, 403, 407, 261, 378]


def greedy(served, count=8):
    id = served.engine.add(PROMPT, max_new_tokens=count, do_sample=False)
    return served.engine.run()[id].tokens


@pytest.mark.slow
def test_an_adapter_is_a_model_of_its_own(tmp_path, stories_model):
    model = TFAutoModelForCausalLM.from_pretrained("stories260K")
    add_lora(model, r"\.(q|v)_proj$", rank=2)
    draw = np.random.default_rng(0)
    for layer in adapted_layers(model).values():
        layer.adapter.lora_b.assign(draw.normal(size=layer.adapter.lora_b.shape))
    save_adapter(model, tmp_path / "adapter")
    specs = [
        Spec("plain", "stories260K", chat_template="{{ messages[0].content }}"),
        Spec("mine", "stories260K", adapter=str(tmp_path / "adapter")),
    ]
    told = []
    models = load(specs, OPTIONS, told.append)
    assert list(models) == ["plain", "mine"] and told == ["loading plain", "loading mine"]
    expected = np.asarray(stories_model.generate([PROMPT], max_new_tokens=8, jit_compile=False))[0, 5:].tolist()
    assert list(greedy(models["plain"])) == expected
    adapted = np.asarray(model.generate([PROMPT], max_new_tokens=8, jit_compile=False))[0, 5:].tolist()
    assert list(greedy(models["mine"])) == adapted != expected
    assert models["plain"].tasks == ["chat", "completions", "embeddings"] and "chat" not in models["mine"].tasks
    assert models["plain"].cache_bytes > 0
    models["plain"].restart()
    assert list(greedy(models["plain"])) == expected
    with pytest.raises(ValueError, match="the adapter '/nowhere' does not go with the model"):
        load([Spec("wrong", "stories260K", adapter="/nowhere")], OPTIONS)


@pytest.mark.slow
def test_an_adapter_stays_beside_packed_weights(tmp_path):
    model = TFAutoModelForCausalLM.from_pretrained("stories260K")
    add_lora(model, "_proj$", rank=4)
    model.quantize("int4", group_size=32)  # the adapters begin with what rounding has lost
    with pytest.warns(UserWarning, match="without its adapters"):
        model.save_pretrained(tmp_path / "packed")
    AutoTokenizer.from_pretrained("stories260K").save_pretrained(tmp_path / "packed")
    draw = np.random.default_rng(0)
    for layer in adapted_layers(model).values():
        layer.adapter.lora_b.assign(draw.normal(size=layer.adapter.lora_b.shape))
    save_adapter(model, tmp_path / "adapter")
    place = str(tmp_path / "packed")
    models = load([Spec("plain", place), Spec("mine", place, adapter=str(tmp_path / "adapter"))], OPTIONS)
    adapted = np.asarray(model.generate([PROMPT], max_new_tokens=8, jit_compile=False))[0, 5:].tolist()
    assert list(greedy(models["mine"])) == adapted != list(greedy(models["plain"]))


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "stored",
    [{"num_beams": 4, "early_stopping": True}, {"guidance_scale": 1.5}, {"penalty_alpha": 0.6, "top_k": 4}],
)
def test_searches_of_a_models_file_do_not_count(stored):
    model = TFAutoModelForCausalLM.from_pretrained("stories260K")
    want = np.asarray(model.generate([PROMPT], max_new_tokens=8, jit_compile=False))[0, 5:].tolist()
    own = model.generation_config = GenerationConfig.from_dict({"eos_token_id": 2, **stored})
    tokenizer = AutoTokenizer.from_pretrained("stories260K")
    with pytest.warns(UserWarning, match=f"{next(iter(stored))} of the generation configuration of stories"):
        served = LanguageModel("stories", model, tokenizer, OPTIONS)
    assert list(greedy(served)) == want
    assert model.generation_config is own


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_warming_up_compiles_what_requests_need(jit_compile, monkeypatch):
    """Prompts of all lengths, greedy and drawn tokens, one row and all: the background leaves nothing to compile."""
    monkeypatch.setattr(serving_models, "_SECONDS_BETWEEN_LINES", 0.2)
    options, told = EngineOptions(rows=2, capacity=48, jit_compile=jit_compile), []
    (served,) = load([Spec("stories", "stories260K")], options, told.append).values()
    assert told[:2] == ["loading stories", "compiling stories; requests get 503 until it is ready"]
    counts = [int(re.match(r"(\d+) programs of stories compiled in \d+ s", line)[1]) for line in told[2:]]
    assert len(counts) > 2 and counts == sorted(counts) and counts[-1] <= served.programs.compilations
    assert all(line.endswith("more follow") for line in told[2:-1]) and told[-1].endswith(" s")
    served.programs.wait()
    before = served.programs.compilations
    assert served.engine.pending == 0 and served.engine.stats["prompts"] == 0
    for alone in (True, False):
        for size in (1, 16, 17, 40):
            for settings in ({"do_sample": True, "seed": 1, "top_k": 0, "temperature": 0.7}, {"do_sample": False}):
                served.engine.add([size] * size, max_new_tokens=3, **settings)
                while alone and served.engine.pending:
                    served.engine.step()
        while served.engine.pending:
            served.engine.step()
    served.programs.wait()
    assert served.programs.compilations == before == len(served.programs)


@pytest.mark.slow
def test_requests_of_all_settings_share_a_few_programs(stories_model):
    """Requests of a few kinds make a few programs, whatever their number and contents."""
    pytest.importorskip("llguidance")
    tokenizer = AutoTokenizer.from_pretrained("stories260K")
    served = LanguageModel("stories", stories_model, tokenizer, dataclasses.replace(OPTIONS, rows=1))

    def serve(turn):
        schema = {"type": "object", "properties": {f"key{turn}": {"type": "integer"}}, "additionalProperties": False}
        form = served.grammar({"type": "json_schema", "json_schema": {"schema": schema}})
        drawn = {"do_sample": True, "temperature": 0.5 + turn / 10, "top_p": 0.9, "top_k": turn, "seed": turn}
        for settings in (
            {"do_sample": False},
            drawn,
            {"response_format": form, "do_sample": False},
            {"logprobs": turn, **drawn, "logit_bias": {turn: 1.0}, "presence_penalty": turn / 10},
            {"stop_strings": ["a"] * turn, "do_sample": False},
        ):
            served.engine.add([1, 403 + turn, 407][: 2 + turn % 2], max_new_tokens=2 + turn, **settings)
        while served.engine.pending:
            served.engine.step()

    serve(1)
    kept, compiled = len(served.programs), served.programs.compilations
    for turn in range(2, 6):
        serve(turn)
    assert len(served.programs) == kept <= served.programs.limit and served.programs.compilations == compiled


def test_a_sentence_encoder(tmp_path):
    model, tokenizer = (auto.from_pretrained("stories260K") for auto in (TFAutoModel, AutoTokenizer))
    encoder = SentenceEncoder(model, tokenizer, tail=["normalize"], max_seq_length=16)
    encoder.save_pretrained(tmp_path / "encoder")
    (served,) = load([Spec("encoder", str(tmp_path / "encoder"), encoder=True)], EngineOptions()).values()
    assert served.engine is None and served.tasks == ("embeddings",) and served.capacity == 16
    texts = ["Once upon a time", "a"]
    vectors = served.encoder.encode([served.encoder.ids(text) for text in texts])
    np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-5)


def test_formats_that_cannot_be_met(stories):
    served = stories.worker.models["stories"]
    assert served.grammar({"type": "text"}) is None
    for wrong in ({"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}, {}):
        with pytest.raises(BadRequest) as caught:
            served.grammar(wrong)
        assert caught.value.param == "response_format"
