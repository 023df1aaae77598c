"""The examples run, offline, and do what they say."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    if str(EXAMPLES) not in sys.path:  # where scripts find their helpers
        sys.path.append(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if "def main(arguments" in path.read_text())


def test_help_needs_no_backend():
    """One process asks every example for its help; none of them may load TensorFlow, Keras or an extra for it."""
    code = """
        import contextlib, importlib.util, io, sys
        for name in sys.argv[2:]:
            spec = importlib.util.spec_from_file_location(name, f"{sys.argv[1]}/{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
                module.main(["--help"])
            assert "usage:" in out.getvalue(), name
        loaded = {"tensorflow", "keras", "matplotlib", "jax", "starlette", "uvicorn", "ray"} & set(sys.modules)
        assert not loaded, loaded
    """
    assert len(SCRIPTS) == 12
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), str(EXAMPLES)])}
    command = [sys.executable, "-c", textwrap.dedent(code), str(EXAMPLES), *SCRIPTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_generate_text(capsys):
    texts = load("generate_text").main(["--max-new-tokens", "12"])
    out = capsys.readouterr().out
    assert texts[0].startswith("Once upon a time, there was a little")
    assert texts[1].startswith("Lily and her dog went to the park")
    streamed = out.split("streamed: ")[1].strip()
    assert texts[0].startswith(streamed) and len(streamed) > len("Once upon a time")


@pytest.mark.slow
def test_fine_tune():
    losses = load("fine_tune").main(["--epochs", "40"])
    assert losses["after"] < 0.5 * losses["before"]


def test_messages_are_split_without_overlap():
    train, test = load("classify_sms").load_messages(lambda texts, **options: {"texts": texts}, 192)
    assert len(test["labels"]) == len(train["labels"]) // 9 and not set(train["texts"]) & set(test["texts"])
    assert 0.1 < np.mean(test["labels"]) < 0.15


def test_answers_are_where_the_data_says():
    module = load("answer_questions")
    lines = load("helpers").read_lines("xquad_en.jsonl")
    questions, contexts, spans = module.load_questions(lines)
    given = [answer for line in lines for _, _, answer in json.loads(line)["questions"]]
    assert len(questions) > 700
    assert [context[slice(*span)] for context, span in zip(contexts, spans, strict=True)] == given


def test_tags_and_words_go_together():
    module = load("tag_entities")
    sentences, labels = module.load_sentences("dev")
    assert len(sentences) == 400 and list(map(len, sentences)) == list(map(len, labels))
    assert [module.TAGS[label] for label in labels[0]][:3] == ["O", "O", "O"]


def test_spearman():
    spearman = load("sentence_similarity").spearman
    assert spearman(np.array([1, 2, 3]), np.array([10, 20, 99])) == pytest.approx(1.0)
    assert spearman(np.array([1, 2, 2, 3]), np.array([1, 3, 2, 4])) == pytest.approx(0.9486833)


def test_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    load("helpers").plot_losses({"loss": [3.0, 2.0], "val_loss": [3.1, 2.5]}, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_classify_sms():
    assert load("classify_sms").main(["--limit", "1200", "--epochs", "4"])["accuracy"] > 0.93


@pytest.mark.slow
def test_tag_entities():
    # By default, as README tells of it: guessing "O" everywhere gives 0.
    assert 0.10 < load("tag_entities").main([])["f1"] < 0.22


@pytest.mark.slow
def test_answer_questions():
    scores = load("answer_questions").main(["--limit", "20", "--epochs", "2"])
    assert scores["f1"] > scores["f1_before"]


@pytest.mark.slow
def test_train_language_model(capsys):
    perplexity = load("train_language_model").main(["--limit", "60", "--epochs", "1"])
    assert perplexity["after"] < perplexity["before"]
    assert "One day, a little girl" in capsys.readouterr().out


@pytest.mark.slow
def test_sentence_similarity():
    correlation = load("sentence_similarity").main(["--limit", "200", "--epochs", "2"])
    assert correlation["after"] > correlation["before"] + 0.05


@pytest.mark.slow
def test_two_towers():
    got = load("two_towers").main(["--limit", "60", "--epochs", "3", "--max-length", "96"])
    assert got["losses"][-1] < got["losses"][0] - 0.05 and 0 < got["after"] <= 1


@pytest.mark.slow
def test_fine_tune_lora():
    # By default, as README tells of it: seven in eight messages are no spam.
    got = load("fine_tune_lora").main([])
    assert 0.95 < got["accuracy"] < 0.99 and got["difference"] < 1e-4 and got["trainable"] < 0.3
