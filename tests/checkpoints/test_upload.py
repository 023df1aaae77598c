"""Pushing to the Hub: what arrives there, and what is said when it refuses."""

import json

import hub_server
import pytest

from tfmodels.checkpoints import upload


@pytest.fixture(scope="module")
def hub():
    with hub_server.serve() as server:
        yield server


PUSH = """
import warnings
warnings.simplefilter("error", UserWarning)
from tfmodels import AutoConfig, GenerationConfig, TFLlamaForCausalLM
config = AutoConfig.from_pretrained("stories260K")
print(config.push_to_hub("me/config", token="hf_x", commit_message="The sizes", commit_description="all of them"))
print(config.push_to_hub("me/config", use_auth_token="hf_x"))
GenerationConfig(max_new_tokens=4).push_to_hub("settings", token="hf_x", revision="trial")
model = TFLlamaForCausalLM.from_pretrained("stories260K")
model.save_pretrained("FOLDER/story", push_to_hub=True, token="hf_x", private=True)
model.push_to_hub("me/shards", token="hf_x", max_shard_size="500KB", use_temp_dir=True, safe_serialization=True)
print(config.push_to_hub("me/config", token="hf_x", create_pr=True, commit_message="Please"))
"""


@pytest.mark.slow
def test_what_is_pushed_arrives(hub, tmp_path):
    result = hub.run(PUSH.replace("FOLDER", str(tmp_path)), tmp_path / "home")
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.split()
    assert third == f"{hub.url}/me/config/discussions/7"  # of the pull request, not of a commit to the branch
    assert [one["pull_request"] for one in hub.commits] == [False] * 5 + [True]
    assert first.startswith(f"{hub.url}/me/config/commit/") and second == first
    assert json.loads(hub.repositories["me/config"]["config.json"])["model_type"] == "llama"
    assert json.loads(hub.repositories["me/settings"]["generation_config.json"]) == {"max_new_tokens": 4}
    story = hub.repositories["me/story"]
    assert {"config.json", "generation_config.json", "model.safetensors"} <= story.keys()
    assert {name: (tmp_path / "story" / name).read_bytes() for name in story} == story
    assert "model.safetensors.index.json" in hub.repositories["me/shards"]
    said = [(one["repository"], one["revision"], one["message"]) for one in hub.commits[:5]]
    assert said == [
        ("me/config", "main", "The sizes"),
        ("me/config", "main", "Upload LlamaConfig"),
        ("me/settings", "trial", "Upload GenerationConfig"),
        ("me/story", "main", "Upload files"),
        ("me/shards", "main", "Upload TFLlamaForCausalLM"),
    ]
    assert hub.commits[0]["description"] == "all of them"
    assert {request.authorization for request in hub.requests if request.method == "POST"} == {"Bearer hf_x"}


@pytest.mark.slow
def test_a_refusal_says_what_to_do(hub, tmp_path):
    hub.read_only.add("me/locked")
    code = "from tfmodels import LlamaConfig; LlamaConfig().push_to_hub('me/locked', token='hf_x')"
    result = hub.run(code, tmp_path)
    assert "HubError: 'me/locked' could not be pushed to the Hub. Check its name and that the token" in result.stderr


def test_wrong_arguments_are_told_before_anything_is_written(tmp_path):
    from tfmodels import LlamaConfig

    config = LlamaConfig()
    for give in (
        lambda: config.save_pretrained(tmp_path / "a", push_to_hub=True, repo="x"),
        lambda: config.save_pretrained(tmp_path / "a", organization="x"),
        lambda: config.push_to_hub("a/b", organization="x"),
        lambda: config.push_to_hub("a/b", unknown=1),
        lambda: upload.push_folder(tmp_path, ""),
        lambda: upload.push_folder(tmp_path, "me/repo", create_pr=True, revision="trial"),
        lambda: config.push_to_hub(None),
    ):
        with pytest.raises((TypeError, ValueError), match="repo|organization|unknown|revision"):
            give()
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; a folder was expected"):
        config.save_pretrained(tmp_path / "file")
