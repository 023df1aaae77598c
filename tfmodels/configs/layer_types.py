"""Configurations whose layers are of two kinds: those that see all tokens, and those that see a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmodels.configs.base import ModelConfig
from tfmodels.utils.text import quote

FULL, SLIDING = "full_attention", "sliding_attention"


def check_layer_types(config: ModelConfig) -> None:
    """Raise ValueError unless `config.layer_types` names the kind of every layer.

    Example:
        >>> from tfmodels import ModernBertConfig
        >>> check_layer_types(ModernBertConfig(num_hidden_layers=2, layer_types=[FULL, SLIDING]))
    """
    kinds = config.layer_types
    if not isinstance(kinds, list) or any(kind not in (FULL, SLIDING) for kind in kinds):
        raise ValueError(f"layer_types={quote(kinds)}; a list of {FULL!r} and {SLIDING!r} was expected.")
    if len(kinds) != config.num_hidden_layers:
        raise ValueError(
            f"layer_types={quote(kinds)} describes {len(kinds)} layers; num_hidden_layers={config.num_hidden_layers} "
            f"was expected."
        )


def split_rotary_kinds(values: dict[str, Any], local_theta: str, owner: str) -> dict[str, Any]:
    """The values of a configuration with one spelling of rotary parameters that differ by the kind of layer.

    Args:
        values: as a `config.json` holds them. transformers 5 writes `rope_parameters` of both kinds.
        local_theta: the field that holds the base of windowed layers.
        owner: the configuration's name, for messages.

    Returns:
        The values with `rope_parameters` of the layers that see all, and the base of the others in its field.

    Raises:
        ValueError: windowed layers have more than a base.

    Example:
        >>> both = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
        >>> split_rotary_kinds({"rope_parameters": both}, "local_rope_theta", "Config")
        {'rope_parameters': {'rope_theta': 1000000.0}, 'local_rope_theta': 10000.0}
    """
    both = values.get("rope_parameters")
    if not (isinstance(both, Mapping) and (FULL in both or SLIDING in both)):
        return values
    for kind in (FULL, SLIDING):
        if not isinstance(both.get(kind) or {}, Mapping):
            raise ValueError(f"rope_parameters[{quote(kind)}]={quote(both[kind])} in {owner}; a dict was expected.")
    local = dict(both.get(SLIDING) or {})
    values = {**values, "rope_parameters": both.get(FULL) or {}}
    if local.pop("rope_type", "default") != "default" or local.keys() - {"rope_theta"}:
        raise ValueError(
            f"rope_parameters[{SLIDING!r}]={quote(both[SLIDING])} in {owner}; only rope_theta of type 'default' was "
            f"expected there."
        )
    if "rope_theta" in local:
        values[local_theta] = local["rope_theta"]
    return values
