"""Sentence embeddings: both schemas of sentence-transformers' folders, texts of all lengths, and the Keras model."""

import copy
import json
import lzma
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hub_server import serve
from safetensors.numpy import save_file

from tfmodels import AutoTokenizer, MPNetConfig, SentenceEncoder, TFAutoModel, TFMPNetModel
from tfmodels.checkpoints import CheckpointError, TensorSpec, write_checkpoint

TOKENIZER = Path(__file__).parents[1] / "data" / "tokenizers" / "mpnet"
TEXTS = [
    "This is an example sentence",
    "Each sentence is converted",
    "",
    "  One word more or less: the order must stay, whatever the lengths are.  ",
    "word " * 100,
    "x",
]
TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
MEAN = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def module(index, kind):
    return {
        "idx": index,
        "name": str(index),
        "path": f"{index}_{kind}",
        "type": f"sentence_transformers.models.{kind}",
    }


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A small MPNet with its tokenizer, without modules.json."""
    folder = tmp_path_factory.mktemp("plain")
    keras.utils.set_random_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = TFMPNetModel(MPNetConfig(**sizes, max_position_embeddings=66))
    for weight in model.weights:
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(lzma.decompress((TOKENIZER / "tokenizer.json.xz").read_bytes()))
    shutil.copy(TOKENIZER / "tokenizer_config.json", folder)
    return folder


@pytest.fixture
def folder(plain, tmp_path):
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    return tmp_path


def write(folder, path, content):
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text(json.dumps(content))


def by_hand(folder, text, longest=64):
    """The hidden states of one text alone, (length, width)."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), TFAutoModel.from_pretrained(folder)
    ids = tokenizer(text.strip(), truncation=True, max_length=longest, return_tensors="np")["input_ids"]
    return np.asarray(model(ids).last_hidden_state)[0]


def unit(vector):
    return vector / np.linalg.norm(vector)


class TestFolders:
    @pytest.mark.quick(3)
    @pytest.mark.parametrize(
        ("pooling", "want"),
        [
            (MEAN, lambda x: x.mean(0)),
            ({"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": True}, lambda x: x.mean(0)),
            ({"word_embedding_dimension": 16, "pooling_mode_cls_token": True}, lambda x: x[0]),
            ({"pooling_mode": "max"}, lambda x: x.max(0)),
            ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda x: x.sum(0) / len(x) ** 0.5),
            ({"pooling_mode": "lasttoken"}, lambda x: x[-1]),
            ({**MEAN, "pooling_mode_max_tokens": True}, lambda x: np.concatenate([x.max(0), x.mean(0)])),
            ({"pooling_mode": ["mean", "cls"]}, lambda x: np.concatenate([x.mean(0), x[0]])),
        ],
        ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
    )
    def test_pooling(self, folder, pooling, want):
        write(folder, "modules.json", [TRANSFORMER, module(1, "Pooling")])
        write(folder, "1_Pooling/config.json", pooling)
        encoder = SentenceEncoder.from_pretrained(folder)
        got = encoder.encode(TEXTS[:2])
        assert got.dtype == np.float32 and got.shape == (2, encoder.dimension)
        for vector, text in zip(got, TEXTS, strict=False):
            np.testing.assert_allclose(vector, want(by_hand(folder, text)), atol=2e-5)

    def test_what_follows_the_pooling(self, folder):
        weights = np.random.default_rng(0).normal(size=(5, 16)).astype("float32")
        bias = np.arange(5, dtype="float32")
        write(
            folder,
            "modules.json",
            [TRANSFORMER, *(module(i, k) for i, k in ((1, "Pooling"), (2, "Dense"), (3, "Normalize")))],
        )
        write(folder, "1_Pooling/config.json", MEAN)
        activation = "torch.nn.modules.activation.Tanh"
        options = {"in_features": 16, "out_features": 5, "bias": True, "activation_function": activation}
        write(folder, "2_Dense/config.json", options)
        tensors = {"linear.weight": weights, "linear.bias": bias}
        write_checkpoint(
            folder / "2_Dense", [(n, TensorSpec(t.shape, "float32"), lambda t=t: t) for n, t in tensors.items()]
        )
        encoder = SentenceEncoder.from_pretrained(folder)
        want = unit(np.tanh(weights @ by_hand(folder, TEXTS[0]).mean(0) + bias))
        np.testing.assert_allclose(encoder.encode(TEXTS[0]), want, atol=2e-5)
        encoder.save_pretrained(folder / "again")
        again = SentenceEncoder.from_pretrained(folder / "again")
        np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
        write(folder, "2_Dense/config.json", {**options, "out_features": 6})
        with pytest.raises(CheckpointError, match=r"linear\.weight gives \(16, 5\); \(16, 6\)"):
            SentenceEncoder.from_pretrained(folder)

    @pytest.mark.slow
    def test_order_of_modes_survives_saving(self, folder):
        model, tokenizer = TFAutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        for modes in (("mean", "cls"), ("cls", "mean"), ("max",)):
            encoder = SentenceEncoder(model, tokenizer, pooling=modes, tail=["normalize"], max_seq_length=7)
            encoder.save_pretrained(folder / "saved")
            again = SentenceEncoder.from_pretrained(folder / "saved")
            assert again.pooling.modes == modes and again.settings == encoder.settings
            np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))

    def test_plain_checkpoint_gets_the_mean(self, plain):
        got = SentenceEncoder.from_pretrained(plain).encode(TEXTS[0])
        np.testing.assert_allclose(got, by_hand(plain, TEXTS[0]).mean(0), atol=2e-5)

    def test_transformer_in_a_folder_of_its_own(self, plain, tmp_path):
        shutil.copytree(plain, tmp_path / "0_Transformer")
        write(tmp_path, "modules.json", [{**TRANSFORMER, "path": "0_Transformer"}, module(1, "Pooling")])
        write(tmp_path, "1_Pooling/config.json", MEAN)
        write(tmp_path, "0_Transformer/sentence_bert_config.json", {"max_seq_length": 5, "do_lower_case": False})
        got = SentenceEncoder.from_pretrained(tmp_path).encode(TEXTS[3])
        np.testing.assert_allclose(got, by_hand(plain, TEXTS[3], longest=5).mean(0), atol=2e-5)

    @pytest.mark.slow
    def test_from_the_hub(self, plain, tmp_path):
        encoder = SentenceEncoder(
            TFAutoModel.from_pretrained(plain),
            AutoTokenizer.from_pretrained(plain),
            tail=[{"out_features": 3, "bias": False, "activation": "linear"}, "normalize"],
        )
        encoder.save_pretrained(tmp_path / "folder")
        files = [path for path in (tmp_path / "folder").rglob("*") if path.is_file()]
        program = (
            "from tfmodels import SentenceEncoder;"
            f"encoder = SentenceEncoder.from_pretrained('org/encoder'); vectors = encoder.encode({TEXTS!r});"
            "print(vectors.tolist())"
        )
        with serve() as hub:
            hub.repositories["org/encoder"] = {
                **{path.relative_to(tmp_path / "folder").as_posix(): path.read_bytes() for path in files},
                "onnx/model.onnx": b"what nobody asks for",
            }
            first = hub.run(program, tmp_path)
            assert "onnx/model.onnx" not in hub.files_fetched()
            offline = hub.run(program, tmp_path, HF_HUB_OFFLINE="1")
        for done in (first, offline):
            assert done.returncode == 0, done.stderr
            np.testing.assert_allclose(json.loads(done.stdout), encoder.encode(TEXTS), atol=1e-6)

    @pytest.mark.parametrize(
        ("path", "content", "message"),
        [
            ("modules.json", "[{]", r"modules\.json is no list of modules"),
            ("modules.json", [TRANSFORMER], "must list two or more"),
            ("modules.json", [TRANSFORMER, module(1, "WordWeights")], "begins with Transformer, WordWeights"),
            ("modules.json", [TRANSFORMER, {**module(1, "Pooling"), "path": "../x"}], "inside the folder"),
            ("modules.json", [TRANSFORMER, module(1, "Pooling"), module(2, "LSTM")], "lists a module LSTM"),
            ("1_Pooling/config.json", {"pooling_mode": "median"}, "pooling modes .*median"),
            ("1_Pooling/config.json", {**MEAN, "include_prompt": False}, "include_prompt=False"),
            ("1_Pooling/config.json", "{", "not valid JSON"),
            ("2_Dense/config.json", {"out_features": 3, "activation_function": "os.system"}, "'os.system'; known are"),
            ("2_Dense/config.json", {"out_features": 3, "use_residual": True}, "without residuals"),
            (
                "2_Dense/config.json",
                {"out_features": 3, "module_output_name": "other"},
                "only modules on sentence_emb",
            ),
            ("2_Dense/config.json", {"in_features": 3}, "no out_features"),
            ("2_Dense/config.json", {"out_features": 3}, "No weights in .*2_Dense"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_broken(self, folder, path, content, message):
        write(folder, "modules.json", [TRANSFORMER, module(1, "Pooling"), module(2, "Dense")])
        write(folder, "1_Pooling/config.json", MEAN)
        write(folder, "2_Dense/config.json", {"out_features": 3})
        write(folder, path, content)
        if isinstance(content, str):
            (folder / path).write_text(content)
        with pytest.raises(ValueError, match=message):
            SentenceEncoder.from_pretrained(folder)
        with pytest.raises(TypeError, match="unknown argument 'pooling'"):
            SentenceEncoder.from_pretrained(folder, pooling="mean")


class TestEncode:
    @pytest.fixture(scope="class")
    def encoder(self, plain):
        return SentenceEncoder.from_pretrained(plain)

    @pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    def test_batches_as_alone_in_the_order_given(self, encoder, batch_size, jit_compile):
        want = np.stack([encoder.encode(text) for text in TEXTS])
        got = encoder.encode(TEXTS, batch_size=batch_size, jit_compile=jit_compile)
        np.testing.assert_allclose(got, want, atol=2e-5)
        np.testing.assert_allclose(encoder.encode(iter(TEXTS[::-1])), want[::-1], atol=2e-5)

    def test_long_texts_are_cut_to_what_the_model_can_do(self, encoder, plain):
        np.testing.assert_allclose(encoder.encode(TEXTS[4]), by_hand(plain, TEXTS[4]).mean(0), atol=2e-5)
        assert len(by_hand(plain, TEXTS[4])) == 64

    def test_one_trace_for_all_shapes_and_one_program_for_each_bucket(self, plain):
        encoder = SentenceEncoder.from_pretrained(plain)
        for count in (1, 3, 6):
            encoder.encode(TEXTS[:count])
            encoder.encode(TEXTS[-count:], batch_size=2, jit_compile=True)
        compiled = encoder.programs.compilations
        encoder.encode(["another one", "and one more"], jit_compile=True)
        encoder.encode(TEXTS[:5])
        assert encoder.programs.compilations == compiled == len(encoder.programs)

    def test_normalize(self, encoder):
        plain = encoder.encode(TEXTS)
        got = encoder.encode(TEXTS, normalize=True)
        np.testing.assert_allclose(got, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-5)

    def test_arguments_of_sentence_transformers(self, encoder):
        want = encoder.encode(TEXTS, normalize=True)
        got = encoder.encode(sentences=TEXTS, normalize_embeddings=True, show_progress_bar=False)
        np.testing.assert_array_equal(got, want)
        tensor = encoder.encode(TEXTS, normalize_embeddings=True, convert_to_tensor=True)
        assert keras.ops.is_tensor(tensor)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(tensor), want)
        rows = encoder.encode(TEXTS, normalize=True, convert_to_numpy=False)
        assert [row.shape for row in rows] == [want[0].shape] * len(TEXTS) and all(map(keras.ops.is_tensor, rows))
        assert keras.ops.is_tensor(encoder.encode(TEXTS[0], convert_to_numpy=False))
        with pytest.raises(TypeError, match="'normalize' twice: also as 'normalize_embeddings'"):
            encoder.encode(TEXTS, normalize=True, normalize_embeddings=True)

    def test_nothing(self, encoder):
        assert encoder.encode([]).shape == (0, 16)

    def test_progress(self, encoder, capsys):
        encoder.encode(TEXTS, show_progress=True)
        assert "Encoding" in capsys.readouterr().out
        encoder.encode(TEXTS)
        assert not capsys.readouterr().out

    def test_prompts(self, folder):
        write(
            folder, "config_sentence_transformers.json", {"prompts": {"query": "query: "}, "default_prompt_name": None}
        )
        encoder = SentenceEncoder.from_pretrained(folder)
        want = encoder.encode("query: x")
        np.testing.assert_array_equal(encoder.encode("x", prompt_name="query"), want)
        np.testing.assert_array_equal(encoder.encode("x", prompt="query: "), want)
        with pytest.raises(ValueError, match="prompt_name='passage' is unknown; there are query"):
            encoder.encode("x", prompt_name="passage")
        write(
            folder,
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
        )
        np.testing.assert_array_equal(SentenceEncoder.from_pretrained(folder).encode("x"), want)

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (None, r"texts=None; a text or a list of texts was expected"),
            (b"a", r"texts=b'a'; a text or a list"),
            ({"a": "b"}, r"texts=\{'a': 'b'\}; a text or a list"),
            (["a", None], r"texts\[1\]=None; a text was expected"),
            ([["a", "b"]], r"texts\[0\]=\['a', 'b'\]; a text was expected"),
        ],
    )
    def test_what_is_no_text(self, encoder, texts, message):
        with pytest.raises(TypeError, match=message):
            encoder.encode(texts)

    def test_wrong_arguments(self, encoder):
        for wrong in (0, "x"):
            with pytest.raises(ValueError, match=f"batch_size={wrong!r}"):
                encoder.encode(TEXTS, batch_size=wrong)
        with pytest.raises(ValueError, match="no tokenizer"):
            SentenceEncoder(encoder.model).encode(TEXTS)

    def test_decoders(self):
        model, tokenizer = (auto.from_pretrained("stories260K") for auto in (TFAutoModel, AutoTokenizer))
        encoder = SentenceEncoder(model, tokenizer, pooling=["lasttoken"])
        got = encoder.encode(TEXTS)
        for vector, text in zip(got, TEXTS, strict=True):
            hidden = model(np.array([tokenizer(text.strip())["input_ids"]]), use_cache=False).last_hidden_state
            np.testing.assert_allclose(vector, hidden[0, -1], atol=2e-4)


class TestKerasModel:
    IDS = np.array([[0, 2027, 2007, 2], [0, 2173, 2, 1]])
    MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])

    @pytest.fixture
    def encoder(self, plain):
        keras.utils.set_random_seed(0)
        model = TFAutoModel.from_pretrained(plain)
        dense = {"out_features": 3, "bias": True, "activation": "tanh"}
        return SentenceEncoder(model, pooling=["cls", "mean"], tail=[dense, "normalize"])

    def test_calls(self, encoder):
        output = encoder(input_ids=self.IDS, attention_mask=self.MASK)
        assert list(output) == ["sentence_embedding"] and output.sentence_embedding.shape == (2, 3)
        want = np.asarray(output.sentence_embedding)
        np.testing.assert_allclose(np.linalg.norm(want, axis=1), 1, rtol=1e-5)
        for other in (
            encoder([self.IDS, self.MASK]),
            encoder({"input_ids": self.IDS, "attention_mask": self.MASK}),
            tf.function(lambda ids, mask: encoder(ids, mask), jit_compile=True)(self.IDS, self.MASK),
            encoder.predict({"input_ids": self.IDS, "attention_mask": self.MASK}, verbose=0),
        ):
            np.testing.assert_allclose(other["sentence_embedding"], want, atol=1e-5)
        ids, mask = (keras.Input((None,), dtype="int32") for _ in range(2))
        composed = keras.Model([ids, mask], encoder(ids, mask).sentence_embedding)
        np.testing.assert_allclose(composed([self.IDS, self.MASK]), want, atol=1e-5)

    def test_keras_file(self, encoder, tmp_path):
        encoder.save(tmp_path / "encoder.keras")
        again = keras.models.load_model(tmp_path / "encoder.keras")
        np.testing.assert_array_equal(again([self.IDS, self.MASK])[0], encoder([self.IDS, self.MASK])[0])
        assert again.settings == encoder.settings

    def test_copies_leave_compiled_functions_behind(self, plain):
        encoder = SentenceEncoder.from_pretrained(plain)
        want = encoder.encode(TEXTS)
        other = copy.deepcopy(encoder)
        other.tokenizer = encoder.tokenizer  # no part of the Keras model
        np.testing.assert_array_equal(other.encode(TEXTS), want)

    @pytest.mark.slow
    def test_a_training_step_is_traced_once(self, encoder, monkeypatch):
        steps = []
        step = SentenceEncoder.train_step
        monkeypatch.setattr(SentenceEncoder, "train_step", lambda self, data: steps.append(1) or step(self, data))
        encoder.compile(optimizer=keras.optimizers.Adam(0.0), loss="mse", metrics=[keras.metrics.MeanAbsoluteError()])
        encoder.fit({"input_ids": self.IDS, "attention_mask": self.MASK}, np.zeros((2, 3)), epochs=2, verbose=0)
        assert len(steps) == 1

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    @pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
    def test_data_without_a_row(self, encoder, call):
        encoder.compile(optimizer="sgd", loss="mse")
        data = tf.data.Dataset.from_tensors(({"input_ids": self.IDS, "attention_mask": self.MASK}, np.zeros((2, 3))))
        for empty in (data.take(0), data.filter(lambda x, y: tf.reduce_any(y > 0))):
            with pytest.raises(ValueError, match="x is a dataset without a batch"):
                getattr(encoder, call)(empty, verbose=0)
        with pytest.raises(ValueError, match="x is empty"):
            getattr(encoder, call)({"input_ids": self.IDS[:0], "attention_mask": self.MASK[:0]}, verbose=0)

    @pytest.mark.slow
    def test_learns(self, encoder):
        target = np.array([[1, 0, 0], [0, 1, 0]], "float32")
        encoder.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
        data = tf.data.Dataset.from_tensors(({"input_ids": self.IDS, "attention_mask": self.MASK}, target))
        history = encoder.fit(data.repeat(20), verbose=0, epochs=2).history["loss"]
        assert history[1] < history[0] / 2


@pytest.mark.slow
def test_published_embeddings():
    """all-mpnet-base-v2 gives the vectors on its page."""
    from conftest import find_checkpoint

    folder = find_checkpoint("all-mpnet-base-v2")
    if folder is None:
        pytest.skip("all-mpnet-base-v2 is not here: set TFMODELS_CHECKPOINTS to a folder that holds it")
    got = SentenceEncoder.from_pretrained(folder).encode(TEXTS[:2])
    want = [[0.0225026, -0.0782917, -0.0230307], [0.0417023, 0.0010974, -0.0155342]]
    np.testing.assert_allclose(got[:, :3], want, atol=1e-6)


SENTENCE = {
    "__version__": {"sentence_transformers": "3.1.0"},
    "model_type": "SentenceTransformer",
    "prompts": {"query": "query: "},
    "default_prompt_name": None,
    "similarity_fn_name": "dot",
    "truncate_dim": 6,
    "own": {"a": [1]},
}


def test_layer_norm(folder):
    """The module LayerNorm, which files name with the size of the vectors."""
    write(folder, "modules.json", [TRANSFORMER, module(1, "Pooling"), module(2, "LayerNorm"), module(3, "Normalize")])
    write(folder, "1_Pooling/config.json", MEAN)
    write(folder, "2_LayerNorm/config.json", {"dimension": 16})
    weight, bias = np.linspace(0.5, 2, 16).astype("float32"), np.linspace(-1, 1, 16).astype("float32")
    save_file({"norm.weight": weight, "norm.bias": bias}, folder / "2_LayerNorm" / "model.safetensors")
    encoder = SentenceEncoder.from_pretrained(folder)
    pooled = by_hand(folder, TEXTS[0]).mean(0)
    want = unit((pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5) * weight + bias)
    np.testing.assert_allclose(encoder.encode(TEXTS[0]), want, atol=2e-5)
    encoder.save_pretrained(folder / "again")
    assert json.loads((folder / "again/2_LayerNorm/config.json").read_text()) == {"dimension": 16}
    again = SentenceEncoder.from_pretrained(folder / "again")
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    copied = SentenceEncoder.from_config(encoder.get_config())
    assert [type(layer).__name__ for layer in copied.tail] == ["LayerNormalization", "UnitNormalization"]
    for size, message in ((15, "a layer_norm of 15 values; vectors have 16 there"), (None, "no dimension, the size")):
        write(folder, "2_LayerNorm/config.json", {"dimension": size})
        with pytest.raises(ValueError, match=message):
            SentenceEncoder.from_pretrained(folder)


def test_a_path_in_the_models_place(folder):
    with pytest.raises(TypeError, match=r"a model is expected; SentenceEncoder\.from_pretrained loads one"):
        SentenceEncoder(folder)


class TestSettings:
    """What config_sentence_transformers.json says beside the prompts, and modules that matter in training alone."""

    @pytest.fixture
    def whole(self, folder):
        kinds = ((1, "Pooling"), (2, "Dropout"), (3, "Normalize"))
        write(folder, "modules.json", [TRANSFORMER, *(module(index, kind) for index, kind in kinds)])
        write(folder, "1_Pooling/config.json", MEAN)
        write(folder, "2_Dropout/config.json", {"dropout": 0.5})
        write(folder, "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False, "modality": "text"})
        write(folder, "config_sentence_transformers.json", SENTENCE)
        return folder

    def test_truncate_dim(self, whole):
        encoder = SentenceEncoder.from_pretrained(whole)
        full = unit(by_hand(whole, TEXTS[0]).mean(0))
        np.testing.assert_allclose(encoder.encode(TEXTS[0]), full[:6], atol=2e-5)
        # cut first, then scaled, as sentence-transformers does
        np.testing.assert_allclose(encoder.encode(TEXTS[0], normalize=True), unit(full[:6]), atol=2e-5)
        np.testing.assert_allclose(encoder.encode([TEXTS[0]], truncate_dim=3)[0], full[:3], atol=2e-5)
        assert encoder.dimension == encoder.get_sentence_embedding_dimension() == encoder.truncate_dim == 6
        encoder.truncate_dim = None
        np.testing.assert_allclose(encoder.encode(TEXTS[0]), full, atol=2e-5)
        encoder.truncate_dim = 99
        assert encoder.encode(TEXTS[:2]).shape == (2, encoder.dimension) == (2, 16)
        for wrong in (0, -1, 2.5, True, "6"):
            with pytest.raises(ValueError, match=r"truncate_dim=.*; a positive number of values or None"):
                encoder.encode(TEXTS[0], truncate_dim=wrong)
            with pytest.raises(ValueError, match=r"truncate_dim=.*; a positive number of values or None"):
                encoder.truncate_dim = wrong

    def test_everything_is_saved_again(self, whole):
        encoder = SentenceEncoder.from_pretrained(whole)
        encoder.save_pretrained(whole / "again")
        saved = json.loads((whole / "again" / "config_sentence_transformers.json").read_text())
        assert saved == SENTENCE
        settings = json.loads((whole / "again" / "sentence_bert_config.json").read_text())
        assert settings == {"max_seq_length": 32, "do_lower_case": False, "modality": "text"}
        kinds = [entry["type"].rsplit(".", 1)[1] for entry in json.loads((whole / "again/modules.json").read_text())]
        assert kinds == ["Transformer", "Pooling", "Dropout", "Normalize"]
        assert json.loads((whole / "again/2_Dropout/config.json").read_text()) == {"dropout": 0.5}
        again = SentenceEncoder.from_pretrained(whole / "again")
        assert again.settings == encoder.settings
        np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
        copied = SentenceEncoder.from_config(encoder.get_config())
        assert copied.settings == encoder.settings

    def test_dropout_acts_in_training_alone(self, whole):
        encoder = SentenceEncoder.from_pretrained(whole)
        ids = {"input_ids": np.array([[0, 5, 2]]), "attention_mask": np.ones((1, 3), "int32")}
        plain = np.asarray(encoder(ids).sentence_embedding)[0]
        assert (plain != 0).all()
        dropped = np.concatenate([np.asarray(encoder(ids, training=True).sentence_embedding)[0] for _ in range(20)])
        assert 0.3 < (dropped == 0).mean() < 0.7

    def test_similarity(self, whole):
        encoder = SentenceEncoder.from_pretrained(whole)
        left, right = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0, 4.0]])
        want = {"dot": [11, 4], "cosine": [11 / 125**0.5, 0.8], "euclidean": [-(8**0.5), -(18**0.5)]}
        for name, values in {**want, "manhattan": [-4, -6]}.items():
            encoder.settings.similarity_fn_name = name
            np.testing.assert_allclose(encoder.similarity(left, right), np.array(values)[:, None], rtol=1e-6)
            np.testing.assert_allclose(encoder.similarity_pairwise(left, right[[0, 0]]), values, rtol=1e-6)
        encoder.settings.similarity_fn_name = None
        assert encoder.similarity_fn_name == "cosine"
        with pytest.raises(ValueError, match="similarity_fn_name='cos'; cosine, dot, euclidean, manhattan were"):
            SentenceEncoder(encoder.model, similarity_fn_name="cos")

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            (
                "config_sentence_transformers.json",
                {"truncate_dim": "6"},
                "truncate_dim is '6'; an integer was expected",
            ),
            ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim=0; a positive number"),
            ("config_sentence_transformers.json", {"prompts": {"a": 3}}, r"formers\.json: prompts: a is 3; text was"),
            ("config_sentence_transformers.json", {"prompts": ["a"]}, r"prompts is \['a'\]; .* was expected"),
            (
                "config_sentence_transformers.json",
                {"similarity_fn_name": 3},
                "similarity_fn_name is 3; .* was expected",
            ),
            ("config_sentence_transformers.json", {"similarity_fn_name": "x"}, "similarity_fn_name='x'; cosine, dot"),
            (
                "sentence_bert_config.json",
                {"max_seq_length": [1]},
                r"max_seq_length is \[1\]; an integer was expected",
            ),
            ("2_Dropout/config.json", {"dropout": 2}, "dropout=2; a rate from 0 to less than 1"),
            ("2_Dropout/config.json", {"dropout": None}, "dropout=None; a rate from 0 to less than 1"),
        ],
    )
    def test_wrong_values(self, whole, file, content, message):
        write(whole, file, content)
        with pytest.raises(ValueError, match=message):
            SentenceEncoder.from_pretrained(whole)
