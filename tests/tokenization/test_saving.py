"""Pushing a tokenizer to the Hub, by itself and while it is saved."""

from __future__ import annotations

import json
from pathlib import Path

import hub_server

PUSH = """
from tfmodels import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("stories260K", chat_template={"default": "d", "tool_use": "t"})
tokenizer.push_to_hub("me/tokenizer", token="hf_x", commit_message="The words")
written = tokenizer.save_pretrained("FOLDER/saved", push_to_hub=True, use_auth_token="hf_x", legacy_format=None)
loaded = AutoTokenizer.from_pretrained("me/tokenizer", token="hf_x")
print(loaded.encode("Once upon"), loaded.get_chat_template(tools=[]), len(written))
"""


def test_what_is_pushed_arrives_and_loads_again(tmp_path: Path):
    with hub_server.serve() as hub:
        result = hub.run(PUSH.replace("FOLDER", str(tmp_path)), tmp_path / "home")
        assert result.returncode == 0, result.stderr
        assert result.stdout.split("\n")[0] == "[1, 403, 407] t 5"
        pushed = hub.repositories["me/tokenizer"]
        assert json.loads(pushed["tokenizer_config.json"])["tfmodels_class"] == "LlamaTokenizer"
        saved = {
            path.relative_to(tmp_path / "saved").as_posix(): path.read_bytes()
            for path in tmp_path.glob("saved/**/*.*")
        }
        assert hub.repositories["me/saved"] == saved == pushed
        assert hub.commits[0]["message"] == "The words"
