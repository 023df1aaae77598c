"""Meaning of a checkpoint: names, heads, ties, quantised numbers, sizes and formats."""

import json
import time
import warnings

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_models import EVERY, class_of, config_of, inputs_of, make

from tfmodels import TFAutoModelForCausalLM, TFMPNetForMaskedLM
from tfmodels.checkpoints import CheckpointError, sizes
from tfmodels.checkpoints.reader import choose_formats, open_checkpoint
from tfmodels.checkpoints.weight_map import WeightSlot, slots_of

LM = [(name, head) for name, head in EVERY if head in ("ForCausalLM", "ForMaskedLM")]
FAMILIES = sorted({name for name, _ in EVERY})
# Family -> name in files of its language-model head's matrix, and of its embedding table.
HEADS = {
    "llama": ("lm_head.weight", "model.embed_tokens.weight"),
    "gpt_neox": ("embed_out.weight", "gpt_neox.embed_in.weight"),
    "gpt_neo": ("lm_head.weight", "transformer.wte.weight"),
    "mpt": ("lm_head.weight", "transformer.wte.weight"),
    "mpnet": ("lm_head.decoder.weight", "mpnet.embeddings.word_embeddings.weight"),
}
RNG = np.random.default_rng(7)


def logits(model, name, head):
    output = model(**inputs_of(name, head))
    return np.concatenate([np.asarray(output[field], "float32").reshape(-1) for field in model.main_outputs])


def change(folder, edit, metadata=None):
    """Edit the tensors of a folder's safetensors file."""
    tensors = load_file(folder / "model.safetensors")
    tensors = edit(tensors) or tensors
    save_file(tensors, folder / "model.safetensors", metadata=metadata or {"format": "pt"})
    return tensors


def ours(recorded):
    """The warnings of this package among those recorded."""
    return [str(warning.message) for warning in recorded if str(warning.message).startswith("TF")]


def edit_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def lm_head(name):
    return next(head for family, head in LM if family == name)


class TestTiedHeads:
    @pytest.mark.quick(4)
    @pytest.mark.parametrize(("name", "head"), LM)
    @pytest.mark.parametrize("form", ["safetensors", "bin"])
    def test_a_head_of_its_own_wins_over_a_tied_configuration(self, name, head, form, tmp_path):
        untied = make(name, head, tie_word_embeddings=False)
        untied.save_pretrained(tmp_path)
        edit_config(tmp_path, tie_word_embeddings=True)
        if form == "bin":
            torch = pytest.importorskip("torch")
            tensors = {key: torch.tensor(array) for key, array in load_file(tmp_path / "model.safetensors").items()}
            torch.save(tensors, tmp_path / "pytorch_model.bin")
            (tmp_path / "model.safetensors").unlink()
        with pytest.warns(UserWarning, match=f"{HEADS[name][0]} differs from the embeddings; loaded with tie_word"):
            model = class_of(name, head).from_pretrained(tmp_path)
        assert model.config.tie_word_embeddings is False
        np.testing.assert_array_equal(logits(model, name, head), logits(untied, name, head))
        model.save_pretrained(tmp_path / "again")
        again = class_of(name, head).from_pretrained(tmp_path / "again")
        np.testing.assert_array_equal(logits(again, name, head), logits(untied, name, head))

    @pytest.mark.quick(6)
    @pytest.mark.parametrize(("name", "head"), LM)
    @pytest.mark.parametrize("keep", ["table", "head", "both", "alias"])
    def test_either_name_stands_for_the_tied_matrix(self, name, head, keep, tmp_path, recwarn):
        tied = make(name, head, tie_word_embeddings=True)
        tied.save_pretrained(tmp_path)
        head_name, table_name = HEADS[name]

        def edit(tensors):
            if keep in ("head", "alias"):
                tensors[head_name] = tensors.pop(table_name)
            elif keep == "both":
                tensors[head_name] = tensors[table_name].copy()

        aliases = {table_name: head_name} if keep == "alias" else {}
        change(tmp_path, edit, {"format": "pt", **aliases})
        model = class_of(name, head).from_pretrained(tmp_path)
        assert model.config.tie_word_embeddings is True and not ours(recwarn)
        np.testing.assert_array_equal(logits(model, name, head), logits(tied, name, head))

    @pytest.mark.parametrize("name", FAMILIES)
    def test_the_table_under_the_heads_name_serves_every_class(self, name, tmp_path):
        """transformers 5.24 starts the table of a class without that head at random."""
        make(name, lm_head(name), tie_word_embeddings=True).save_pretrained(tmp_path)
        head_name, table_name = HEADS[name]
        table = load_file(tmp_path / "model.safetensors")[table_name]
        change(tmp_path, lambda tensors: tensors.update({head_name: tensors.pop(table_name)}))
        for head in ("Model", "ForSequenceClassification", "ForQuestionAnswering"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model, info = class_of(name, head).from_pretrained(tmp_path, output_loading_info=True)
            np.testing.assert_array_equal(model.get_input_embeddings().embeddings, table)
            assert head_name not in info["unexpected_keys"] and table_name not in info["missing_keys"]

    def test_aliases_of_save_model(self, tmp_path):
        """`safetensors.torch.save_model` keeps one name of a shared matrix and names the other in the metadata."""
        torch = pytest.importorskip("torch")
        from safetensors.torch import save_model

        model = make("llama", "ForCausalLM", tie_word_embeddings=True)
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        module = torch.nn.Module()
        shared = torch.nn.Parameter(torch.tensor(tensors.pop("model.embed_tokens.weight")))
        for path, value in {**tensors, "model.embed_tokens.weight": shared, "lm_head.weight": shared}.items():
            *parents, leaf = path.split(".")
            inner = module
            for part in parents:
                if not hasattr(inner, part):
                    inner.add_module(part, torch.nn.Module())
                inner = getattr(inner, part)
            value = value if value is shared else torch.nn.Parameter(torch.tensor(value))
            inner.register_parameter(leaf, value)
        save_model(module, str(tmp_path / "model.safetensors"))
        for tied in (True, False):  # the file says that they are one, whatever the configuration says
            edit_config(tmp_path, tie_word_embeddings=tied)
            loaded = class_of("llama", "ForCausalLM").from_pretrained(tmp_path)
            np.testing.assert_array_equal(
                logits(loaded, "llama", "ForCausalLM"), logits(model, "llama", "ForCausalLM")
            )

    def test_two_different_biases(self, tmp_path):
        """transformers 5.24 then adds `decoder.bias`."""
        model = make("mpnet", "ForMaskedLM")
        model.save_pretrained(tmp_path)
        bias = RNG.normal(size=61).astype("float32")
        change(tmp_path, lambda tensors: tensors.update({"lm_head.decoder.bias": bias}))
        with pytest.warns(UserWarning, match=r"lm_head\.bias differs from lm_head\.decoder\.bias"):
            loaded = TFMPNetForMaskedLM.from_pretrained(tmp_path)
        np.testing.assert_array_equal(loaded.lm_head.bias, bias)


# Tensors that must not vanish: (family, head, tensors of that head that the model does not have).
LOST = [
    ("llama", "ForCausalLM", ["lm_head.bias", "lm_head.weight_scale", "lm_head.lora_A.weight"]),
    ("llama", "ForSequenceClassification", ["score.bias", "score.lora_B.weight"]),
    ("llama", "ForTokenClassification", ["score.weight_scale"]),
    ("llama", "ForQuestionAnswering", ["qa_outputs.scale"]),
    ("gpt_neox", "ForCausalLM", ["embed_out.bias", "embed_out.weight_scale"]),
    ("gpt_neox", "ForTokenClassification", ["classifier.dense.weight"]),
    ("gpt_neo", "ForCausalLM", ["lm_head.bias"]),
    ("gpt_neo", "ForSequenceClassification", ["score.bias"]),
    ("mpt", "ForCausalLM", ["lm_head.bias", "lm_head.weight_scale"]),
    ("mpnet", "ForMaskedLM", ["lm_head.dense2.weight", "lm_head.transform.bias"]),
    ("mpnet", "ForSequenceClassification", ["classifier.dense2.weight", "classifier.weight"]),
    ("mpnet", "ForMultipleChoice", ["classifier.out_proj.weight"]),
    ("mpnet", "ForTokenClassification", ["classifier.out_proj.bias"]),
    ("mpnet", "ForQuestionAnswering", ["qa_outputs.dense.weight"]),
]


class TestOwnHead:
    @pytest.mark.parametrize(("name", "head", "extra"), LOST, ids=lambda value: value if type(value) is str else "")
    def test_no_tensor_of_it_is_dropped(self, name, head, extra, tmp_path):
        make(name, head).save_pretrained(tmp_path)
        whole = load_file(tmp_path / "model.safetensors")
        for tensor in extra:
            save_file({**whole, tensor: np.ones(3, "float32")}, tmp_path / "model.safetensors")
            with pytest.raises(CheckpointError, match=rf"(in the file but not in the model|quantised.*): {tensor}"):
                class_of(name, head).from_pretrained(tmp_path)

    def test_heads_of_other_classes_are_excused(self, tmp_path):
        for head, layers in (("ForCausalLM", "lm_head"), ("ForQuestionAnswering", "qa_outputs")):
            make("llama", head, tie_word_embeddings=False).save_pretrained(tmp_path)
            _, info = class_of("llama", "ForSequenceClassification").from_pretrained(
                tmp_path, output_loading_info=True
            )
            assert info["missing_keys"] == ["score.weight"]
            assert {key.split(".")[0] for key in info["unexpected_keys"]} == {layers}


class TestLoadingInfo:
    def test_nothing_to_tell(self, tmp_path):
        make("llama", "ForCausalLM").save_pretrained(tmp_path)
        model, info = TFAutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
        assert type(model).__name__ == "TFLlamaForCausalLM"
        assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}

    def test_names_are_those_of_files(self, tmp_path):
        make("gpt_neox", "ForSequenceClassification").save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match="start at random"):
            _, info = class_of("gpt_neox", "ForCausalLM").from_pretrained(tmp_path, output_loading_info=True)
        assert (info["missing_keys"], info["unexpected_keys"]) == (["embed_out.weight"], ["score.weight"])
        with pytest.warns(UserWarning, match="start at random"):
            _, info = class_of("gpt_neox", "ForSequenceClassification").from_pretrained(
                tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True
            )
        assert info["mismatched_keys"] == [("score.weight", (3, 16), (5, 16))]

    def test_a_tied_model_stays_tied_where_the_files_head_does_not_fit(self, tmp_path):
        # As transformers 4.57 does: logits are those of the embeddings, kept or new.
        model = make("llama", "ForCausalLM", tie_word_embeddings=True)
        model.save_pretrained(tmp_path)
        change(tmp_path, lambda tensors: {**tensors, "lm_head.weight": np.ones((64, 16), "float32")})
        options = {"ignore_mismatched_sizes": True, "output_loading_info": True}
        with pytest.warns(UserWarning, match=r"lm_head.weight \(64, 16\) in the file does not fit and was left out"):
            again, info = type(model).from_pretrained(tmp_path, **options)
        np.testing.assert_array_equal(logits(again, "llama", "ForCausalLM"), logits(model, "llama", "ForCausalLM"))
        assert again.config.tie_word_embeddings
        assert info["mismatched_keys"] == [("lm_head.weight", (64, 16), (61, 16))]
        with pytest.warns(UserWarning, match="start at random"):
            again, info = type(model).from_pretrained(tmp_path, vocab_size=70, **options)
        assert again.config.tie_word_embeddings and {key for key, *_ in info["mismatched_keys"]} == {
            "lm_head.weight",
            "model.embed_tokens.weight",
        }


METHODS = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq", "bits": 4},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "compressed-tensors": {"quant_method": "compressed-tensors"},
    "fp8": {"quant_method": "fp8"},
}
# Parts of a layer -> dtype, or None where the method has no such tensor; and the method.
MARKS = [
    (
        {"weight": None, "qweight": "int32", "qzeros": "int32", "scales": "float16", "g_idx": "int32"},
        "GPTQ or AWQ",
    ),
    ({"weight": "uint8", "weight.absmax": "float32", "weight.quant_map": "float32"}, "bitsandbytes"),
    ({"weight": "int8", "SCB": "float32"}, "bitsandbytes"),
    ({"weight": None, "weight_packed": "int32", "weight_scale": "float16"}, "compressed-tensors"),
    ({"weight_scale_inv": "float32"}, "fp8 or compressed-tensors"),
    ({"weight": "uint32", "scales": "float16", "biases": "float16"}, "MLX"),
]


class TestQuantised:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_method_of_the_configuration_is_named(self, method, tmp_path):
        make("llama", "ForCausalLM").save_pretrained(tmp_path)
        edit_config(tmp_path, quantization_config=METHODS[method])
        name = "model.layers.0.mlp.up_proj.weight"
        change(tmp_path, lambda tensors: tensors.update({name: tensors[name].astype("int8")}))
        with pytest.raises(CheckpointError, match=rf"quantised weights, by {method}: {name} \(int8\)"):
            class_of("llama", "ForCausalLM").from_pretrained(tmp_path)

    @pytest.mark.parametrize("name", FAMILIES)
    def test_integers_are_no_weights(self, name, tmp_path):
        model = make(name, "Model")
        model.save_pretrained(tmp_path)
        whole = load_file(tmp_path / "model.safetensors")
        for dtype, tensor in zip(["int8", "uint8", "int32", "bool"], list(whole)[:: len(whole) // 4], strict=False):
            save_file({**whole, tensor: whole[tensor].astype(dtype)}, tmp_path / "model.safetensors")
            with pytest.raises(CheckpointError, match=rf"quantised weights.*{tensor} \({dtype}\)"):
                type(model).from_pretrained(tmp_path)

    @pytest.mark.parametrize(("parts", "method"), MARKS, ids=[method + str(len(parts)) for parts, method in MARKS])
    def test_names_give_the_method_away(self, parts, method, tmp_path):
        make("llama", "ForCausalLM").save_pretrained(tmp_path)
        layer = "model.layers.1.self_attn.q_proj."

        def edit(tensors):
            for part, dtype in parts.items():
                tensors.pop(layer + part, None)
                if dtype:
                    tensors[layer + part] = np.ones((2, 2), dtype)

        change(tmp_path, edit)
        with pytest.raises(CheckpointError, match=f"quantised weights, by {method}"):
            class_of("llama", "ForCausalLM").from_pretrained(tmp_path)

    def test_float8_alone_is_a_float(self, tmp_path):
        torch = pytest.importorskip("torch")
        model = make("llama", "ForCausalLM")
        model.save_pretrained(tmp_path)
        tensors = {key: torch.tensor(array) for key, array in load_file(tmp_path / "model.safetensors").items()}
        for key in tensors:
            if tensors[key].ndim == 2:
                tensors[key] = tensors[key].to(torch.float8_e4m3fn)
        from safetensors.torch import save_file as save_torch

        save_torch(tensors, tmp_path / "model.safetensors")
        edit_config(tmp_path, dtype=None)
        loaded = class_of("llama", "ForCausalLM").from_pretrained(tmp_path)
        for name, slot in slots_of(loaded).items():
            rows = np.asarray(slot.variable)
            np.testing.assert_array_equal(rows.T if slot.transposed else rows, tensors[name].float().numpy())
        assert class_of("llama", "ForCausalLM").from_pretrained(tmp_path, dtype="auto").variable_dtype == "bfloat16"
        edit_config(tmp_path, quantization_config={"quant_method": "fp8"})
        with pytest.raises(CheckpointError, match=r"quantised weights, by fp8: .*\(float8_e4m3fn\)"):
            class_of("llama", "ForCausalLM").from_pretrained(tmp_path)

    def test_a_configuration_that_was_left_behind(self, tmp_path):
        model = make("llama", "ForCausalLM")
        model.save_pretrained(tmp_path)
        edit_config(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
        with pytest.warns(UserWarning, match="names the quantisation gptq, but the file holds plain"):
            loaded = class_of("llama", "ForCausalLM").from_pretrained(tmp_path)
        np.testing.assert_array_equal(logits(loaded, "llama", "ForCausalLM"), logits(model, "llama", "ForCausalLM"))
        assert "quantization_config" not in loaded.config.to_dict()


WRAPPERS = ["module.", "_orig_mod.", "_fsdp_wrapped_module.", "base_model.model.", "model.", "0.auto_model."]
WRAPPERS += ["net.", "_orig_mod.module.model."]
WRAPPED = [("llama", wrapper, bare) for wrapper in WRAPPERS for bare in (False, True)]
WRAPPED += [(name, "module._orig_mod.", bare) for name in FAMILIES for bare in (False, True)]
WRAPPED += [(name, "model.", False) for name in FAMILIES]


class TestWrappers:
    @pytest.mark.parametrize(("name", "wrapper", "bare"), WRAPPED)
    def test_what_all_names_begin_with(self, name, wrapper, bare, tmp_path):
        head = "Model" if bare else lm_head(name)
        model = make(name, head)
        model.save_pretrained(tmp_path)
        change(tmp_path, lambda tensors: {wrapper + key: array for key, array in tensors.items()})
        loaded = class_of(name, head).from_pretrained(tmp_path)
        for got, want in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(got, want)

    def test_wrappers_inside(self, tmp_path):
        model = make("llama", "ForCausalLM")
        model.save_pretrained(tmp_path)

        def edit(tensors):
            inner = {
                ".layers.0.": ".layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.",
                ".mlp.": "._orig_mod.mlp.",
            }
            renamed = {}
            for key, array in tensors.items():
                for old, new in inner.items():
                    key = key.replace(old, new)
                renamed["_fsdp_wrapped_module." + key] = array
            return renamed

        change(tmp_path, edit)
        loaded = class_of("llama", "ForCausalLM").from_pretrained(tmp_path)
        np.testing.assert_array_equal(logits(loaded, "llama", "ForCausalLM"), logits(model, "llama", "ForCausalLM"))

    def test_what_only_some_names_begin_with(self, tmp_path):
        make("llama", "ForCausalLM").save_pretrained(tmp_path)
        change(tmp_path, lambda tensors: {**{f"student.{k}": v for k, v in tensors.items()}, "teacher.x": np.ones(2)})
        with pytest.raises(CheckpointError, match="in the file but not in the model"):
            class_of("llama", "ForCausalLM").from_pretrained(tmp_path)

    def test_adapters_say_what_to_do(self, tmp_path):
        make("llama", "ForCausalLM").save_pretrained(tmp_path)

        def edit(tensors):
            tensors = {f"base_model.model.{key}": array for key, array in tensors.items()}
            layer = "base_model.model.model.layers.0.self_attn.q_proj"
            tensors[f"{layer}.base_layer.weight"] = tensors.pop(f"{layer}.weight")
            return {**tensors, f"{layer}.lora_A.default.weight": np.ones((2, 16), "float32")}

        change(tmp_path, edit)
        with pytest.raises(CheckpointError, match=r"lora_A.*load_adapter, or merge them first"):
            class_of("llama", "ForCausalLM").from_pretrained(tmp_path)

    def test_two_names_of_one_weight(self, tmp_path):
        model = make("llama", "ForCausalLM")
        model.save_pretrained(tmp_path)
        change(tmp_path, lambda tensors: tensors.update({"norm.weight": tensors["model.norm.weight"].copy()}))
        class_of("llama", "ForCausalLM").from_pretrained(tmp_path)
        change(tmp_path, lambda tensors: tensors.update({"norm.weight": np.full(16, 9, "float32")}))
        with pytest.raises(CheckpointError, match=r"both stand for .*norm\.weight, and differ"):
            class_of("llama", "ForCausalLM").from_pretrained(tmp_path)


# Family -> buffers that files of old versions of transformers and PyTorch hold beside its weights.
OLD_BUFFERS = {
    "bert": {"bert.embeddings.position_ids", "bert.embeddings.token_type_ids"},
    "roberta": {"roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids"},
    "distilbert": {"distilbert.embeddings.position_ids"},
    "mpnet": {"mpnet.embeddings.position_ids"},
    "modernbert": {"model.layers.0.attn.rotary_emb.inv_freq"},
    "gpt2": {"transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"},
    "qwen3": {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"},
}


@pytest.mark.parametrize("name", OLD_BUFFERS)
def test_buffers_and_names_of_norms_of_old_files(name, tmp_path):
    """BERT's first files name a LayerNorm's weights gamma and beta; transformers 4.57 reads that in any family."""
    model = make(name, "ForSequenceClassification")
    model.save_pretrained(tmp_path)

    def edit(tensors):
        ends = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        old = {}
        for key, array in tensors.items():
            last_two = ".".join(key.split(".")[-2:])
            old[key.removesuffix(last_two) + ends.get(last_two, last_two)] = array
        assert name not in ("bert", "mpnet") or any(key.endswith("gamma") for key in old)
        return old | dict.fromkeys(OLD_BUFFERS[name], np.arange(32)[None])

    change(tmp_path, edit)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    np.testing.assert_array_equal(
        logits(loaded, name, "ForSequenceClassification"), logits(model, name, "ForSequenceClassification")
    )


class TestTrainingStates:
    @pytest.fixture
    def state(self, tmp_path):
        model = make("gpt_neox", "ForCausalLM")
        model.save_pretrained(tmp_path)
        torch = pytest.importorskip("torch")
        tensors = {key: torch.tensor(array) for key, array in load_file(tmp_path / "model.safetensors").items()}
        (tmp_path / "model.safetensors").unlink()
        return tmp_path, model, tensors

    @pytest.mark.parametrize("legacy", [False, True])
    def test_the_model_in_a_training_run(self, state, legacy):
        torch = pytest.importorskip("torch")
        folder, model, tensors = state
        optimizer = {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}},
            "param_groups": [{"lr": 0.1}],
        }
        for content in (
            {"model": tensors, "rng_state": torch.get_rng_state(), "epoch": 3},
            {
                "state_dict": {f"model.{key}": tensor for key, tensor in tensors.items()},
                "optimizer_states": [optimizer],
            },
            {"weights": tensors, "step": 7, "loss": 0.5},
            {"model_state_dict": tensors, "ema": dict(tensors), "optimizer_state_dict": optimizer},
        ):
            torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
            loaded = class_of("gpt_neox", "ForCausalLM").from_pretrained(folder)
            np.testing.assert_array_equal(
                logits(loaded, "gpt_neox", "ForCausalLM"), logits(model, "gpt_neox", "ForCausalLM")
            )

    def test_what_is_no_model_says_so(self, state):
        torch = pytest.importorskip("torch")
        folder, _, tensors = state
        optimizer = {"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 0.1}]}
        for content, message in (
            (optimizer, "holds an optimizer's state"),
            ({"a": tensors, "b": tensors}, "several dicts of tensors, 'a', 'b'"),
            ({"model": tensors, "state_dict": tensors}, "several dicts of tensors, 'model', 'state_dict'"),
            ({"epoch": 3}, "no tensors at its top level"),
        ):
            torch.save(content, folder / "pytorch_model.bin")
            with pytest.raises(CheckpointError, match=message):
                class_of("gpt_neox", "ForCausalLM").from_pretrained(folder)


def test_a_misspelt_field_is_told_beside_the_shapes(tmp_path):
    model = make("llama", "ForCausalLM")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["num_key_value_head"] = config.pop("num_key_value_heads")
    (tmp_path / "config.json").write_text(json.dumps({**config, "mine": 1}))
    with pytest.raises(CheckpointError, match="of another shape.* LlamaConfig has no field 'num_key_value_head'; did"):
        type(model).from_pretrained(tmp_path)


class TestSizes:
    @pytest.mark.parametrize("name", FAMILIES)
    @pytest.mark.parametrize(
        "values",
        [
            {"num_hidden_layers": 100_000},
            {"num_hidden_layers": 10**9},
            {"vocab_size": 10**9},
            {"vocab_size": 2**62},
            {"hidden_size": 4 * 10**9},
            {"num_labels": 10**9},
            {"max_position_embeddings": 10**15},
        ],
        ids=str,
    )
    def test_absurd_sizes_are_refused_at_once(self, name, values, tmp_path):
        model = make(name, "ForSequenceClassification")
        model.save_pretrained(tmp_path)
        stored = {type(model.config).aliases.get(key, key): value for key, value in values.items()}
        if "max_position_embeddings" in values and name in ("llama", "gpt_neox", "mpt"):
            pytest.skip("no tensor has this size")
        config = json.loads((tmp_path / "config.json").read_text())
        if "num_labels" in values:
            config.pop("id2label")
            config.pop("label2id")
        if name == "gpt_neo" and "num_hidden_layers" in values:
            config.pop("attention_layers")
            config["attention_types"] = [[["global"], values["num_hidden_layers"]]]
        (tmp_path / "config.json").write_text(json.dumps({**config, **stored}))
        start = time.process_time()
        with pytest.raises(ValueError, match=next(iter(stored)) + "|of another shape|attention_types"):
            type(model).from_pretrained(tmp_path)
        assert time.process_time() - start < 5

    def test_attention_types_are_counted_before_they_are_spelled_out(self):
        for types in ([[["global"], 10**9]], [[["global", "local"], 10**12]], [[["global"], -1]]):
            with pytest.raises(ValueError, match="attention_types"):
                config_of("gpt_neo", attention_types=types)

    def test_a_new_head_beyond_all_measure(self, tmp_path):
        make("llama", "Model").save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="num_labels=1000000000"):
            class_of("llama", "ForSequenceClassification").from_pretrained(tmp_path, num_labels=10**9)

    def test_new_weights_beyond_all_measure(self, tmp_path):
        make("llama", "Model").save_pretrained(tmp_path)
        slot = WeightSlot(keras.KerasTensor((1 << 20, 1 << 20)), transposed=False)
        with (
            open_checkpoint(tmp_path) as checkpoint,
            pytest.raises(CheckpointError, match="is a size in the configuration wrong"),
        ):
            sizes.check_new_weights({"score.weight": slot}, ["score.weight"], checkpoint)


class TestFormats:
    @pytest.fixture
    def folder(self, tmp_path):
        """One model as safetensors, another as pytorch_model.bin."""
        self.first, self.second = make("llama", "ForCausalLM", seed=1), make("llama", "ForCausalLM", seed=2)
        self.second.save_pretrained(tmp_path)
        torch = pytest.importorskip("torch")
        tensors = {key: torch.tensor(array) for key, array in load_file(tmp_path / "model.safetensors").items()}
        torch.save(tensors, tmp_path / "pytorch_model.bin")
        self.first.save_pretrained(tmp_path)
        return tmp_path

    def load(self, folder, **options):
        return logits(class_of("llama", "ForCausalLM").from_pretrained(folder, **options), "llama", "ForCausalLM")

    def test_which_file_is_read(self, folder):
        first, second = (logits(model, "llama", "ForCausalLM") for model in (self.first, self.second))
        for options in ({}, {"use_safetensors": True}, {"use_safetensors": None}):
            np.testing.assert_array_equal(self.load(folder, **options), first)
        for options in ({"use_safetensors": False}, {"from_pt": True}):
            np.testing.assert_array_equal(self.load(folder, **options), second)
        with pytest.raises(FileNotFoundError, match=r"looked for tf_model\.h5, tf_model\.h5\.index\.json"):
            self.load(folder, from_tf=True, use_safetensors=False)
        np.testing.assert_array_equal(self.load(folder, from_flax=True), first)
        (folder / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"looked for model\.safetensors, model\.safetensors\.index"):
            self.load(folder, use_safetensors=True)
        with pytest.raises(ValueError, match="at most one of them"):
            self.load(folder, from_pt=True, from_tf=True)

    def test_variants(self, folder):
        (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
        np.testing.assert_array_equal(self.load(folder, variant="fp16"), logits(self.first, "llama", "ForCausalLM"))
        np.testing.assert_array_equal(self.load(folder), logits(self.second, "llama", "ForCausalLM"))
        with pytest.raises(
            FileNotFoundError, match=r"looked for model\.bf16\.safetensors, model\.safetensors\.index\.bf"
        ):
            self.load(folder, variant="bf16")
        with pytest.raises(ValueError, match="variant='../x'; a word"):
            self.load(folder, variant="../x")

    def test_sharded_variants(self, folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = list(tensors)
        index = {}
        for number, part in enumerate((names[::2], names[1::2]), 1):
            file = f"model.fp16-0000{number}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, folder / file)
            index |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.fp16.json").write_text(json.dumps({"weight_map": index}))
        np.testing.assert_array_equal(self.load(folder, variant="fp16"), logits(self.first, "llama", "ForCausalLM"))

    def test_order(self):
        assert choose_formats() == ("safetensors", "pytorch", "tensorflow", "flax")
        assert choose_formats(use_safetensors=False, from_flax=True) == ("flax",)


def _tf_names(model, suffix):
    """The tensors of a model as a TensorFlow class would have stored them."""
    parameters = {"kernel": "kernel", "gamma": "gamma", "beta": "beta", "bias": "bias", "embeddings": "embeddings"}
    stored = {}
    for name, slot in model.stored_names(slots_of(model)).items():
        *layers, _ = name.split(".")
        stored["/".join((*layers, parameters[slot.variable.name])) + suffix] = np.asarray(slot.variable.value)
    return stored


class TestSafetensorsOfOtherClasses:
    @pytest.mark.parametrize("metadata", [{"format": "tf"}, None])
    @pytest.mark.parametrize("suffix", [":0", ""])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_tensorflow(self, metadata, suffix, dtype, tmp_path):
        model = make("mpnet", "ForSequenceClassification", dtype=dtype)
        model.save_pretrained(tmp_path)
        save_file(_tf_names(model, suffix), tmp_path / "model.safetensors", metadata=metadata)
        loaded = type(model).from_pretrained(tmp_path, dtype=dtype)
        for got, want in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(got, want)

    def test_names_as_they_were(self, tmp_path):
        model = make("mpnet", "Model")
        model.save_pretrained(tmp_path)
        names = set(_tf_names(model, ":0"))
        assert {"embeddings/LayerNorm/beta:0", "encoder/layer/0/attention/attn/q/kernel:0"} <= names
        stored = {
            "mpnet/" + key.replace("encoder/layer/", "encoder/layer_._"): array
            for key, array in _tf_names(model, ":0").items()
        }
        save_file(stored, tmp_path / "model.safetensors", metadata={"format": "tf"})
        loaded = type(model).from_pretrained(tmp_path)
        for got, want in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(got, want)

    @pytest.mark.parametrize("prefix", ["", "tf_bert_for_masked_lm/"])
    def test_shards_of_tensorflow(self, prefix, tmp_path):
        """TFBertForMaskedLM of transformers 4.57 puts its own name before those in the index, not in the shards."""
        model = make("bert", "ForMaskedLM")
        model.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        stored, index = _tf_names(model, ":0"), {}
        for number, part in enumerate((list(stored)[::2], list(stored)[1::2]), 1):
            file = f"model-0000{number}-of-00002.safetensors"
            save_file({key: stored[key] for key in part}, tmp_path / file, metadata={"format": "tf"})
            index |= {prefix + key: file for key in part}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        loaded = type(model).from_pretrained(tmp_path)
        for got, want in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(got, want)
        index["tf_bert_for_masked_lm/bert/more/kernel:0"] = file
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        with pytest.raises(CheckpointError, match=r"bert\.more\.weight' is in .* but it is in none"):
            type(model).from_pretrained(tmp_path)

    @pytest.mark.parametrize("name", ["llama", "gpt_neo"])
    @pytest.mark.parametrize(
        ("metadata", "sharded", "separator"),
        [
            *[(metadata, sharded, ".") for metadata in ({"format": "flax"}, None) for sharded in (False, True)],
            ({"format": "flax"}, False, "/"),
            (None, False, "/"),
            ({"format": "np"}, False, "."),
        ],
    )
    def test_flax(self, name, metadata, sharded, separator, tmp_path):
        model = make(name, "ForCausalLM", dtype="bfloat16", tie_word_embeddings=name == "gpt_neo")
        model.save_pretrained(tmp_path)
        parameters = {"gamma": "scale", "beta": "bias", "embeddings": "embedding"}
        stored = {}
        for key, slot in model.stored_names(slots_of(model)).items():
            last = parameters.get(slot.variable.name, slot.variable.name)
            stored[separator.join((*key.split(".")[:-1], last))] = np.asarray(slot.variable.value)
        if sharded:
            (tmp_path / "model.safetensors").unlink()
            index = {}
            for number, part in enumerate((list(stored)[::2], list(stored)[1::2]), 1):
                file = f"model-0000{number}-of-00002.safetensors"
                save_file({key: stored[key] for key in part}, tmp_path / file, metadata=metadata)
                index |= dict.fromkeys(part, file)
            (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        else:
            save_file(stored, tmp_path / "model.safetensors", metadata=metadata)
        loaded = type(model).from_pretrained(tmp_path, dtype="bfloat16")
        for got, want in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(got, want)


def test_building_again_leaves_no_second_model(tmp_path):
    """A model that turns out to be untied keeps the name that it would have had."""
    make("llama", "ForCausalLM", tie_word_embeddings=False).save_pretrained(tmp_path)
    edit_config(tmp_path, tie_word_embeddings=True)
    keras.backend.clear_session()
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        model = class_of("llama", "ForCausalLM").from_pretrained(tmp_path)
    assert model.name == "tf_llama_for_causal_lm"


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_no_generation_setting_stops_loading(file, tmp_path):
    """A bad one is left out with a warning, a legal one that has no use yet is kept."""
    make("llama", "ForCausalLM").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    odd = {"temperature": "hot", "top_k": -1, "top_p": 1.5, "max_length": -1, "suppress_tokens": [-1]}
    values = {**odd, "num_beams": 4, "do_sample": "false", "bos_token_id": [1, 2]}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    if file == "config.json":
        (tmp_path / "generation_config.json").unlink()
        (tmp_path / "config.json").write_text(json.dumps({**config, **values}))
    with pytest.warns(UserWarning, match="generation configuration is odd") as recorded:
        model = TFAutoModelForCausalLM.from_pretrained(tmp_path)
    said = " ".join(str(warning.message) for warning in recorded)
    for name, value in odd.items():
        assert name in said and getattr(model.generation_config, name, None) != value
    assert model.generation_config.num_beams == 4 and model.generation_config.do_sample is False
