from __future__ import annotations

import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hub_server import HubServer, serve

from tfmodels.checkpoints import CheckpointNotFoundError, resolve
from tfmodels.checkpoints.hub import CONFIG_FILES, TOKENIZER_FILES, WEIGHT_FILES, HubError

SINGLE = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b"{ }",
    "tokenizer.model": b"\x0a",
    "model.safetensors": b"safe" * 1000,
    "pytorch_model.bin": b"bin" * 1000,
    "tf_model.h5": b"h5",
    "README.md": b"# m",
    "onnx/model.onnx": b"onnx",
}
SHARDED = {
    "config.json": b"{}",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "model-00001-of-00002.safetensors": b"1" * 500,
    "model-00002-of-00002.safetensors": b"2" * 500,
    "pytorch_model.bin.index.json": b"{}",
    "pytorch_model-00001-of-00001.bin": b"3" * 500,
}
EVERYTHING = "(*CONFIG_FILES, *TOKENIZER_FILES, WEIGHT_FILES)"


@pytest.fixture
def hub():
    with serve() as server:
        server.repositories = {"org/single": SINGLE, "org/sharded": SHARDED}
        yield server


def load(hub: HubServer, home: Path, arguments: str, **environment: str) -> tuple[Path, CompletedProcess[str]]:
    """Call `resolve` in a process of its own; an error becomes its traceback on stderr."""
    hub.requests.clear()
    done = hub.run(
        "from tfmodels.checkpoints.hub import *\n"
        "from tfmodels.checkpoints.hub import CONFIG_FILES, HubError, TOKENIZER_FILES, WEIGHT_FILES\n"
        f"print(resolve({arguments}))",
        home,
        **environment,
    )
    return Path(done.stdout.strip()), done


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def message(done: CompletedProcess[str]) -> str:
    """The last error; the underlying one must be named as its cause."""
    assert done.returncode == 1
    assert "direct cause of the following exception" in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_download_then_cache_then_offline(hub, tmp_path):
    arguments = f"'org/single', patterns={EVERYTHING}"
    folder, first = load(hub, tmp_path, arguments)
    needed = {name: content for name, content in SINGLE.items() if name in {*CONFIG_FILES, *TOKENIZER_FILES}}
    assert contents(folder) == {**needed, "model.safetensors": SINGLE["model.safetensors"]}
    assert sorted(hub.files_fetched()) == sorted(contents(folder))
    assert "Fetching 5 files: 100%" in first.stderr

    again, _ = load(hub, tmp_path, arguments)
    assert again == folder
    assert hub.requests  # the Hub was asked whether anything changed,
    assert hub.files_fetched() == []  # and nothing did

    for changes, environment in (("", {"HF_HUB_OFFLINE": "1"}), (", local_files_only=True", {})):
        offline, done = load(hub, tmp_path, arguments + changes, **environment)
        assert (offline, done.returncode) == (folder, 0)
        assert hub.requests == []

    hub.repositories["org/single"] = {**SINGLE, "model.safetensors": b"changed"}
    changed, _ = load(hub, tmp_path, arguments)
    assert (changed / "model.safetensors").read_bytes() == b"changed"
    assert hub.files_fetched() == ["model.safetensors"]

    _, forced = load(hub, tmp_path, arguments + ", force_download=True")
    assert forced.returncode == 0
    assert sorted(hub.files_fetched()) == sorted(contents(changed))


def test_one_weight_format_is_fetched(hub, tmp_path):
    folder, _ = load(hub, tmp_path, "'org/sharded', patterns=(*CONFIG_FILES, WEIGHT_FILES)")
    safetensors = {name: content for name, content in SHARDED.items() if not name.startswith("pytorch")}
    assert contents(folder) == safetensors
    hub.repositories["org/bin"] = {name: content for name, content in SHARDED.items() if "safetensors" not in name}
    folder, _ = load(hub, tmp_path, "'org/bin', patterns=(*CONFIG_FILES, WEIGHT_FILES)")
    assert contents(folder) == hub.repositories["org/bin"]
    for name in ("org/sharded", "org/bin"):
        _, done = load(hub, tmp_path, f"{name!r}, patterns=(*CONFIG_FILES, WEIGHT_FILES)", HF_HUB_OFFLINE="1")
        assert done.returncode == 0


def test_small_files_alone(hub, tmp_path):
    folder, _ = load(hub, tmp_path, "'org/single', patterns=CONFIG_FILES")
    assert sorted(contents(folder)) == sorted(CONFIG_FILES)
    # What was not fetched is not there offline, and the error says so.
    _, done = load(hub, tmp_path, f"'org/single', patterns={EVERYTHING}", HF_HUB_OFFLINE="1")
    assert "'org/single' is not, or not whole, in the cache" in message(done)
    assert "HF_HUB_OFFLINE" in message(done)
    _, done = load(hub, tmp_path, f"'org/single', patterns={EVERYTHING}, local_files_only=True")
    assert done.returncode == 1
    assert "HubError: 'org/single' is not in the cache" in done.stderr
    assert hub.requests == []


def test_a_cut_connection_is_resumed(hub, tmp_path):
    # huggingface_hub keeps what it got in pieces of 10 MiB.
    weights = bytes(range(256)) * (64 << 10)
    hub.repositories["org/single"] = {**SINGLE, "model.safetensors": weights}
    hub.cut["model.safetensors"] = 12 << 20
    folder, done = load(hub, tmp_path, "'org/single', patterns=(WEIGHT_FILES,)")
    requests = list(hub.requests)
    if done.returncode:  # older versions give up, and go on in the next call
        assert "'org/single' could not be fetched from the Hub" in message(done)
        folder, done = load(hub, tmp_path, "'org/single', patterns=(WEIGHT_FILES,)")
        requests += hub.requests
    assert done.returncode == 0, done.stderr
    assert (folder / "model.safetensors").read_bytes() == weights
    ranges = [request.range for request in requests if request.method == "GET" and "/resolve/" in request.path]
    assert ranges == [None, f"bytes={10 << 20}-"]


def test_repository_that_is_not_there(hub, tmp_path):
    for patterns in ("CONFIG_FILES", "(WEIGHT_FILES,)"):
        _, done = load(hub, tmp_path, f"'org/nothing', patterns={patterns}")
        text = message(done)
        assert "HubError: 'org/nothing' is not on the Hub, or is private" in text
        assert "nor is there a local folder" in text
        assert str(Path("org/nothing").absolute()) in text
        assert "hf auth login" in text


def test_private_repository_takes_a_token(hub, tmp_path):
    hub.tokens["org/single"] = "hf_secret"
    folder, done = load(hub, tmp_path, "'org/single', patterns=(WEIGHT_FILES,), token='hf_secret'")
    assert done.returncode == 0
    assert sorted(contents(folder)) == ["model.safetensors"]
    assert {request.authorization for request in hub.requests if "org/single" in request.path} == {"Bearer hf_secret"}
    _, done = load(hub, tmp_path / "other", "'org/single', patterns=(WEIGHT_FILES,), token='hf_wrong'")
    assert "pass token=" in message(done)
    assert "hf_wrong" not in done.stderr.split("HubError")[-1]


def test_gated_repository(hub, tmp_path):
    hub.gated.add("org/single")
    _, done = load(hub, tmp_path, "'org/single', patterns=(WEIGHT_FILES,)")
    assert "'org/single' is gated on the Hub: ask for access" in message(done)


def test_revisions(hub, tmp_path):
    commit = hub.commit("org/single")
    folder, _ = load(hub, tmp_path, f"'org/single', patterns=(WEIGHT_FILES,), revision={commit!r}")
    assert folder.name == commit
    for patterns in ("CONFIG_FILES", "(WEIGHT_FILES,)"):
        _, done = load(hub, tmp_path, f"'org/single', patterns={patterns}, revision='v9'")
        assert "'org/single' has no revision 'v9' on the Hub" in message(done)


def test_repository_without_weights(hub, tmp_path):
    hub.repositories["org/text"] = {"config.json": b"{}", "model.onnx": b""}
    _, done = load(hub, tmp_path, "'org/text', patterns=(*CONFIG_FILES, WEIGHT_FILES)")
    assert done.returncode == 1
    text = done.stderr.strip().splitlines()[-1]
    assert "'org/text' has no weights that can be read: looked for model.safetensors, model.safetensors.index" in text
    assert "the Hub has 'config.json', 'model.onnx'" in text
    assert hub.files_fetched() == []


def test_subfolder(hub, tmp_path):
    hub.repositories["org/nested"] = {f"inner/{name}": content for name, content in SINGLE.items()}
    folder, done = load(hub, tmp_path, "'org/nested', patterns=(*CONFIG_FILES, WEIGHT_FILES), subfolder='inner'")
    assert done.returncode == 0
    assert sorted(contents(folder)) == sorted([*CONFIG_FILES, "model.safetensors"])
    _, done = load(hub, tmp_path, "'org/nested', patterns=CONFIG_FILES, subfolder='outer'")
    assert "'org/nested' has no folder 'outer'" in done.stderr.splitlines()[-1]


def test_hub_that_is_down(hub, tmp_path):
    arguments = "'org/single', patterns=(*CONFIG_FILES, WEIGHT_FILES)"
    folder, _ = load(hub, tmp_path, arguments)
    hub.broken = True
    again, done = load(hub, tmp_path, arguments)
    assert (again, done.returncode) == (folder, 0)
    _, done = load(hub, tmp_path / "other", arguments)
    assert "'org/single' could not be fetched from the Hub" in message(done)
    assert "500" in message(done)
    hub.url = "http://127.0.0.1:9"  # nothing listens there
    again, done = load(hub, tmp_path, arguments)
    assert (again, done.returncode) == (folder, 0)
    _, done = load(hub, tmp_path / "other", arguments)
    assert "'org/single' could not be fetched from the Hub" in message(done)
    assert "Check the network" in message(done)


def test_cache_folder_of_the_callers(hub, tmp_path):
    folder, done = load(
        hub, tmp_path / "home", f"'org/single', patterns=(WEIGHT_FILES,), cache_dir={str(tmp_path / 'here')!r}"
    )
    assert done.returncode == 0
    assert folder.is_relative_to(tmp_path / "here")


def test_local_folders_are_left_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "model" / "inner").mkdir(parents=True)
    assert resolve(tmp_path / "model", patterns=()) == tmp_path / "model"
    assert resolve(str(tmp_path / "model"), patterns=(), subfolder="inner") == tmp_path / "model" / "inner"
    monkeypatch.chdir(tmp_path)
    assert resolve("model", patterns=()) == Path("model")
    assert resolve("model/inner", patterns=()) == Path("model/inner")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/model", patterns=()) == tmp_path / "model"
    with pytest.raises(CheckpointNotFoundError, match=r"outer does not exist"):
        resolve("model", patterns=(), subfolder="outer")
    with pytest.raises(CheckpointNotFoundError, match=r"xxx \.\.\. does not exist"):
        resolve("model", patterns=(), subfolder="x" * 5000)
    with pytest.raises(CheckpointNotFoundError, match=r"~no-such-user/model"):
        resolve("~no-such-user/model", patterns=())
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointNotFoundError, match=r"is a file; name the folder"):
        resolve("file", patterns=())


@pytest.mark.parametrize(
    "name", ["./model", "../model", "/no/such/model", "~/no-such-model", "a/b/c", "a\\b", Path("a/b")]
)
def test_what_looks_local_is_not_asked_of_the_hub(name):
    with pytest.raises(CheckpointNotFoundError, match=r"There is no folder (/|.*in full: /)"):
        resolve(name, patterns=CONFIG_FILES)


@pytest.mark.parametrize("name", ["", "org/", "org name/model", "org/mo:del", "org/a--b", "org/a..b", "org/modèle"])
def test_what_is_no_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is no model: there is no such folder"):
        resolve(name, patterns=CONFIG_FILES)


def test_patterns_name_what_the_reader_reads():
    singles = [group[0] for group in WEIGHT_FILES.groups]
    files = ["model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"]
    assert singles == [name for file in files for name in (file, f"{file}.index.json")]
    assert WEIGHT_FILES.groups[1] == ("model.safetensors.index.json", "model-*-of-*.safetensors")
    assert WEIGHT_FILES.groups[3] == ("pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
    assert WEIGHT_FILES.groups[5] == ("tf_model.h5.index.json", "tf_model-*-of-*.h5")
    assert WEIGHT_FILES.groups[7] == ("flax_model.msgpack.index.json", "flax_model-*-of-*.msgpack")


@pytest.mark.slow
def test_a_model_asks_once_for_each_file(hub, tmp_path, stories260k):
    """And config.json is parsed once."""
    hub.repositories["org/model"] = {path.name: path.read_bytes() for path in stories260k.iterdir() if path.is_file()}
    program = (
        "import json\n"
        "from tfmodels import TFAutoModelForCausalLM\n"
        "parse, parsed = json.loads, []\n"
        "def loads(text, **options):\n"
        "    value = parse(text, **options)\n"
        "    parsed.extend([value] if isinstance(value, dict) and 'model_type' in value else [])\n"
        "    return value\n"
        "json.loads = loads\n"
        "model = TFAutoModelForCausalLM.from_pretrained('org/model')\n"
        "print(len(parsed), model.count_params())"
    )
    needed = {"config.json", "model.safetensors"} | ({"generation_config.json"} & set(hub.repositories["org/model"]))
    for fetched in (needed, set()):
        hub.requests.clear()
        done = hub.run(program, tmp_path)
        assert done.stdout.split() == ["1", "260032"], done.stderr
        assert sorted(hub.files_fetched()) == sorted(fetched)
        listings = [request for request in hub.requests if request.path.startswith("/api/models/")]
        heads = [request.path for request in hub.requests if request.method == "HEAD"]
        assert len(listings) == 1
        assert len(heads) == max(1, len(fetched)) == len(set(heads))


@pytest.mark.parametrize("subfolder", ["..", "a/../..", "../other", "/tmp", "a\\..\\..\\b"])
def test_a_subfolder_stays_inside(subfolder, tmp_path):
    (tmp_path / "model" / "a").mkdir(parents=True)
    for name in (tmp_path / "model", "org/single"):
        with pytest.raises(ValueError, match=r"subfolder=.*leads out of .*; the name of a folder inside it"):
            resolve(name, patterns=(), subfolder=subfolder)


@pytest.mark.parametrize("gguf_file", ["../x.gguf", "..", "a/x.gguf", "/x.gguf", "*.gguf", ""])
def test_a_gguf_file_is_the_name_of_a_file(gguf_file, tmp_path):
    with pytest.raises(ValueError, match=r"gguf_file=.*the name of a file in the model's folder"):
        resolve(tmp_path, patterns=(), gguf_file=gguf_file)


def test_a_near_folder_is_suggested(tmp_path, monkeypatch):
    """A name that could be the hub's, a path, and a path whose first part is the mistake; GGUF files too."""
    for inner in ("my_model", "models/mine", "other"):
        (tmp_path / inner).mkdir(parents=True)
    (tmp_path / "tiny.gguf").touch()
    monkeypatch.chdir(tmp_path)
    options = {"patterns": CONFIG_FILES, "local_files_only": True, "cache_dir": tmp_path / "cache"}
    for name, near in (
        ("my_modle", "my_model"),
        ("./my_modle", "my_model"),
        ("my modle", "my_model"),
        ("modles/mine", "models/mine"),
        ("models/mien", "models/mine"),
        (tmp_path / "my_modell", tmp_path / "my_model"),
        ("tny.gguf", "tiny.gguf"),
    ):
        with pytest.raises((OSError, ValueError), match=re.escape(f"; did you mean {near}")) as caught:
            resolve(name, **options)
        assert "network" not in str(caught.value)
    for name in ("org/name", "./elsewhere", "modles/nothing"):
        with pytest.raises(OSError, match="in the cache|There is no folder") as caught:
            resolve(name, **options)
        assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["storis260K", "STORIES260K", "Stories15m"])
def test_a_near_name_of_a_bundled_checkpoint_is_suggested(name, tmp_path):
    with pytest.raises(HubError, match=f"'{name}' is not.*did you mean the bundled checkpoint 'stories260K'"):
        resolve(name, patterns=CONFIG_FILES, local_files_only=True, cache_dir=tmp_path)
