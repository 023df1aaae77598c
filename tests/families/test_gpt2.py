"""GPT-2: what the reference cases do not reach."""

import h5py
import numpy as np
import pytest
import small_models
from safetensors.numpy import load_file, save_file

import tfmodels
from tfmodels import GPT2Config, TFAutoModelForCausalLM, TFGPT2DoubleHeadsModel, TFGPT2LMHeadModel, TFGPT2Model
from tfmodels.checkpoints.weight_map import slots_of

TINY = small_models.MORE["gpt2"]
IDS = np.random.default_rng(0).integers(1, 61, (2, 9))


@pytest.fixture(scope="module")
def model():
    return TFGPT2LMHeadModel(GPT2Config(**TINY, initializer_range=0.3))


class TestConfig:
    def test_defaults_are_those_of_the_small_model(self):
        config = GPT2Config()
        assert (config.vocab_size, config.n_positions, config.n_embd, config.n_layer) == (50257, 1024, 768, 12)
        assert (config.n_inner, config.activation_function, config.resid_pdrop) == (None, "gelu_new", 0.1)
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (50256, 50256, None)
        assert (config.summary_type, config.summary_first_dropout, config.use_cache) == ("cls_index", 0.1, True)

    def test_names_of_other_families(self):
        config = GPT2Config(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=32)
        assert (config.n_embd, config.n_layer, config.n_head, config.n_positions) == (16, 3, 2, 32)
        assert GPT2Config(61, 32, 16, 2, 4).to_dict()["n_layer"] == 2

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"n_embd": 15}, "n_embd=15 is not divisible by n_head=4"),
            ({"n_inner": 0}, "n_inner=0"),
            ({"add_cross_attention": True}, "add_cross_attention=True in GPT2Config is not supported"),
        ],
    )
    def test_contradictions_say_what_is_wrong(self, changes, message):
        with pytest.raises(ValueError, match=message):
            GPT2Config(**{"n_embd": 16, "n_head": 4, **changes})


def test_names_of_classes():
    assert not hasattr(tfmodels, "TFGPT2ForCausalLM")
    with pytest.raises(AttributeError, match="did you mean TFGPT2LMHeadModel"):
        tfmodels.GPT2LMHeadModel  # noqa: B018
    assert type(TFAutoModelForCausalLM.from_config(GPT2Config(**TINY))) is TFGPT2LMHeadModel


def test_files_hold_kernels_as_they_are(model, tmp_path):
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (16, 48)
    assert tensors["transformer.h.1.mlp.c_proj.weight"].shape == (24, 16)
    # As the first files have them: no prefix, masks beside the weights, the head under its own name.
    bare = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    bare |= {"h.0.attn.bias": np.ones((1, 1, 32, 32), "float32"), "h.1.attn.masked_bias": np.float32([-1e4])}
    bare["lm_head.weight"] = bare["wte.weight"].copy()
    save_file(bare, tmp_path / "model.safetensors")
    again = TFGPT2LMHeadModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("safetensors", [False, True])
def test_files_of_the_former_tensorflow_class(model, safetensors, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    stored = {}
    for name, slot in slots_of(model).items():
        value = np.asarray(slot.variable.value)
        *layers, parameter = name.removeprefix("transformer.").split(".")
        if layers[0] == "h":
            layers = [f"h_._{layers[1]}", *layers[2:]]
        if layers[-1] in ("c_attn", "c_proj", "c_fc"):
            value = value[None] if parameter == "bias" else value
        elif layers[-1].startswith("ln_"):
            parameter = {"weight": "gamma", "bias": "beta"}[parameter]
        elif layers[-1] == "wpe":
            parameter = "embeddings"
        stored["/".join(["transformer", *layers, f"{parameter}:0"])] = value
    if safetensors:
        save_file(stored, tmp_path / "model.safetensors", metadata={"format": "tf"})
    else:
        with h5py.File(tmp_path / "tf_model.h5", "w") as file:
            group = file.create_group("transformer")
            group.attrs["weight_names"] = []
            for name, value in stored.items():
                group[f"tfgp_t2lm_head_model/{name}"] = value
    again = TFGPT2LMHeadModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)


def test_token_types_are_looked_up_among_the_tokens(model):
    types = np.random.default_rng(1).integers(0, 2, IDS.shape)
    embeds = model.get_input_embeddings()(IDS) + model.get_input_embeddings()(types)
    want = model(inputs_embeds=embeds).logits
    for got in (model(IDS, token_type_ids=types), model([IDS, np.ones_like(IDS), types])):
        np.testing.assert_allclose(got.logits, want, atol=1e-5)


def test_longer_input_is_refused(model):
    with pytest.raises(ValueError, match=r"from 0 to 32; this model has positions 0 to 31 .*shorten the input"):
        model(np.ones((1, 33), "int32"))


@pytest.mark.parametrize("share", ["embd_pdrop", "resid_pdrop", "attn_pdrop"])
def test_dropout(run_dropouts, share):
    config = GPT2Config(**TINY, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)
    _, plain, dropped = run_dropouts(TFGPT2Model, config, IDS, **{share: 1.0})
    if share == "embd_pdrop":
        assert not np.any(dropped.hidden_states[0])
    elif share == "resid_pdrop":
        np.testing.assert_array_equal(dropped.hidden_states[1], plain.hidden_states[0])
    else:
        assert not any(np.any(weights) for weights in dropped.attentions)


class TestDoubleHeads:
    IDS = np.random.default_rng(0).integers(3, 61, (2, 3, 5))

    def make(self, **changes):
        return TFGPT2DoubleHeadsModel(small_models.config_of("gpt2", initializer_range=0.3, **changes))

    def test_each_loss_needs_its_own_labels_and_fit_learns_from_both(self):
        model = self.make()
        places, choices = np.array([[1, 2, 4], [0, 3, 2]]), np.array([2, 0])
        both = model(self.IDS, mc_token_ids=places, labels=self.IDS, mc_labels=choices)
        assert both.logits.shape == (2, 3, 5, 61) and both.mc_logits.shape == (2, 3)
        alone = model(self.IDS, mc_token_ids=places, mc_labels=choices)
        assert "loss" not in alone and float(alone.mc_loss) == float(both.mc_loss)
        assert "mc_loss" not in model(self.IDS, labels=self.IDS)
        model.compile("sgd", run_eagerly=True)
        data = {"input_ids": self.IDS, "mc_token_ids": places, "labels": self.IDS, "mc_labels": choices}
        total = model.evaluate(data, verbose=0, return_dict=True)["loss"]
        np.testing.assert_allclose(total, float(both.loss) + float(both.mc_loss), rtol=1e-5)
        del data["labels"]
        total = model.evaluate(data, verbose=0, return_dict=True)["loss"]
        np.testing.assert_allclose(total, float(both.mc_loss), rtol=1e-5)

    def test_texts_without_an_axis_of_choices(self):
        model = self.make()
        flat, whole = model(self.IDS[:, 0]), model(self.IDS)
        np.testing.assert_allclose(flat.mc_logits, whole.mc_logits[:, 0], atol=1e-5)
        np.testing.assert_allclose(flat.logits, whole.logits[:, 0], atol=1e-5)

    def test_summaries_that_give_no_score_are_refused(self):
        for changes in ({"summary_type": "mean"}, {"summary_use_proj": False}, {"summary_proj_to_labels": False}):
            with pytest.raises(ValueError, match=f"{next(iter(changes))}=.* in GPT2Config is not supported"):
                self.make(**changes)
