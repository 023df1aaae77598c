"""The calling convention, spelled in every way it has to work."""

import copy
import itertools
import random
import warnings

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

import tfmodels
from tfmodels import (
    LlamaConfig,
    MPNetConfig,
    TFLlamaForCausalLM,
    TFLlamaModel,
    TFMPNetForSequenceClassification,
    TFMPNetModel,
)
from tfmodels.families.llama import LlamaBackbone

CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    pad_token_id=0,
)
IDS = np.array([[5, 9, 2, 44], [7, 1, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture(scope="module", params=[TFLlamaModel, TFLlamaForCausalLM, LlamaBackbone], ids=lambda c: c.__name__)
def model(request):
    keras.utils.set_random_seed(0)
    layer = request.param(CONFIG)
    if not layer.built:
        layer.build()
    return layer


def first(output):
    return np.asarray(output[0])


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "convert, dtype", [(np.asarray, "int64"), (tf.constant, "int32")], ids=["numpy-int64", "tensor-int32"]
)
def test_all_spellings_agree(model, convert, dtype):
    ids, mask = convert(IDS.astype(dtype)), convert(MASK.astype(dtype))
    want = first(model(input_ids=ids, attention_mask=mask))
    for output in (
        model({"input_ids": ids, "attention_mask": mask}),
        model([ids, mask]),
        model((ids, mask)),
        model(ids, mask),
        model([ids, mask, None, None, None, None, None, False]),
        model(ids, mask, None, None, None, None, None, False, True, training=False),
        model(ids, attention_mask=mask),
        model({"input_ids": ids}, attention_mask=mask),
        model({"input_ids": ids, "attention_mask": mask, "use_cache": False, "return_dict": None}),
        tf.function(lambda i, m: model(input_ids=i, attention_mask=m))(ids, mask),
        tf.function(lambda i, m: model([i, m]), jit_compile=True)(ids, mask),
    ):
        np.testing.assert_allclose(first(output), want, atol=2e-6)
    assert not np.allclose(first(model(ids)), want)  # the mask matters to the row it pads
    typed = {"input_ids": IDS.tolist(), "attention_mask": MASK.tolist()}
    np.testing.assert_allclose(first(model(IDS.tolist())), first(model(ids)), atol=1e-6)
    for output in (model(**typed), model(typed), model(ids, attention_mask=MASK.tolist())):
        np.testing.assert_allclose(first(output), want, atol=2e-6)


def test_constants_from_outside_of_a_graph(model):
    ids, mask = tf.constant(IDS), tf.constant(MASK)
    compiled = tf.function(lambda: model(input_ids=ids, attention_mask=mask), jit_compile=True)
    np.testing.assert_allclose(first(compiled()), first(model(input_ids=ids, attention_mask=mask)), atol=2e-6)
    beyond = tf.constant([[5, 61]])
    with pytest.raises(ValueError, match="input_ids run from 5 to 61"):
        tf.function(lambda: model(input_ids=beyond))()


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_symbolic(model, dtype):
    ids = keras.Input((None,), dtype=dtype, name="input_ids")
    mask = keras.Input((None,), dtype=dtype, name="attention_mask")
    output = model(input_ids=ids, attention_mask=mask, use_cache=False)
    composed = keras.Model([ids, mask], output)
    got = composed([IDS, MASK])
    assert type(got) is type(model(IDS))
    np.testing.assert_allclose(first(got), first(model([IDS, MASK])), atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model(input_idz=IDS),
        lambda model: model({"input_idz": IDS}),
        lambda model: model({"input_ids": IDS, "use_cashe": True}),
    ],
)
def test_unknown_names_list_the_accepted(model, call):
    with pytest.raises(
        TypeError, match=r"got an unknown argument '(input_idz|use_cashe)' \(did you mean .*accepts input_ids"
    ):
        call(model)


def test_doubly_given_and_too_many(model):
    with pytest.raises(TypeError):
        model(IDS, input_ids=IDS)
    with pytest.raises(TypeError, match="attention_mask"):
        model([IDS, MASK], attention_mask=MASK)
    with pytest.raises(TypeError, match="takes at most"):
        model([IDS] * 30)


def test_wrong_shapes_are_named(model):
    with pytest.raises(ValueError, match=r"input_ids has shape \(4,\); \(batch, length\) was expected"):
        model(input_ids=IDS[0])
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 3\)"):
        model(input_ids=IDS, attention_mask=MASK[:, :3])
    with pytest.raises(ValueError, match=r"head_mask has shape \(3,\)"):
        model(input_ids=IDS, head_mask=np.ones(3))
    past = model(input_ids=IDS, use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"past_key_values\[0\]\[0\] has shape \(2, 2, 4, 4\); \(1, 2, 4, 4\) was"):
        model(input_ids=IDS[:1], past_key_values=past)
    for wrong in ([past[0], [x[:, :, :3] for x in past[1]]], [[x[:, :1] for x in pair] for pair in past]):
        with pytest.raises(
            ValueError, match=r"past_key_values\[[01]\]\[0\] has shape .*\(2, 2, [34], 4\) was expected"
        ):
            model(input_ids=IDS, past_key_values=tuple(map(tuple, wrong)))


@pytest.mark.parametrize("name", [*small.SMALL, "gpt2", "bert", "modernbert"])
def test_what_comes_beside_the_tokens_fits_them(name):
    model = small.make(name, small.FAMILIES[name].heads[0])
    width, ids, token = model.config.hidden_size, np.full((3, 5), 4), np.zeros((3, 5, 16), "float32")
    assert width == 16
    for given, message in (
        ({"inputs_embeds": token[..., :1]}, r"inputs_embeds has shape \(3, 5, 1\); \(batch, length, 16\)"),
        ({"input_ids": 3}, r"input_ids has shape \(\)"),
        ({"input_ids": ids, "position_ids": np.zeros((3, 1), int)}, r"position_ids has shape \(3, 1\); \(3 or 1, 5\)"),
        ({"input_ids": ids, "position_ids": np.zeros((2, 5), int)}, r"position_ids has shape \(2, 5\)"),
        ({"input_ids": ids, "position_ids": np.zeros((3, 1, 5), int)}, r"position_ids has shape \(3, 1, 5\)"),
        (
            {"input_ids": ids, "attention_mask": np.ones((2, 5), int)},
            r"attention_mask has shape \(2, 5\); its first axis is the batch, of 3 or 1",
        ),
        ({"input_ids": ids, "attention_mask": np.ones((3, 3, 5, 5), int)}, r"attention_mask has .* 1 or 4 heads"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**given)
        if len(given) == 2:
            with pytest.raises(ValueError, match=message):
                tf.function(lambda **given: model(**given))(**given)
    with pytest.raises(TypeError, match="inputs_embeds holds int64 numbers"):
        model(inputs_embeds=token.astype("int64"))
    if name in ("gpt_neo", "gpt2", "bert"):
        with pytest.raises(ValueError, match=r"token_type_ids has shape \(3, 4\); \(3 or 1, 5\)"):
            model(ids, token_type_ids=np.zeros((3, 4), int))
        with pytest.raises(ValueError, match="token_type_ids run from 61 to 61"):
            model(ids, token_type_ids=np.full((3, 5), 61))
    one = model(ids[:1], position_ids=np.arange(5)[None], attention_mask=np.ones((1, 5), int))[0]
    broadcast = model(ids, position_ids=np.arange(5), attention_mask=np.ones((1, 5), int))[0]
    np.testing.assert_allclose(np.asarray(broadcast), np.repeat(one, 3, axis=0), atol=1e-5)


@pytest.mark.parametrize("token", [-1, 61])
def test_ids_outside_the_vocabulary_are_refused(model, token):
    with pytest.raises(ValueError, match=f"input_ids run from .*{token}.*; the vocabulary has ids 0 to 60"):
        model(input_ids=np.array([[5, token]]))


def test_tuples_and_flags(model):
    output = model(IDS, output_hidden_states=True, output_attentions=True, return_dict=False)
    assert type(output) is tuple and len(output) == 4
    _, past, states, weights = output
    assert len(past) == 2 and len(states) == 3 and weights[0].shape == (2, 4, 4, 4)
    graph = tf.function(lambda i: model(i, output_hidden_states=True, use_cache=False))(IDS)
    assert list(graph)[1:] == ["hidden_states"]
    assert "past_key_values" not in model(IDS, training=True)


@pytest.mark.parametrize(
    ("head", "labels", "names"),
    [
        ("ForCausalLM", {"labels": IDS}, ["loss", "logits"]),
        ("ForSequenceClassification", {"labels": [0, 1]}, ["loss", "logits"]),
        ("ForTokenClassification", {"labels": np.zeros_like(IDS)}, ["loss", "logits"]),
        ("ForQuestionAnswering", {"start_positions": [0, 1], "end_positions": [1, 2]}, ["loss", "start_logits"]),
    ],
)
def test_the_loss_comes_first(head, labels, names):
    """The order of transformers: `loss, logits = model(ids, labels=labels, return_dict=False)[:2]`."""
    model = getattr(tfmodels, f"TFLlama{head}")(CONFIG)
    labels = {name: np.asarray(value) for name, value in labels.items()}
    output = model(IDS, **labels)
    assert list(output)[:2] == names
    assert output[0] is output.loss and output.to_tuple()[0] is output.loss
    assert model(IDS, **labels, return_dict=False)[0].shape == ()
    graph = tf.function(lambda ids: model(ids, **labels, return_dict=False))(IDS)
    assert graph[0].shape == () and graph[1].shape[0] == 2


# The matrix: how arguments are passed, as what, in which mode, and which of them. Over any eight classes in a row
# every pair of choices occurs: each takes an eighth of the combinations, another one than its neighbours. Those of the
# first classes run by default.
AFTER_PADDING = ("mpnet", "roberta")  # positions begin after the padding id, which is 1
SPELLINGS = ("keywords", "dict", "list", "single")
VALUES = ("numpy", "tensor", "symbolic", "ragged")
MODES = ("eager", "graph", "xla")
INTEGERS = ("int32", "int64")
GIVEN = (
    ("input_ids",),
    ("input_ids", "attention_mask"),
    ("input_ids", "attention_mask", "position_ids"),
    ("input_ids", "attention_mask", "labels"),
    ("inputs_embeds", "attention_mask"),
    ("inputs_embeds", "attention_mask", "position_ids", "labels"),
)


def every_pair():
    """Combinations of choices, few, that hold every possible pair of choices at least once."""
    axes = (SPELLINGS, VALUES, MODES, INTEGERS, GIVEN)
    # Only ids can be passed as a single tensor.
    possible = [c for c in itertools.product(*axes) if c[0] != "single" or c[4] == ("input_ids",)]
    random.Random(0).shuffle(possible)
    pairs_of = {c: set(itertools.combinations(enumerate(c), 2)) for c in possible}
    left, chosen = set().union(*pairs_of.values()), []
    while left:
        chosen.append(max(possible, key=lambda c: len(pairs_of[c] & left)))
        left -= pairs_of[chosen[-1]]
    return chosen


def matrix():
    combinations = every_pair()
    for number, (name, head) in enumerate(small.EVERY):
        for index, combination in enumerate(combinations):
            if (index + number) % 8:
                continue
            label = "-".join([name, head, *combination[:4], "+".join(combination[4])])
            yield pytest.param(name, head, *combination, id=label)
    # Heads are shared code: of the families of shared layers, one head each and the heads that the others lack.
    heads = {head for _, head in small.EVERY}
    few = [case for case in small.heads_of(small.MORE) if case in small.ONE_HEAD or case[1] not in heads]
    for number, (name, head) in enumerate(few):
        combination = combinations[number % len(combinations)]
        label = "-".join([name, head, *combination[:4], "+".join(combination[4])])
        yield pytest.param(name, head, *combination, marks=pytest.mark.slow, id=label)


@pytest.fixture(scope="module")
def every_model():
    models = {}

    def get(name, head):
        if (name, head) not in models:
            models.clear()
            models[name, head] = small.make(name, head)
        return models[name, head]

    return get


def values_for(model, name, head, given, integers):
    inputs = small.inputs_of(name, head)
    ids = inputs["input_ids"]
    everything = {
        **inputs,
        "position_ids": np.broadcast_to(np.arange(ids.shape[-1]) + (2 if name in AFTER_PADDING else 0), ids.shape),
        "inputs_embeds": np.asarray(model.get_input_embeddings()(ids)),
    }
    wanted = {k: everything[k] for k in given if k != "labels"}
    if "labels" in given:
        wanted |= small.labels_of(name, head)
    return {k: v if v.dtype == "float32" else v.astype(integers) for k, v in wanted.items()}


def spelled(model, spelling, values):
    if spelling == "keywords":
        return model(**values)
    if spelling == "dict":
        return model(values)
    if spelling == "single":
        return model(values["input_ids"])
    last = max(model.input_names.index(name) for name in values)
    return model([values.get(name) for name in model.input_names[: last + 1]])


def as_ragged(ids, inputs):
    """The rows of ids without their padding."""
    lengths = inputs["attention_mask"].sum(-1)
    return tf.RaggedTensor.from_tensor(ids.reshape(-1, ids.shape[-1]), lengths=lengths.ravel())


@pytest.mark.quick(20)
@pytest.mark.parametrize("name, head, spelling, values, mode, integers, given", list(matrix()))
def test_matrix(every_model, name, head, spelling, values, mode, integers, given):
    model = every_model(name, head)
    if "labels" in given and head == "Model":
        given = tuple(part for part in given if part != "labels")
    arrays = values_for(model, name, head, given, integers)
    tensors = {k: tf.constant(v) for k, v in arrays.items()}
    want = model(**tensors)

    def call(inputs):
        return spelled(model, spelling, inputs)

    if values == "symbolic":
        # Keras wants all symbolic calls of one instance to have the same outputs.
        model = copy.deepcopy(model)
        symbols = {k: keras.Input((None,) * (v.ndim - 1), dtype=v.dtype.name, name=k) for k, v in arrays.items()}
        if "inputs_embeds" in symbols:
            shape = (None,) * (arrays["inputs_embeds"].ndim - 2) + arrays["inputs_embeds"].shape[-1:]
            symbols["inputs_embeds"] = keras.Input(shape, name="inputs_embeds")
        call = keras.Model(symbols, spelled(model, spelling, symbols))
    ragged = values == "ragged" and "input_ids" in arrays
    if ragged:
        rows = as_ragged(arrays["input_ids"], small.inputs_of(name, head))
        pad = 1 if name in AFTER_PADDING else 0
        shape = (rows.shape[0], arrays["input_ids"].shape[-1])

        def pad_rows(rows):
            # XLA wants to know the length; a graph finds it out.
            padded = rows.to_tensor(pad, shape=shape if mode == "xla" else None)
            return tf.reshape(padded, (*arrays["input_ids"].shape[:-1], tf.shape(padded)[-1]))

    def run(inputs, rows=None):
        return call({**inputs, "input_ids": pad_rows(rows)} if ragged else inputs)

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla")
    got = run(arrays if values == "numpy" else tensors, *((rows,) if ragged else ()))
    assert type(got) is type(want) and list(got) == list(want)
    for one, other in zip(keras.tree.flatten(got), keras.tree.flatten(want), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-6)
    if "labels" in given and head != "Model":
        assert np.isfinite(got.loss) and got.loss.shape == ()


@pytest.mark.parametrize("name", small.SMALL)
def test_what_the_matrix_gives_matters(name):
    """Otherwise agreement would show nothing: each argument of the matrix changes what comes out."""
    model, inputs = small.make(name, "Model"), small.inputs_of(name, "Model")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    plain = first(model(ids))
    for changes in ({"position_ids": np.full_like(ids, 2)}, {"attention_mask": mask[:, ::-1]}, {"input_ids": ids + 1}):
        assert np.abs(first(model(**{"input_ids": ids, **changes})) - plain).max() > 1e-5


@pytest.mark.parametrize(
    "name", [n if n in ("llama", "mpnet") else pytest.param(n, marks=pytest.mark.slow) for n in small.SMALL]
)
def test_a_backbone_is_a_layer(name):
    class Doubled(keras.layers.Layer):
        """A layer that holds a backbone, as a user would write it."""

        def __init__(self, backbone, **kwargs):
            super().__init__(**kwargs)
            self.backbone = backbone

        def call(self, ids, mask=None, training=None):
            return 2.0 * self.backbone(ids, training=training).last_hidden_state

    backbone = small.make(name, "Model").backbone
    ids = small.inputs_of(name, "Model")["input_ids"]
    want = np.asarray(backbone(ids).last_hidden_state)
    sequential = keras.Sequential([keras.Input((None,), dtype="int64"), Doubled(backbone), keras.layers.Dense(2)])
    kernel, bias = sequential.layers[-1].get_weights()
    np.testing.assert_allclose(sequential(ids), 2.0 * want @ kernel + bias, atol=1e-5)
    assert len(sequential.trainable_weights) == len(backbone.trainable_weights) + 2
    sequential.compile("sgd", "mse", jit_compile=False)
    before = backbone.get_weights()
    sequential.fit(ids, np.ones((2, 5, 2)), verbose=0)
    changed = [not np.array_equal(old, new) for old, new in zip(before, backbone.get_weights(), strict=True)]
    assert sum(changed) >= 0.8 * len(changed)


ROTARY = ("mistral", "qwen2", "qwen3", "smollm3", "gemma3_text")


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", [*small.SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in ROTARY)])
def test_masks_of_data_pipelines_and_tensors_that_are_not_dense(name):
    model, inputs = small.make(name, "ForSequenceClassification"), small.inputs_of(name, "ForSequenceClassification")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    want = np.asarray(model(**inputs).logits)
    for dtype in ("float32", "int64", "bool", "uint8"):
        np.testing.assert_allclose(model(ids, mask.astype(dtype)).logits, want, atol=1e-6)
    spec = tf.TensorSpec((None, None), "int64")
    call = tf.function(lambda ids, mask: model(ids, mask).logits, input_signature=[spec, spec], jit_compile=True)
    for rows in (2, 1):  # sizes are not known while it is traced
        np.testing.assert_allclose(call(ids[:rows], mask[:rows]), want[:rows], atol=1e-6)
    ragged, sparse = tf.RaggedTensor.from_tensor(ids), tf.sparse.from_dense(ids)
    for spelled in (lambda x: model(x), lambda x: model(input_ids=x), lambda x: model([x, mask])):
        with pytest.raises(TypeError, match=r"got a ragged tensor as 'input_ids'; .*to_tensor\(pad_id\)"):
            spelled(ragged)
        with pytest.raises(TypeError, match=r"got a sparse tensor as 'input_ids'; give tf.sparse.to_dense"):
            spelled(sparse)
    with pytest.raises(TypeError, match="got a ragged tensor as 'attention_mask'"):
        model({"input_ids": ids, "attention_mask": tf.RaggedTensor.from_tensor(mask)})


MPNET = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TYPES = np.array([[0, 0, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("convert", [np.asarray, tf.constant, np.ndarray.tolist])
def test_token_types_in_a_list_are_not_read_as_positions(convert):
    model = TFMPNetModel(MPNetConfig(**MPNET, intermediate_size=24))
    want = first(model(IDS, MASK))
    with pytest.warns(UserWarning, match="third entry holds 0 and 1 only, so it is taken for token_type_ids"):
        got = model([IDS, MASK, convert(TYPES)])
    np.testing.assert_allclose(first(got), want, atol=1e-6)
    # Positions stay positions.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = model([IDS, MASK, convert(TYPES + 5)])
    assert np.abs(first(moved) - want).max() > 1e-3
    # In a graph there are no values to look at.
    with pytest.warns(UserWarning, match="reads the third entry of a list of inputs as position_ids"):
        tf.function(lambda *inputs: model(list(inputs)))(tf.constant(IDS), tf.constant(MASK), tf.constant(TYPES + 5))


@pytest.mark.parametrize("method", ["predict", "evaluate"])
def test_token_types_in_a_list_of_data(method):
    keras.utils.set_random_seed(0)  # some weights give a loss that hardly changes
    model = TFMPNetForSequenceClassification(MPNetConfig(**MPNET, intermediate_size=24))
    model.compile("sgd", run_eagerly=True)
    call = {"predict": lambda x: first(model.predict(x, verbose=0)), "evaluate": None}[method]
    call = call or (lambda x: model.evaluate(x, np.array([0, 1]), verbose=0))
    want = call([IDS, MASK])
    with pytest.warns(UserWarning, match="third entry holds 0 and 1 only, so it is taken for token_type_ids"):
        got = call([IDS, MASK, TYPES])
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.abs(call([IDS, MASK, TYPES + 5]) - want).max() > 1e-4  # positions stay positions


def test_token_types_by_name_are_dropped_with_one_warning():
    model = TFMPNetForSequenceClassification(MPNetConfig(**MPNET, intermediate_size=24))
    want = first(model(input_ids=IDS, attention_mask=MASK))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for output in (
            model(input_ids=IDS, attention_mask=MASK, token_type_ids=TYPES),
            model({"input_ids": IDS, "attention_mask": MASK, "token_type_ids": tf.constant(TYPES)}),
        ):
            np.testing.assert_allclose(first(output), want, atol=1e-6)
    told = [str(one.message) for one in caught if "token_type_ids" in str(one.message)]
    assert told == ["TFMPNetForSequenceClassification has no use for token_type_ids, which change nothing."]
    fresh = TFMPNetForSequenceClassification(MPNetConfig(**MPNET, intermediate_size=24))
    fresh.compile("sgd")
    batch = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES, "labels": np.array([0, 1])}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fresh.fit(tf.data.Dataset.from_tensors(batch).repeat(3), epochs=2, verbose=0)
    assert len([one for one in caught if "token_type_ids" in str(one.message)]) == 1


@pytest.mark.parametrize("given", ["Once upon a time", ["Once", "upon"], {"input_ids": ["Once"]}, np.array(["Once"])])
def test_text_is_told_to_be_tokenized(given):
    with pytest.raises(TypeError, match=r"got text as 'input_ids'; make numbers of it first, tokenizer\(texts"):
        small.make("llama", "Model")(given)


@pytest.mark.parametrize("kind", ["float32", "float16", "bool"])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_ids_are_integers(name, kind):
    model = small.make(name, "Model")
    ids = np.array([[5, 9, 2], [7, 1, 3]])
    wrong = ids.astype(kind)
    message = f"{type(model).__name__} got {kind} numbers as 'input_ids'; integers were expected"
    calls = [
        lambda: model(wrong),
        lambda: model(tf.constant(wrong)),
        lambda: model(wrong.tolist()),
        lambda: model([wrong, np.ones_like(ids)]),
        lambda: model({"input_ids": wrong}),
        lambda: model.predict(wrong, verbose=0),
        lambda: model.predict(tf.data.Dataset.from_tensor_slices(wrong).batch(2), verbose=0),
        lambda: tf.function(lambda x: model(x)[0])(tf.constant(wrong)),
    ]
    for call in calls[: 2 if kind == "float16" else None]:  # a list has no half precision
        with pytest.raises(TypeError, match=message if call is not calls[2] else "numbers as 'input_ids'"):
            call()
    with pytest.raises(TypeError, match=f"got {kind} numbers as 'position_ids'"):
        model(ids, position_ids=np.array([[0, 1, 1]], kind))
    want = first(model(ids))
    for whole in ("int8", "uint8", "uint16", "uint32", "uint64", "int64"):
        np.testing.assert_array_equal(first(model(ids.astype(whole))), want)


def test_the_message_says_what_to_do():
    model = small.make("bert", "Model")
    with pytest.raises(TypeError, match="embeddings are given as inputs_embeds"):
        model(np.ones((2, 3, 4), "float32"))
    with pytest.raises(TypeError, match="got text as 'input_ids'; make numbers of it first"):
        model(np.array([[3, "a"]], object))
    symbol = keras.Input((3,))  # of floats, if nothing else is said
    outer = keras.Model(symbol, model(symbol)[0])
    with pytest.raises(TypeError, match="a keras.Input of ids has dtype='int32'"):
        outer(np.array([[5, 9, 2]]))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "mpt", "mpnet"])
def test_token_types_that_mean_nothing_are_told_once(name):
    model = small.make(name, "Model")
    ids = np.array([[5, 9, 2]])
    want = first(model(ids))
    with pytest.warns(UserWarning, match=f"{type(model).__name__} has no use for token_type_ids"):
        np.testing.assert_array_equal(first(model(ids, token_type_ids=ids * 0)), want)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(first(model({"input_ids": ids, "token_type_ids": ids * 0})), want)


def test_positions_in_a_list_of_a_decoder_bring_no_warning():
    model = small.make("llama", "Model")
    ids, positions = np.array([[5, 9, 2]]), np.array([[0, 1, 2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = tf.function(lambda *inputs: model(list(inputs))[0])(ids, np.ones_like(ids), positions)
    np.testing.assert_allclose(got, first(model(ids)), atol=1e-5)
