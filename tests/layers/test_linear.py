"""Dense and embedding layers."""

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels.checkpoints.quantized.scheme import Scheme, round_to_nearest
from tfmodels.kernels import added_norms, decoding, quantized, triton_decoding
from tfmodels.layers.feed_forward import FeedForward, GatedFeedForward
from tfmodels.layers.linear import Linear, build_all, embedding, linear, project, unembed
from tfmodels.layers.lora import LoraAdapter, LoraConfig
from tfmodels.layers.residual import whole
from tfmodels.runtime.lowering import PLAIN, Lowering


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantised_table_scores_with_the_rows_that_it_looks_up(mode):
    table = embedding(20, 8, std=1.0, dtype="float32", name="table")
    table.build((None,))
    hidden = np.random.default_rng(0).standard_normal((2, 3, 8)).astype("float32")
    before = np.asarray(unembed(hidden, table))
    table.quantize(mode)
    rows = np.asarray(table(np.arange(20)))
    after = np.asarray(unembed(hidden, table))
    np.testing.assert_allclose(after, hidden @ rows.T, rtol=1e-5, atol=1e-5)
    error = {"int8": 0.02, "int4": 0.3}[mode]
    assert 0 < np.linalg.norm(after - before) < error * np.linalg.norm(before)


@pytest.mark.parametrize("dtype, digits", [("bfloat16", 8), ("float16", 11)])
def test_a_table_of_16_bits_scores_with_sums_in_float32(dtype, digits):
    """Sums in 16 bits would be off by 2 % and 0.3 %; TF_ENABLE_ONEDNN_OPTS=0 shows CPUs without kernels for them."""
    table = embedding(64, 768, std=1.0, dtype=dtype, name="table")
    table.build((None,))
    hidden = tf.cast(np.random.default_rng(0).standard_normal((2, 3, 768)), dtype)
    exact = np.asarray(tf.cast(hidden, "float64")) @ np.asarray(tf.cast(table.embeddings.value, "float64")).T
    for call in (unembed, tf.function(unembed)):
        scores = np.asarray(tf.cast(call(hidden, table), "float64"))
        assert scores.shape == (2, 3, 64)
        # A result of so many binary digits that is cut off errs by up to 2^(1 - digits) of itself.
        np.testing.assert_array_less(np.abs(scores - exact), 2.0 ** (1 - digits) * np.abs(exact) + 1e-4)


class TestPackedLayersOnACpu:
    """Products of a few rows with packed weights that read the same inputs."""

    @pytest.fixture
    def layers(self):
        scheme, rng = Scheme(bits=4, group_size=32), np.random.default_rng(0)
        layers = [linear(units, std=1.0, use_bias=True, dtype="float32", name="layer") for units in (256, 128)]
        build_all(64, *layers)
        for layer in layers:
            layer.pack(scheme, round_to_nearest(np.asarray(layer.kernel), scheme))
            layer.bias.assign(rng.normal(size=layer.units))
        return layers

    def projected(self, layers, monkeypatch):
        """The outputs of a compiled `project`, those of each layer alone, and how many matrices each call got."""
        asked, few_rows = [], quantized.few_rows
        x = np.random.default_rng(1).normal(size=(1, 1, 64)).astype("float32")
        with monkeypatch.context() as patched:
            patched.setattr(
                quantized,
                "few_rows",
                lambda x, matrices, scheme: asked.append(len(matrices)) or few_rows(x, matrices, scheme),
            )
            call = tf.function(
                lambda: project(x, *layers, lowering=Lowering("cpu")), jit_compile=True, autograph=False
            )
            found = call()
        return found, [layer(x) for layer in layers], asked

    def test_they_share_a_call_and_keep_what_each_adds(self, layers, monkeypatch):
        adapter = LoraAdapter(64, 256, LoraConfig("layer", rank=2))
        adapter.lora_b.assign(np.ones((2, 256)))
        layers[0].set_adapter(adapter)
        found, wanted, asked = self.projected(layers, monkeypatch)
        assert asked == [2]
        for output, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(output, want, rtol=1e-4, atol=1e-4)

    def test_schemes_that_differ_are_asked_for_apart(self, layers, monkeypatch):
        other = linear(128, std=1.0, use_bias=False, dtype="float32", name="other")
        build_all(64, other)
        other.pack(Scheme(bits=8), round_to_nearest(np.asarray(other.kernel), Scheme(bits=8)))
        found, wanted, asked = self.projected([layers[0], other], monkeypatch)
        assert asked == [1, 1]
        for output, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(output, want, rtol=1e-4, atol=1e-4)


WEIGHTS_ONLY = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)
ON_A_GPU = Lowering("triton")
QUANTISED = [{"mode": "int8"}, {"config": WEIGHTS_ONLY}]


class TestKernelsOfOurOwn:
    """What is made of their results, which plain products stand in for here."""

    @pytest.fixture
    def reads(self, monkeypatch):
        """The matrices that each kernel was given."""
        reads = []

        def float_of(matrix, width):
            if not isinstance(matrix, decoding.Packed):
                return tf.cast(matrix, "float32")
            scheme = Scheme(bits=matrix.bits, group_size=matrix.group or None, offsets=matrix.kind or None)
            return quantized.dequantize({"weights": matrix.weights, "scales": matrix.scales}, scheme, width)

        def product(x, matrices, *, biases=None, activation="", gated=False):
            reads.append(matrices)
            outputs = [tf.matmul(tf.cast(x, "float32"), float_of(matrix, x.shape[1])) for matrix in matrices]
            if biases is not None:
                outputs = [output + tf.cast(bias, "float32") for output, bias in zip(outputs, biases, strict=True)]
            functions = {"": lambda y: y, "silu": tf.nn.silu, "gelu": tf.nn.gelu}
            act = {**functions, "gelu_tanh": lambda y: tf.nn.gelu(y, approximate=True)}[activation]
            if gated:
                return tf.cast(act(outputs[0]) * outputs[1], x.dtype)[tf.newaxis]
            whole = act(tf.concat(outputs, 1))
            return tf.cast(whole, x.dtype)[tf.newaxis] if activation else tf.stack([0.25 * whole, 0.75 * whole])

        def table_product(x, table, dtype="float32"):
            return tf.cast(tf.reduce_sum(product(x, [tf.transpose(table)]), 0), dtype)

        monkeypatch.setattr(triton_decoding, "product", product)
        monkeypatch.setattr(triton_decoding, "table_product", table_product)
        return reads

    def drawn(self, *shape):
        return tf.cast(np.random.default_rng(0).standard_normal(shape), "bfloat16")

    def layers(self, quantised, use_bias=True):
        keras.utils.set_random_seed(0)
        layers = [linear(units, std=0.5, use_bias=use_bias, dtype="bfloat16", name="layer") for units in (24, 8, 16)]
        build_all(32, *layers)
        for layer in layers:
            if use_bias:
                layer.bias.assign(np.arange(layer.units))
            if quantised:
                layer.quantize(**quantised)
        return layers

    @staticmethod
    def plainly(function):
        return np.asarray(tf.cast(function(PLAIN), "float32"))

    @pytest.mark.quick(2)
    @pytest.mark.parametrize("quantised", [None, *QUANTISED], ids=["whole", "int8", "int8 weights"])
    @pytest.mark.parametrize("use_bias", [True, False])
    def test_one_reads_for_all_layers_what_each_would(self, quantised, use_bias, reads):
        layers, x = self.layers(quantised, use_bias), self.drawn(2, 1, 32)
        for layer, output in zip(layers, project(x, *layers, lowering=ON_A_GPU), strict=True):
            want = self.plainly(lambda lowering, layer=layer: layer(x, lowering=lowering))
            assert output.dtype == "bfloat16" and output.shape == want.shape
            np.testing.assert_allclose(tf.cast(output, "float32"), want, rtol=0.02, atol=0.05)
            np.testing.assert_allclose(
                tf.cast(layer(x, lowering=ON_A_GPU), "float32"), tf.cast(output, "float32"), rtol=0.01
            )
        assert [len(matrices) for matrices in reads] == [3, 1, 1, 1]
        dtypes = {keras.backend.standardize_dtype(matrix.dtype) for matrix in reads[0]}
        assert dtypes == {"int8" if quantised else "bfloat16"}

    @pytest.mark.parametrize("packed", [None, Scheme(bits=8), Scheme(bits=4, group_size=32)], ids=str)
    def test_packed_and_activated_layers_compute_what_plain_ones_do(self, packed, reads):
        keras.utils.set_random_seed(0)
        options = {"std": 0.2, "dtype": "bfloat16"}
        blocks = [
            GatedFeedForward(32, 64, "silu", False, **options),
            FeedForward(32, 64, "gelu", True, **options),
        ]
        x = self.drawn(2, 1, 32)
        for block, times in zip(blocks, ([2, 1], [1, 1]), strict=True):
            block.build((None, None, 32))
            for layer in block._flatten_layers(include_self=False):
                if packed is not None and isinstance(layer, Linear):
                    layer.pack(packed, round_to_nearest(np.asarray(layer.kernel, "float32"), packed))
            reads.clear()
            got = tf.cast(whole(block(x, lowering=ON_A_GPU)), "float32")
            assert [len(matrices) for matrices in reads] == times
            assert {isinstance(matrices[0], decoding.Packed) for matrices in reads} == {packed is not None}
            want = self.plainly(lambda lowering, block=block: block(x, lowering=lowering))
            np.testing.assert_allclose(got, want, rtol=0.05, atol=0.05)

    @pytest.mark.parametrize("name", ["gpt_neox", "mpnet", "bert", "modernbert"])
    def test_every_kind_of_block_takes_its_layers_outputs(self, name, reads, monkeypatch):
        monkeypatch.setattr(added_norms, "serves_norms", lambda *_: False)
        head = "ForCausalLM" if name == "gpt_neox" else "ForMaskedLM"
        model, ids = small.make(name, head, dtype="bfloat16"), np.array([[5, 9, 2, 44]])
        want = tf.cast(model(ids).logits, "float32")
        assert not reads
        got = tf.cast(model(ids, lowering=ON_A_GPU).logits, "float32")
        assert reads
        np.testing.assert_allclose(got, want, rtol=0.05, atol=0.02)

    @pytest.mark.slow
    def test_layers_that_differ_read_for_themselves(self, reads):
        whole, quantised = self.layers(None), self.layers(QUANTISED[1])
        other = self.layers(QUANTISED[0])
        for layers in ([whole[0], quantised[0]], [quantised[0], other[0]]):
            reads.clear()
            outputs = project(self.drawn(1, 1, 32), *layers, lowering=ON_A_GPU)
            assert [len(matrices) for matrices in reads] == [1, 1]
            for layer, output in zip(layers, outputs, strict=True):
                want = self.plainly(lambda lowering, layer=layer: layer(self.drawn(1, 1, 32), lowering=lowering))
                np.testing.assert_allclose(tf.cast(output, "float32"), want, rtol=0.02, atol=0.05)

    @pytest.mark.slow
    def test_what_keras_adds_to_quantised_kernels_is_not_lost(self, reads):
        (layer, *_), x = self.layers(QUANTISED[1]), self.drawn(1, 1, 32)
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
        np.testing.assert_array_equal(
            tf.cast(layer(x, lowering=ON_A_GPU), "float32"), self.plainly(lambda lowering: layer(x, lowering=lowering))
        )
        assert reads == []
        table = embedding(24, 32, std=1.0, dtype="bfloat16", name="table")
        table.build((None,))
        table.quantize("int8")
        table.enable_lora(2)
        table.lora_embeddings_b.assign(np.ones(table.lora_embeddings_b.shape))
        want = self.plainly(lambda lowering: unembed(x, table, lowering))
        np.testing.assert_allclose(tf.cast(unembed(x, table, ON_A_GPU), "float32"), want, rtol=0.02, atol=0.1)
        assert all(matrix.dtype != "int8" for matrices in reads for matrix in matrices)

    def test_scores_of_a_quantised_table(self, reads):
        table = embedding(24, 16, std=1.0, dtype="bfloat16", name="table")
        table.build((None,))
        table.quantize("int8")
        hidden = self.drawn(2, 1, 16)
        want = self.plainly(lambda lowering: unembed(hidden, table, lowering))
        np.testing.assert_allclose(tf.cast(unembed(hidden, table, ON_A_GPU), "float32"), want, rtol=0.02, atol=0.05)
        assert len(reads) == 1 and reads[0][0].dtype == "int8"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's gradients")
@pytest.mark.parametrize("names", [("down_proj",), ("gate_proj", "up_proj", "down_proj")])
@pytest.mark.parametrize("dtypes", [("mixed_bfloat16", "float32"), ("float32", "mixed_bfloat16")])
def test_training_on_a_gpu_with_projections_of_another_dtype(monkeypatch, dtypes, names):
    block = GatedFeedForward(4, 6, "silu", use_bias=False, std=0.3, dtype=dtypes[0])
    block.build((None, None, 4))
    for name in names:
        getattr(block, name).dtype_policy = keras.dtype_policies.get(dtypes[1])
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("float32")

    def gradients():
        def run(x):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(block(x, training=True))
            return total, tape.gradient(total, [weight.value for weight in block.trainable_variables])

        total, flows = tf.function(run, autograph=False)(x)
        assert total.dtype == block.down_proj.compute_dtype
        return flows

    want = gradients()
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"])
    for got, plain in zip(gradients(), want, strict=True):
        np.testing.assert_allclose(got, plain, rtol=1e-6)
