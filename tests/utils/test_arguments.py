"""Keyword arguments of transformers: each one is done, dropped, warned about or refused in words."""

import warnings

import pytest

from tfmodels.utils.arguments import LOADING, PUSHING, SAVING, settle


def words(text):
    return set(text.split())


# What `from_pretrained` of models, configurations and tokenizers takes in transformers 4.57 and 5.24, the TensorFlow
# classes included; what the functions here take themselves is left out.
LOADED = words(
    """
_adapter_model_path _commit_hash _configuration_file _fast_init _from_auto _from_pipeline adapter_kwargs adapter_name
allow_all_kernels cache_dir device_map device_mesh disable_mmap distributed_config experts_implementation
force_download from_flax from_pt from_tf fusion_config generation_config gguf_file kernel_config key_mapping
load_in_4bit load_in_8bit load_weight_prefix local_files_only low_cpu_mem_usage max_memory mirror offload_buffers
offload_folder offload_state_dict proxies quantization_config resume_download revision state_dict subfolder
tf_to_pt_weight_rename token tp_plan tp_size tqdm_class trust_remote_code use_auth_token use_kernels use_safetensors
variant weights_only use_fast
"""
)
SAVED = words(
    """
save_directory is_main_process state_dict save_function push_to_hub max_shard_size safe_serialization variant token
save_peft_format save_original_format distributed_checkpoint saved_model version signatures create_pr legacy_format
filename_prefix repo_id commit_message private revision commit_description tags use_auth_token
"""
)


@pytest.mark.parametrize(("table", "names"), [(LOADING, LOADED), (SAVING, SAVED)])
def test_every_argument_has_a_fate(table, names):
    assert names - set(table) - {"save_directory"} == set()


@pytest.mark.parametrize("table", [LOADING, SAVING, PUSHING])
def test_no_argument_set_to_nothing_is_an_error(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, fate in table.items():
            for value in fate.neutral:
                settle({name: value}, table, "X")


def test_refusals_name_the_argument_the_value_and_the_way():
    for name, fate in {**LOADING, **SAVING}.items():
        if fate.kind == "refused":
            with pytest.raises(ValueError, match=f"X does not take {name}='asked for': ") as caught:
                settle({name: "asked for"}, {**LOADING, **SAVING}, "X")
            assert fate.note in str(caught.value)


def test_what_remains_is_acted_on():
    kept = settle({"revision": "v1", "device_map": "auto", "use_auth_token": True, "odd": 1}, LOADING, "X")
    assert kept == {"revision": "v1", "token": True, "odd": 1}
    with pytest.raises(TypeError, match="got token twice: also as use_auth_token"):
        settle({"token": "a", "use_auth_token": "b"}, LOADING, "X")


def test_pickled_weights_are_not_written_and_the_user_is_told():
    with pytest.warns(UserWarning, match="safe_serialization=False is ignored: weights are always written as safe"):
        assert settle({"safe_serialization": False}, SAVING, "X") == {}
