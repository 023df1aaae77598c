"""The constructors that type checkers are shown for configurations, as source."""

from __future__ import annotations

import inspect
import textwrap

from tfmodels.configs.part import ConfigPart, field_types

# Arguments that are kept in another form: parts of `rope_parameters` under their older names, and parts as dicts.
_OTHER_TYPES = {
    "rope_scaling": "dict[str, Any] | None",
    "attn_config": "MptAttentionConfig | dict[str, Any] | None",
}


def constructor(cls: type[ConfigPart]) -> str:
    """`__init__` of a configuration class: what it takes by position, with types and defaults, and anything else.

    A family's source has it below `if TYPE_CHECKING:`, since the real one reads `positional`.
    """
    parts = ["self"]
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            name, default = parameter.name, parameter.default
            kind = _OTHER_TYPES.get(name) or field_types(cls).get(name, "float | None")
            if default is None and "None" not in kind and kind != "Any":
                kind = f"{kind} | None"
            parts.append(f"{name}: {kind} = {default!r}")
    parts.append("**kwargs: Any")
    lines = textwrap.wrap(", ".join(part.replace(" ", "\0") for part in parts), 106, break_long_words=False)
    body = "\n".join(line.replace("\0", " ").replace("'", '"') for line in lines)
    return f"def __init__(\n{textwrap.indent(body, '    ')}\n) -> None: ..."
