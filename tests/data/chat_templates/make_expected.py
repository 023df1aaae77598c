"""Writes expected.json: every template and case rendered by transformers.

    python tests/data/chat_templates/make_expected.py

Needs transformers 5; the tests do not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2

HERE = Path(__file__).parent
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def render(tokenizer: Any, template: str, case: dict[str, Any]) -> list[str]:
    """["text", what is rendered], or ["error", the message of the template]."""
    try:
        return ["text", tokenizer.apply_chat_template(chat_template=template, tokenize=False, **case)]
    except jinja2.TemplateError as error:
        return ["error", str(error)]
    except Exception:  # of Python or of transformers: others word it differently
        return ["error", ""]


def expected(tokenizer: Any) -> dict[str, dict[str, list[str]]]:
    cases = json.loads((HERE / "cases.json").read_text("utf-8"))
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(HERE.glob("*.jinja")):
        template = path.read_text("utf-8")
        found[path.stem] = {name: render(tokenizer, template, case) for name, case in cases.items()}
    return found


def main() -> None:
    import transformers
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)
    content = {"made_with": transformers.__version__, "rendered": expected(tokenizer)}
    (HERE / "expected.json").write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
