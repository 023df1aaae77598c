"""SavedModel: every family and head equals its model, wherever it is loaded."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models
import tensorflow as tf

from tfmodels import AutoTokenizer, SentenceEncoder, TFLlamaForCausalLM
from tfmodels.export import saved_model
from tfmodels.export.saved_model import serving_files
from tfmodels.export.saved_model.runner import signature_defs
from tfmodels.export.verify import verify

ROOT = Path(__file__).parent.parent.parent
PROMPT = np.array([[1, 403, 407, 261, 378]], "int32")  # "Once upon a time"
GENERATE_SAMPLE = {"temperature": 0.5, "top_k": 20, "top_p": 0.75, "seed": 11, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def stories():
    return TFLlamaForCausalLM.from_pretrained("stories260K")


@pytest.fixture(scope="module")
def exported(stories, tmp_path_factory):
    """stories260K, exported once for all tests here."""
    return stories.export(tmp_path_factory.mktemp("models") / "stories", batch_sizes=(1, 3), max_length=128)


@pytest.fixture(scope="module")
def runner(exported):
    return saved_model.open(exported.path)


def signature(report, name):
    return next(found for found in report.signatures if found.name == name)


# Equal to the model --------------------------------------------------------------------------------------------------


def check(name, head, folder):
    model = small_models.make(name, head)
    # Of the loops for other families plain graphs are checked: XLA gets the same programs.
    options = {"batch_sizes": (2,), "jit_compile": name in ("llama", "gpt_neo")} if head == "ForCausalLM" else {}
    report = model.export(folder / "model", verify=True, **options)
    assert report.largest_difference <= 1e-5
    assert report.verification.equal_tokens == report.verification.greedy_tokens
    assert (report.verification.greedy_tokens or 0) >= (40 if head == "ForCausalLM" else 0)
    return model, report


QUICK = [("mpnet", head) for _, head in small_models.EVERY if _ == "mpnet"] + [
    ("gpt_neo", "ForSequenceClassification")
]


@pytest.mark.quick(2)
@pytest.mark.parametrize(("name", "head"), QUICK)
def test_head(tmp_path, name, head):
    _, report = check(name, head, tmp_path)
    expected = {
        "Model": {"last_hidden_state", "pooler_output"},
        "ForQuestionAnswering": {"start_logits", "end_logits"},
    }.get(head, {"logits"})
    found = signature(report, "serving_default")
    assert set(found.outputs) == expected
    rank = 3 if head == "ForMultipleChoice" else 2
    assert found.inputs == dict.fromkeys(("input_ids", "attention_mask"), ("int32", (None,) * rank))
    assert signature(report, "serving_int64").inputs["input_ids"] == ("int64", (None,) * rank)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head"), [pair for pair in small_models.EXPORTED if pair not in QUICK])
def test_every_head(tmp_path, name, head):
    check(name, head, tmp_path)


def test_int64_and_token_types(tmp_path):
    model, report = check("gpt_neo", "ForTokenClassification", tmp_path)
    inputs = small_models.inputs_of("gpt_neo", "ForTokenClassification")
    runner = saved_model.open(report.path)
    np.testing.assert_allclose(runner.run(inputs, "serving_int64")["logits"], model(**inputs).logits, atol=1e-5)
    types = np.array([[0, 1, 1, 0, 2], [1, 1, 0, 0, 0]])
    expected = model(**inputs, token_type_ids=types).logits
    assert np.abs(expected - model(**inputs).logits).max() > 1e-3
    got = runner.run({**inputs, "token_type_ids": types}, "serving_token_types")["logits"]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_switches_of_the_configuration_change_no_signature(tmp_path):
    model = small_models.make("llama", "Model", output_hidden_states=True, output_attentions=True, return_dict=False)
    report = model.export(tmp_path / "model")
    assert {tuple(found.outputs) for found in report.signatures} == {("last_hidden_state",)}


def test_sentence_encoder(tmp_path):
    model = SentenceEncoder(small_models.make("mpnet", "Model"), tail=["normalize"])
    report = model.export(tmp_path / "encoder", verify=True)
    assert report.largest_difference <= 1e-6
    assert signature(report, "serving_default").outputs == {"sentence_embedding": ("float32", (None, 16))}
    model.truncate_dim = 6  # as `encode` does
    report = model.export(tmp_path / "cut", verify=True)
    assert report.largest_difference <= 1e-6
    inputs = small_models.inputs_of("mpnet", "Model")
    got = saved_model.open(report.path).run(inputs)["sentence_embedding"]
    np.testing.assert_allclose(got, model(**inputs).sentence_embedding[:, :6], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "limit"), [("float16", 5e-3), ("bfloat16", 5e-2)])
def test_half_precision(tmp_path, dtype, limit):
    model = small_models.make("mpnet", "ForTokenClassification")
    whole = model.export(tmp_path / "whole")
    half = model.export(tmp_path / "half", dtype=dtype, verify=True)
    assert 0 < half.largest_difference < limit
    weights = {path: (path / "variables" / "variables.data-00000-of-00001") for path in (whole.path, half.path)}
    sizes = {path: file.stat().st_size for path, file in weights.items()}
    assert sizes[half.path] < 0.65 * sizes[whole.path]  # the rest are names, of which a small model has many
    assert model.dtype_policy.name == "float32"


# Causal language models ----------------------------------------------------------------------------------------------


def test_signatures_of_a_causal_model(exported):
    names = [found.name for found in exported.signatures]
    generating = ["decode", "generate", "generate_lengths", "generate_sample", "prefill"]
    assert names == ["serving_default", *generating, "serving_int64", "serving_lengths"]
    decode = signature(exported, "decode")
    assert decode.inputs["past_key_values.4.value"] == ("float32", (None, 4, None, 8))
    assert list(decode.outputs)[:2] == ["logits", "past_key_values.0.key"]
    assert set(decode.outputs) - {"logits"} == set(decode.inputs) - {"input_ids", "attention_mask"}


def test_no_gradient_is_named(exported):
    """TensorFlow warns, when it loads the file, of every function that names a gradient which the file lacks."""
    assert b"_gradient_op_type" not in (exported.path / "saved_model.pb").read_bytes()
    assert tf.saved_model.experimental.read_fingerprint(str(exported.path)).saved_model_checksum


def test_greedy_ids_and_logits(runner, stories):
    report = verify(runner, stories)
    assert report.largest_difference <= 1e-4  # the largest logits are about 20
    assert report.equal_tokens == report.greedy_tokens == 128


def test_prefill_and_decode(runner, stories):
    """Rows padded on the left, decoded token by token through the cache that goes in and out."""
    ids = np.array([[0, 0, 1, 403, 407], [1, 403, 407, 261, 378]])
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    expected = stories.generate(
        ids, attention_mask=mask, max_new_tokens=6, do_sample=False, jit_compile=False
    ).numpy()[:, 5:]
    output = runner.run({"input_ids": ids, "attention_mask": mask}, "prefill")
    for column in range(6):
        token = output.pop("logits").argmax(axis=-1)[:, None]
        assert token[:, 0].tolist() == expected[:, column].tolist()
        mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        output = runner.run({"input_ids": token, "attention_mask": mask, **output}, "decode")
    assert output["past_key_values.0.key"].shape == (2, 4, 11, 8)


def test_decode_takes_several_tokens(runner):
    whole = runner.run({"input_ids": PROMPT, "attention_mask": np.ones_like(PROMPT)}, "prefill")
    first = runner.run({"input_ids": PROMPT[:, :2], "attention_mask": np.ones((1, 2))}, "prefill")
    first.pop("logits")
    rest = runner.run({"input_ids": PROMPT[:, 2:], "attention_mask": np.ones((1, 5)), **first}, "decode")
    for name, values in whole.items():
        np.testing.assert_allclose(rest[name], values, atol=2e-5, err_msg=name)


@pytest.mark.quick(1)
@pytest.mark.parametrize("rows", [1, 7])
def test_generate_batches(runner, stories, rows):
    """Rows of different lengths; 7 rows take three turns of 3."""
    random = np.random.default_rng(rows)
    ids = random.integers(3, 512, (rows, 9)).astype("int32")
    mask = (np.arange(9) >= random.integers(0, 8, (rows, 1))).astype("int32")
    ids = np.where(mask == 1, ids, 0).astype("int32")
    expected = stories.generate(
        ids, attention_mask=mask, max_new_tokens=20, do_sample=False, jit_compile=False, pad_token_id=0
    ).numpy()
    got = runner.run({"input_ids": ids, "attention_mask": mask, "max_new_tokens": 20}, "generate")["sequences"]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
def test_sampling_draws_what_the_model_draws(runner, stories):
    expected = stories.generate(PROMPT, do_sample=True, jit_compile=False, **GENERATE_SAMPLE).numpy()
    inputs = {"input_ids": PROMPT, "attention_mask": np.ones_like(PROMPT)}
    got = runner.run({**inputs, **GENERATE_SAMPLE}, "generate_sample")["sequences"]
    np.testing.assert_array_equal(got, expected)
    other = runner.run({**inputs, **GENERATE_SAMPLE, "seed": 12}, "generate_sample")["sequences"]
    assert other.tolist() != expected.tolist()


@pytest.mark.slow
def test_temperature_zero_is_greedy(runner, stories):
    inputs = {"input_ids": PROMPT, "attention_mask": np.ones_like(PROMPT), "max_new_tokens": 12}
    got = runner.run({**inputs, "temperature": 0.0, "seed": 5}, "generate_sample")["sequences"]
    np.testing.assert_array_equal(got, runner.run(inputs, "generate")["sequences"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"temperature": np.nan}, "temperature must be 0 or more"),
        ({"temperature": np.inf}, "temperature must be 0 or more"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.5}, "top_p must be above 0"),
        ({"top_p": np.nan}, "top_p must be above 0"),
        ({"top_k": -1}, "top_k must be 0"),
    ],
)
def test_sampling_refuses(runner, setting, message):
    inputs = {"input_ids": PROMPT, "attention_mask": np.ones_like(PROMPT), "max_new_tokens": 4}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        runner.run({**inputs, **setting}, "generate_sample")


@pytest.mark.slow
def test_scores_that_are_no_numbers_fail(tmp_path):
    model = small_models.make("llama", "ForCausalLM")
    model.lm_head.kernel.assign(model.lm_head.kernel * np.nan)
    artifact = saved_model.open(model.export(tmp_path / "model", batch_sizes=(1,), max_length=16).path)
    inputs = {"input_ids": PROMPT % 61, "attention_mask": np.ones_like(PROMPT), "max_new_tokens": 3}
    with pytest.raises(tf.errors.InvalidArgumentError, match="the scores are NaN"):
        artifact.run(inputs, "generate")


@pytest.mark.slow
def test_rows_of_later_turns_draw_for_themselves(runner):
    ids = np.repeat(PROMPT, 6, axis=0)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "max_new_tokens": 16, "temperature": 1.5}
    drawn = runner.run(inputs, "generate_sample")["sequences"]
    assert len({tuple(row) for row in drawn.tolist()}) == 6


def test_generate_stops_at_the_end_token(runner, stories):
    free = stories.generate(PROMPT, max_new_tokens=12, do_sample=False, jit_compile=False).numpy()[0]
    end = int(free[9])
    inputs = {"input_ids": PROMPT, "attention_mask": np.ones_like(PROMPT), "max_new_tokens": 12}
    got = runner.run({**inputs, "eos_token_id": np.array([end])}, "generate")["sequences"][0]
    assert got.tolist() == free[: free.tolist().index(end, 5) + 1].tolist()


def test_generate_fills_the_room_there_is(runner, stories):
    """128 positions in all, whatever max_new_tokens says; a prompt without room for a token is refused."""
    ids = np.random.default_rng(0).integers(3, 512, (1, 120)).astype("int32")
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "eos_token_id": np.zeros(0, "int32")}
    assert runner.run({**inputs, "max_new_tokens": 99}, "generate")["sequences"].shape == (1, 128)
    ids = np.ones((1, 128), "int32")
    with pytest.raises(tf.errors.InvalidArgumentError, match="prompt must have 1 to 127 tokens"):
        runner.run({**inputs, "input_ids": ids, "attention_mask": ids}, "generate")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be positive"),
        ({"input_ids": np.array([[1, 512]])}, "beyond the vocabulary"),
        ({"input_ids": np.array([[1, -1]])}, "must not be negative"),
        ({"input_ids": np.zeros((1, 0)), "attention_mask": np.zeros((1, 0))}, "the prompt is empty"),
    ],
)
def test_generate_refuses(runner, change, message):
    inputs = {"input_ids": np.ones((1, 2)), "attention_mask": np.ones((1, 2)), "max_new_tokens": 2, **change}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        runner.run(inputs, "generate")


@pytest.mark.slow
def test_plain_graph_instead_of_xla(tmp_path, stories, exported):
    report = stories.export(tmp_path / "stories", jit_compile=False, batch_sizes=(1,))
    compiled = b"_XlaMustCompile\x12\x02(\x01"  # the attribute, set to True
    assert compiled not in (report.path / "saved_model.pb").read_bytes()
    assert compiled in (exported.path / "saved_model.pb").read_bytes()
    assert verify(report.path, stories).equal_tokens == 128


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("ForCausalLM", {"max_length": 4096}, "max_length=4096; this model's context allows 2 to 2048"),
        ("ForCausalLM", {"batch_sizes": ()}, r"batch_sizes=\(\); positive"),
        ("Model", {"max_length": 16}, "max_length=16: a SavedModel's length is free"),
        ("Model", {"jit_compile": False}, "jit_compile=False is of use for causal"),
        ("Model", {"dtype": "int8"}, "dtype='int8'; a SavedModel has float32"),
        ("Model", {"signatures": "images"}, "signatures='images'"),
        ("Model", {"tokenizer": object()}, "a tokenizer, or where to find one, is expected"),
    ],
)
def test_refused_options(tmp_path, head, options, message):
    model = small_models.make("llama", head)
    with pytest.raises(ValueError, match=message):
        model.export(tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_classifier_without_padding_token(tmp_path):
    model = small_models.make("llama", "ForSequenceClassification", pad_token_id=None)
    with pytest.raises(ValueError, match=r"config\.pad_token_id, which is None"):
        model.export(tmp_path / "model")


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no saved_model\.pb"):
        saved_model.open(tmp_path)


# Independence --------------------------------------------------------------------------------------------------------

# Loads in a process where neither tfmodels nor Keras can be imported.
ALONE = """
import sys, json

sys.modules.update(dict.fromkeys(("tfmodels", "keras", "tf_keras")))  # importing them raises
import tensorflow as tf

module = tf.saved_model.load(sys.argv[1])
inputs = {name: tf.constant(value) for name, value in json.loads(sys.argv[2]).items()}
output = module.signatures[sys.argv[3]](**inputs)
print(json.dumps({name: value.numpy().tolist() for name, value in output.items()}))
"""


@pytest.mark.slow
def test_loads_without_tfmodels_and_keras(exported, stories):
    inputs = {"input_ids": PROMPT.tolist(), "attention_mask": [[1] * 5], "max_new_tokens": 12, "eos_token_id": [2]}
    command = [sys.executable, "-c", ALONE, str(exported.path), json.dumps(inputs), "generate"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=exported.path)
    assert done.returncode == 0, done.stderr
    expected = stories.generate(PROMPT, max_new_tokens=12, do_sample=False, jit_compile=False).numpy().tolist()
    assert json.loads(done.stdout.splitlines()[-1]) == {"sequences": expected}


# The loader that TensorFlow Serving has, through the C API of TensorFlow's library, in a process that has nothing else
# of TensorFlow.
C_API = """
import ctypes, sys
import numpy as np

library, folder, (batch, length) = sys.argv[1], sys.argv[2], (2, 5)
ctypes.CDLL(library.replace("libtensorflow_cc", "libtensorflow_framework"), mode=ctypes.RTLD_GLOBAL)
tf = ctypes.CDLL(library)
pointer = ctypes.c_void_p
for name in ("NewStatus", "NewGraph", "NewSessionOptions", "LoadSessionFromSavedModel", "GraphOperationByName",
             "AllocateTensor", "TensorData"):
    getattr(tf, "TF_" + name).restype = pointer
tf.TF_Message.restype = ctypes.c_char_p
tf.TF_TensorByteSize.restype = ctypes.c_size_t

class Output(ctypes.Structure):
    _fields_ = [("operation", pointer), ("index", ctypes.c_int)]

def check():
    assert tf.TF_GetCode(pointer(status)) == 0, tf.TF_Message(pointer(status))

status, graph, options = tf.TF_NewStatus(), tf.TF_NewGraph(), tf.TF_NewSessionOptions()
tags = (ctypes.c_char_p * 1)(b"serve")
session = tf.TF_LoadSessionFromSavedModel(
    pointer(options), None, folder.encode(), tags, 1, pointer(graph), None, pointer(status))
check()

def at(name):
    operation, _, index = name.partition(":")
    found = tf.TF_GraphOperationByName(pointer(graph), operation.encode())
    assert found, name
    return Output(found, int(index or 0))

def tensor(array):
    dims = (ctypes.c_int64 * array.ndim)(*array.shape)
    made = tf.TF_AllocateTensor(3, dims, array.ndim, ctypes.c_size_t(array.nbytes))  # 3: TF_INT32
    ctypes.memmove(tf.TF_TensorData(pointer(made)), array.ctypes.data, array.nbytes)
    return made

feeds = dict(pair.split("=") for pair in sys.argv[4:])
arrays = [np.array(eval(text), "int32") for text in feeds.values()]
inputs, values = (Output * len(feeds))(*map(at, feeds)), (pointer * len(feeds))(*map(tensor, arrays))
outputs, results = (Output * 1)(at(sys.argv[3])), (pointer * 1)()
tf.TF_SessionRun(
    pointer(session), None, inputs, values, len(feeds), outputs, results, 1, None, 0, None, pointer(status))
check()
size, rank = tf.TF_TensorByteSize(pointer(results[0])), tf.TF_NumDims(pointer(results[0]))
tf.TF_Dim.restype = ctypes.c_int64
shape = [tf.TF_Dim(pointer(results[0]), axis) for axis in range(rank)]
dtype = {1: "float32", 3: "int32"}[tf.TF_TensorType(pointer(results[0]))]
data = np.frombuffer(ctypes.string_at(tf.TF_TensorData(pointer(results[0])), size), dtype).reshape(shape)
assert "tensorflow" not in sys.modules
np.save(sys.stdout.buffer, data)
"""


def through_c_api(folder, name, inputs, output):
    """Run a signature in a process of its own; tensors are found as a server finds them, in the SignatureDef."""
    import io

    import tensorflow

    library = Path(tensorflow.__file__).parent / "libtensorflow_cc.so.2"
    if not library.is_file():
        pytest.skip("this TensorFlow has no libtensorflow_cc.so.2")
    assert hasattr(ctypes.CDLL(str(library)), "TF_LoadSessionFromSavedModel")
    definition = signature_defs(folder)[name]
    feeds = [f"{definition.inputs[key].name}={np.asarray(value).tolist()}" for key, value in inputs.items()]
    command = [sys.executable, "-c", C_API, str(library), str(folder), definition.outputs[output].name, *feeds]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return np.load(io.BytesIO(done.stdout))


@pytest.mark.slow
def test_c_api_runs_the_forward_pass(tmp_path):
    model, report = check("mpnet", "ForSequenceClassification", tmp_path)
    inputs = small_models.inputs_of("mpnet", "ForSequenceClassification")
    got = through_c_api(report.path, "serving_default", inputs, "logits")
    np.testing.assert_allclose(got, model(**inputs).logits, atol=1e-5)


@pytest.mark.slow
def test_c_api_generates(exported, stories):
    """The loop, compiled by XLA inside a session; inputs that are left out take their defaults."""
    inputs = {"input_ids": PROMPT, "attention_mask": np.ones_like(PROMPT), "max_new_tokens": 16}
    got = through_c_api(exported.path, "generate", inputs, "sequences")
    np.testing.assert_array_equal(
        got, stories.generate(PROMPT, max_new_tokens=16, do_sample=False, jit_compile=False).numpy()
    )


# The tokenizer beside the model ------------------------------------------------------------------------------------


def test_tokenizer_lies_beside_the_model(tmp_path):
    """The README's code, run in the export's folder, gives the tokenizer's ids."""
    tokenizer = AutoTokenizer.from_pretrained("stories260K")
    model = small_models.make("llama", "Model", vocab_size=512)
    report = model.export(tmp_path / "model", tokenizer=tokenizer)
    readme = (report.path / "README.md").read_text()
    block = readme.split("Ids come from the tokenizer")[1].split("In a batch")[0].split("\n", 1)[1]
    code = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    names = {}
    exec(code.replace('Tokenizer.from_file("', f'Tokenizer.from_file("{report.path}/'), names)
    assert names["ids"] == tokenizer("Once upon a time")["input_ids"]
    assert "Once upon a time" in names["text"]
    bare = model.export(tmp_path / "bare")
    assert "export with `tokenizer=` to add it" in (bare.path / "README.md").read_text()


# The requests that are documented ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_warmup_requests_are_tensorflow_servings(exported, runner):
    log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    seen = []
    for record in tf.data.TFRecordDataset(str(exported.path / serving_files.WARMUP_FILE)):
        log = log_pb2.PredictionLog()
        log.ParseFromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "stories"
        name = request.model_spec.signature_name
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        declared = signature(exported, name).inputs
        assert {key: value.dtype.name for key, value in inputs.items()} == {
            k: kind for k, (kind, _) in declared.items()
        }
        if len(inputs["input_ids"]) == 1:
            assert runner.run(inputs, name)
        seen.append((name, len(inputs["input_ids"])))
    assert seen[:4] == [("generate", 1), ("generate", 3), ("generate_sample", 1), ("generate_sample", 3)]
    others = ("serving_default", "serving_int64", "serving_lengths", "generate_lengths")
    assert seen[4:] == [(name, 1) for name in others]


@pytest.mark.slow
def test_predict_request_maps_onto_the_signature(exported, runner, stories):
    """The gRPC request of the README: its code is run, up to the server."""
    pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    text = (exported.path / "README.md").read_text()
    block = text.split("## gRPC")[1].split("stub =")[0]
    code = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    names = {}
    exec(code, names)
    request = names["request"]
    again = type(request)()
    again.ParseFromString(request.SerializeToString())
    assert again.model_spec.name == "stories" and again.model_spec.signature_name == "generate"
    inputs = {key: tf.make_ndarray(value) for key, value in again.inputs.items()}
    got = runner.run(inputs, again.model_spec.signature_name)["sequences"]
    ids = inputs["input_ids"]
    expected = stories.generate(ids, max_new_tokens=int(inputs["max_new_tokens"]), do_sample=False, jit_compile=False)
    np.testing.assert_array_equal(got, expected.numpy())


@pytest.mark.slow
def test_rest_requests_of_the_readme(exported, runner):
    bodies = re.findall(r"stories:predict -d '(.*)'", (exported.path / "README.md").read_text())
    assert [json.loads(body)["signature_name"] for body in bodies] == [
        "generate",
        "generate_sample",
        "serving_default",
        "serving_int64",
        "serving_lengths",
        "generate_lengths",
    ]
    for body in map(json.loads, bodies):
        assert runner.run({k: np.asarray(v) for k, v in body["inputs"].items()}, body["signature_name"])
