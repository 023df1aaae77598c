"""Pipelines beside their numbers: forms of input, streams, batches, parameters, choosing a task, mistakes."""

import json

import numpy as np
import pytest
import tensorflow as tf
from pipeline_checkpoints import make_checkpoint

import tfmodels
from tfmodels import pipeline
from tfmodels.pipelines import PipelineException, devices, forward, tasks
from tfmodels.pipelines.settings import Settings

TEXTS = ["my name is paris.", "x", "the good city", "bad day!"]
GREEDY = {"do_sample": False, "max_new_tokens": 4, "jit_compile": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints by name, each made once."""
    base = tmp_path_factory.mktemp("checkpoints")

    def find(name):
        return base / name if (base / name).is_dir() else make_checkpoint(name, base / name)

    return find


@pytest.fixture(scope="module")
def classify(folder):
    return pipeline("text-classification", folder("mpnet_classes"))


@pytest.fixture(scope="module")
def write(folder):
    return pipeline("text-generation", folder("llama_text"), **GREEDY)


# Inputs --------------------------------------------------------------------------------------------------------------


def test_all_containers_give_the_same_results(classify):
    expected = [classify(text)[0] for text in TEXTS]
    for inputs in (TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), tf.constant(TEXTS)):
        found = classify(inputs)
        assert type(found) is list
        assert [one["label"] for one in found] == [one["label"] for one in expected]
        np.testing.assert_allclose([one["score"] for one in found], [one["score"] for one in expected], atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_streams_keep_the_order(classify, batch_size):
    expected = [one["score"] for one in classify(TEXTS)]
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS)
    for stream in ((text for text in TEXTS), iter(TEXTS), dataset, dataset.batch(3)):
        found = classify(stream, batch_size=batch_size)
        assert iter(found) is iter(found)
        np.testing.assert_allclose([one["score"] for one in found], expected, atol=1e-6)
    pairs = tf.data.Dataset.from_tensor_slices({"text": TEXTS, "text_pair": TEXTS[::-1]}).batch(2)
    by_hand = [{"text": one, "text_pair": other} for one, other in zip(TEXTS, TEXTS[::-1], strict=True)]
    scores = [one["score"] for one in classify(by_hand)]
    np.testing.assert_allclose([one["score"] for one in classify(pairs)], scores, atol=1e-6)


def test_a_stream_is_read_only_as_far_as_it_must(classify):
    asked = []

    def endless():
        while True:
            asked.append(len(asked))
            yield "my day"

    results = classify(endless())
    next(results)
    assert len(asked) == 1
    next(results)
    assert len(asked) == 2
    next(classify(endless(), batch_size=2))
    assert len(asked) <= 2 + 8


def test_nothing_in_nothing_out(classify, write):
    assert classify([]) == [] == write([])
    assert list(classify(iter(()))) == [] == list(write(iter(())))


@pytest.mark.parametrize("wrong", [None, 3, ["my", None], [["a", "b"]], b"bytes", {"txt": "a"}, {"text": 1}])
def test_what_is_no_text_is_named(classify, wrong):
    with pytest.raises(ValueError, match="expected|no text|an input is"):
        classify(wrong)


def test_a_long_text_says_what_to_do(classify):
    with pytest.raises(ValueError, match=r"202 tokens is longer than the 24 that .* reads; .*truncation=True"):
        classify("day " * 200)
    assert classify("day " * 200, truncation=True)[0]["label"]


def test_the_tokenizer_stays_as_it_is(folder):
    pipe = pipeline("text-generation", folder("llama_text"), **GREEDY)
    pipe.tokenizer.padding_side = "right"
    both = pipe(["the name", "x"], batch_size=2)
    assert pipe.tokenizer.padding_side == "right"
    assert both == [pipe("the name"), pipe("x")]


def test_a_progress_bar_changes_nothing(classify, capsys):
    assert classify(TEXTS, show_progress=True) == classify(TEXTS)
    assert "text-classification" in capsys.readouterr().out


# Parameters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [5, {"max_new_tokens": 2}, "greedy"])
def test_what_is_no_generation_config_is_named(write, wrong):
    with pytest.raises(TypeError, match="a GenerationConfig was expected; settings are given by name"):
        write(TEXTS[0], generation_config=wrong)


def test_unknown_parameters_are_refused(classify, write, folder):
    with pytest.raises(TypeError, match="unknown parameter 'topk'; did you mean top_k?"):
        classify("x", topk=2)
    with pytest.raises(TypeError, match="function_to_aply"):
        pipeline("text-classification", folder("mpnet_classes"), function_to_aply="none")
    with pytest.raises(TypeError, match="max_new_token"):
        write("x", max_new_token=2)
    with pytest.raises(ValueError, match="function_to_apply='softmin'"):
        classify("x", function_to_apply="softmin")
    with pytest.raises(ValueError, match="top_k=0"):
        classify("x", top_k=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        classify("x", batch_size=0)


def test_all_scores_in_the_older_way(classify):
    with pytest.warns(UserWarning, match="top_k=None"):
        (scores,) = classify("my name", return_all_scores=True)
    assert [one["label"] for one in scores] == ["contradiction", "neutral", "entailment"]
    assert sum(one["score"] for one in scores) == pytest.approx(1)


def test_settings_change_by_name():
    assert Settings().changed({}, "X") == Settings()
    with pytest.raises(TypeError, match="X got an unknown parameter 'a'"):
        Settings().changed({"a": 1}, "X")


def test_defaults_of_text_generation(write):
    drawn = pipeline("text-generation", write.model, tokenizer=write.tokenizer)
    given = drawn.generate_settings(drawn.settings, 4)
    assert given == {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7, "pad_token_id": 0} or given == {
        "max_new_tokens": 256,
        "do_sample": True,
        "temperature": 0.7,
    }
    calm = drawn.settings.changed({"do_sample": False, "max_length": 9}, "X")
    assert not {"temperature", "max_new_tokens"} & drawn.generate_settings(calm, 4).keys()
    with pytest.raises(ValueError, match="mutually exclusive"):
        drawn("x", return_full_text=True, return_tensors=True)


def test_sampling_repeats_with_a_seed_and_returns_several(write):
    options = {"do_sample": True, "temperature": 2.0, "num_return_sequences": 3, "seed": 5, "max_new_tokens": 8}
    first, second = write("the name", **options), write("the name", **options)
    assert first == second
    assert len(first) == 3
    assert len({one["generated_text"] for one in first}) > 1


def test_more_outputs_of_generate_come_along(write):
    (found,) = write("the name", return_dict_in_generate=True, output_scores=True)
    assert np.shape(found["scores"]) == (4, 101)


def test_chats_from_generators(write):
    chat = [{"role": "user", "content": "what?"}]
    expected = write(chat)
    assert write(message for message in chat) == expected
    assert list(write(iter([chat, chat]))) == [expected, expected]
    assert expected[0]["generated_text"][:-1] == chat
    with pytest.raises(ValueError, match="one message; a chat is a list"):
        write(chat[0])
    with pytest.raises(ValueError, match="no message"):
        write([chat[0], {"text": "x"}])


def test_masks_and_targets(folder):
    pipe = pipeline("fill-mask", folder("mpnet_masked_lm"))
    with pytest.raises(PipelineException, match=r"No mask_token \(<mask>\) found on the input 'my name'"):
        pipe("my name")
    with pytest.warns(UserWarning, match="'naming' is no token; 'n' stands for it"):
        found = pipe("<mask>", targets=["naming", "city"])
    assert {one["token_str"] for one in found} == {"n", "city"}
    with pytest.raises(ValueError, match="at least one target"), pytest.warns(UserWarning, match="makes no token"):
        pipe("<mask>", targets=[""])


def test_features_as_tensors_and_of_batches(folder):
    pipe = pipeline("feature-extraction", folder("mpnet_bare"))
    found = pipe(TEXTS, return_tensors=True, batch_size=4)
    assert all(isinstance(one, tf.Tensor) for one in found)
    assert [one.shape[1] for one in found] == [len(ids) for ids in pipe.tokenizer(TEXTS)["input_ids"]]
    np.testing.assert_allclose(found[1], pipe("x"), atol=1e-5)


def test_mistakes_of_questions(folder):
    pipe = pipeline("question-answering", folder("mpnet_answers"))
    with pytest.raises(ValueError, match="`question` cannot be empty"):
        pipe(question="", context="my day")
    with pytest.raises(KeyError, match="context is missing"):
        pipe({"question": "what?"})
    with pytest.raises(ValueError, match="don't have the same lengths"):
        pipe(question=["what?"], context=["a", "b"])
    with pytest.raises(ValueError, match="top_k=0"):
        pipe(question="what?", context="my day", top_k=0)
    with pytest.raises(ValueError, match="larger than max_seq_len"):
        pipe(question="what?", context="my day", doc_stride=30, max_seq_len=20)
    with pytest.raises(ValueError, match="doc_stride=18: windows of 20 tokens have room for 14"):
        pipe(question="what?", context="my day " * 40, doc_stride=18, max_seq_len=20)
    with pytest.raises(ValueError, match="the question has 30 tokens, which leaves no room"):
        pipe(question="day " * 30, context="my day")
    assert pipe(question="what day is my good day in the city?", context="my day " * 40)["answer"]
    found = pipe(question="what?", context="the city is good. " * 9, top_k=2)
    assert [set(one) for one in found] == [{"score", "start", "end", "answer"}] * 2
    streamed = pipe({"question": "what?", "context": text} for text in TEXTS)
    assert len(list(streamed)) == len(TEXTS)


def test_mistakes_of_token_labels(folder):
    pipe = pipeline("ner", folder("mpnet_tokens"), aggregation_strategy="simple")
    with pytest.raises(ValueError, match="At least one input is required"):
        pipe([])
    with pytest.raises(ValueError, match="stride=24 must be less than the 24"):
        pipe("my day", stride=24)
    with pytest.raises(ValueError, match="aggregation_strategy='mean'"):
        pipe("my day", aggregation_strategy="mean")
    with pytest.raises(ValueError, match="needs an aggregation_strategy"):
        pipe("my day", aggregation_strategy="none", stride=2)
    moved = pipe(
        "my day", aggregation_strategy="none", ignore_labels=[], offset_mapping=[(0, 0), (3, 6), (0, 2), (0, 0)]
    )
    assert [(one["start"], one["end"]) for one in moved] == [(3, 6), (0, 2)]


@pytest.mark.parametrize(
    ("former", "strategy"),
    [
        ({"grouped_entities": True}, "simple"),
        ({"grouped_entities": True, "ignore_subwords": True}, "first"),
        ({"grouped_entities": False}, "none"),
        ({"ignore_subwords": True}, "none"),
    ],
)
def test_former_names_of_aggregation(folder, former, strategy):
    path, text = folder("mpnet_tokens"), "my unbelievable day"
    expected = pipeline("ner", path, aggregation_strategy=strategy, ignore_labels=[])(text)
    with pytest.warns(UserWarning, match=f"aggregation_strategy='{strategy}' says the same"):
        pipe = pipeline("ner", path, ignore_labels=[], **former)
    assert pipe(text) == expected
    with pytest.warns(UserWarning, match="says the same"):
        assert pipeline("ner", path, ignore_labels=[], aggregation_strategy="max")(text, **former) == expected


def test_zero_shot_needs_labels(folder):
    pipe = pipeline("zero-shot-classification", folder("mpnet_classes"))
    for wrong in ({}, {"candidate_labels": []}, {"candidate_labels": " , "}):
        with pytest.raises(ValueError, match="candidate_labels"):
            pipe("my day", **wrong)
    with pytest.raises(ValueError, match="hypothesis_template='no place'"):
        pipe("my day", ["good"], hypothesis_template="no place")
    with pytest.warns(UserWarning, match="begins with 'entail'"):
        pipeline("zero-shot-classification", folder("mpnet_multi"))


def test_similarity_is_that_of_the_encoder(folder):
    pipe = pipeline("sentence-similarity", folder("mpnet_bare"))
    vectors = pipe.encoder.encode(TEXTS)
    expected = pipe.encoder.similarity(vectors[:1], vectors)[0]
    question = {"source_sentence": TEXTS[0], "sentences": TEXTS}
    for found in (pipe(question), pipe(TEXTS[0], TEXTS), pipe([question, question])[1]):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert pipe(TEXTS[0], TEXTS[1]) == pytest.approx(expected[1], abs=1e-6)
    assert pipe({"source_sentence": "x", "sentences": []}) == []
    with pytest.raises(ValueError, match="source_sentence"):
        pipe({"text": "x"})
    model = tfmodels.TFAutoModel.from_pretrained(folder("mpnet_bare"))
    assert pipeline(model=tfmodels.SentenceEncoder(model, pipe.tokenizer)).task == "sentence-similarity"


# Choosing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("llama_text", "text-generation"),
        ("mpnet_masked_lm", "fill-mask"),
        ("mpnet_classes", "text-classification"),
        ("llama_tokens", "token-classification"),
        ("mpnet_answers", "question-answering"),
        ("mpnet_bare", "feature-extraction"),
    ],
)
def test_the_task_is_taken_from_the_architecture(folder, name, task):
    pipe = pipeline(model=folder(name))
    assert pipe.task == task
    assert pipeline(model=pipe.model, tokenizer=pipe.tokenizer).task == task


def test_a_task_that_a_checkpoint_cannot_do(folder, write):
    message = "holds LlamaForCausalLM, which has no weights for text-classification; it does text-generation, feature"
    with pytest.raises(ValueError, match=message):
        pipeline("text-classification", folder("llama_text"))
    with pytest.raises(ValueError, match="TFLlamaForCausalLM cannot do ner|cannot do token-classification"):
        pipeline("ner", write.model, tokenizer=write.tokenizer)
    with pytest.raises(ValueError, match=r"task='text-clasification' .* did you mean text-classification?"):
        pipeline("text-clasification", folder("mpnet_classes"))
    with pytest.raises(ValueError, match="needs a model"):
        pipeline("ner")
    assert pipeline("feature-extraction", folder("llama_text"))("x")


def test_tokenizers_are_found_or_asked_for(folder, classify, tmp_path):
    assert pipeline("text-classification", classify.model)("x") == classify("x")
    config = tfmodels.MPNetConfig.from_dict(classify.model.config.to_dict())
    model = tfmodels.TFMPNetForSequenceClassification(config)
    with pytest.raises(ValueError, match="give tokenizer="):
        pipeline("text-classification", model)
    model.save_pretrained(tmp_path)
    for given in (str(tmp_path), type(model).from_pretrained(tmp_path)):
        with pytest.raises(FileNotFoundError, match=r"No tokenizer in .*give tokenizer=.*tokenizer\.save_pretrained"):
            pipeline("text-classification", given)
    with pytest.raises(TypeError, match="needs the model's tokenizer"):
        tfmodels.TextClassificationPipeline(model)
    assert tfmodels.NerPipeline is tfmodels.TokenClassificationPipeline


def test_devices_and_frameworks(monkeypatch):
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    for fine in (None, -1, 0, "cpu", "CPU:0"):
        assert devices.check_device(fine) == "cpu"
    assert devices.check_device(None, "auto") == devices.check_device(None, {"": "cpu"}) == "cpu"
    for wrong in (1, "cuda", "cuda:1", "tpu"):
        with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
            devices.check_device(wrong)
    with pytest.raises(ValueError, match="spreads a model"):
        devices.check_device(None, {"a": 0, "b": 1})
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    for fine in (None, 0, "cuda", "cuda:0", "/GPU:0"):
        assert devices.check_device(fine) == "gpu:0"
    with pytest.raises(ValueError, match="the model is on gpu:0"):
        devices.check_device("cpu")
    assert devices.check_framework("tf") == "tf"
    with pytest.raises(ValueError, match="framework='pt'"):
        devices.check_framework("pt")


def test_dtype_and_saving(folder, classify, tmp_path):
    half = pipeline("text-classification", folder("mpnet_classes"), dtype="bfloat16", device=-1, num_workers=2)
    assert half.dtype == "bfloat16"
    assert half("my day")[0]["score"] == pytest.approx(classify("my day")[0]["score"], abs=0.05)
    with pytest.raises(ValueError, match="dtype='float16': the model that was given has bfloat16"):
        pipeline("text-classification", half.model, dtype="float16")
    classify.save_pretrained(tmp_path / "saved")
    again = pipeline(model=tmp_path / "saved")
    assert again("my day") == classify("my day")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["id2label"]["2"] == "entailment"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("mpnet_masked_lm", ["<mask> <mask>", "the <mask> day", "<mask>"]),
        ("mpnet_tokens", TEXTS),
        ("llama_nopad", TEXTS),
    ],
)
def test_programs_of_a_gpu_give_the_same(folder, monkeypatch, name, inputs):
    """XLA's programs over a few sizes, here on the CPU."""
    pipe = pipeline(model=folder(name))
    plain = pipe(inputs)
    monkeypatch.setattr(forward, "has_gpu", lambda: True)
    assert rounded(pipe(inputs)) == rounded(plain)


def rounded(value):
    """Results with scores to four digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def test_heads_of_names():
    assert tasks.head_of_architecture("TFMptForCausalLM") == "ForCausalLM"
    assert tasks.head_of_architecture("XLNetModel") is None
    with pytest.raises(ValueError, match="does not tell a task"):
        tasks.task_of_checkpoint({"architectures": ["XLNetModel"]}, "x")
