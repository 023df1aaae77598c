"""Every task against what transformers' pipelines returned for the same checkpoints (tests/pipeline_cases.py)."""

import functools
import json
import warnings
from pathlib import Path

import pytest
from pipeline_cases import CASES
from pipeline_checkpoints import make_checkpoint

import tfmodels

EXPECTED = json.loads((Path(__file__).parents[1] / "data" / "pipelines" / "expected.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Checkpoint and task to a model, which is loaded once, and a tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def cached(name, task):
        if not (folder / name).is_dir():
            make_checkpoint(name, folder / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = tfmodels.pipeline(task, str(folder / name))
        return pipe.model, pipe.tokenizer

    return lambda name, task: cached(
        name, {"sentiment-analysis": "text-classification", "ner": "token-classification"}.get(task, task)
    )


def check(found, expected, place=""):
    """Numbers to 1e-4, everything else exactly."""
    if isinstance(expected, float):
        assert type(found) is float, f"{place}: {type(found)}"
        assert found == pytest.approx(expected, abs=1e-4), place
    elif isinstance(expected, dict):
        assert list(found) == list(expected), place
        for name in expected:
            check(found[name], expected[name], f"{place}.{name}")
    elif isinstance(expected, list):
        assert type(found) is list, f"{place}: {type(found)}"
        assert len(found) == len(expected), place
        for index, item in enumerate(expected):
            check(found[index], item, f"{place}[{index}]")
    else:
        assert type(found) is type(expected), place
        assert found == expected, place


TASKS = sorted({case.task for case in CASES})
# Checkpoints whose cases are run among the slow tests alone: they differ from others in their architecture.
SLOW = ("gpt_neo_text", "mpt_classes", "mpnet_multi")


def compare(load, task, batch_size, checkpoints):
    wrong = []
    for case, expected in zip(CASES, EXPECTED, strict=True):
        if case.task != task or case.checkpoint not in checkpoints:
            continue
        model, tokenizer = load(case.checkpoint, task)
        options = {**case.options, "jit_compile": False} if task == "text-generation" else case.options
        pipe = tfmodels.pipeline(task, model, tokenizer=tokenizer, batch_size=batch_size, **options)
        try:
            check(pipe(*case.arguments, **case.keywords), expected)
        except Exception as error:
            wrong.append(f"{case}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.filterwarnings("ignore")
def test_results_are_those_of_transformers(load, task):
    compare(load, task, 3, {case.checkpoint for case in CASES} - set(SLOW))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.filterwarnings("ignore")
def test_results_of_single_texts_and_of_other_architectures(load, task):
    compare(load, task, 1, {case.checkpoint for case in CASES})
    compare(load, task, 2, SLOW)
