"""The attention mask that a model uses for a text, in the terminal and as a PNG.

Nothing here knows how architectures mask: a model is run, and a token sees another one where its attention to it is
not zero. Since masks depend on the configuration alone, a narrow model of the same configuration is run instead of the
real one wherever one can be made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from tfmodels.auto import AutoConfig, TFAutoModel
from tfmodels.configs.base import ModelConfig
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.tokenization import AutoTokenizer
from tfmodels.utils.text import quote
from tfmodels.visualize.png import png

# Widths of the narrow model; fields that a configuration lacks are left out.
_NARROW = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 16,
    "head_dim": 8,
    "rope_parameters": None,
}
# Red, green and blue of a token's own cell, a cell that is seen, one that is not, and the lines between.
_OWN, _SEEN, _HIDDEN, _LINE = (46, 160, 67), (227, 179, 65), (235, 236, 240), (255, 255, 255)
_MARKS = {"own": ("■", "green"), "seen": ("■", "yellow"), "hidden": ("·", "bright_black")}


class AttentionMaskPicture:
    """Which tokens each token of a text sees, layer by layer.

    Attributes:
        title: the model.
        tokens: the tokens.
        masks: pairs of the layers that mask alike, and their mask, bool (tokens, tokens): [i, j] says whether token i
            sees token j. Rows of padding are False.
    """

    def __init__(self, title: str, tokens: Sequence[str], masks: Sequence[tuple[tuple[int, ...], np.ndarray]]):
        self.title, self.tokens, self.masks = title, list(tokens), list(masks)

    def __str__(self) -> str:
        return "\n".join("".join(text for text, _ in line) for line in self._lines())

    def __rich__(self) -> Any:
        from rich.text import Text

        return Text("\n").join(Text.assemble(*line) for line in self._lines())

    def __repr__(self) -> str:
        kinds = ", ".join(kind_of(mask) for _, mask in self.masks)
        return f"AttentionMaskPicture({self.title}, {len(self.tokens)} tokens: {kinds})"

    def _lines(self) -> list[list[tuple[str, str]]]:
        """Lines of (text, style) pairs."""
        width = max(map(len, self.tokens), default=0)
        lines: list[list[tuple[str, str]]] = []
        total = sum(len(layers) for layers, _ in self.masks)
        for layers, mask in self.masks:
            lines.append([(f"{self.title}, {_layers(layers, total)}: {kind_of(mask)}", "bold")])
            for index, token in enumerate(self.tokens):
                line = [(f"{index:4} {token:{width}} ", "")]
                for other in range(len(self.tokens)):
                    mark, style = _MARKS["hidden" if not mask[index, other] else "own" if index == other else "seen"]
                    line.append((f" {mark}", style))
                lines.append(line)
        return lines

    def image(self, cell: int = 12) -> np.ndarray:
        """The masks side by side as pixels, uint8 (height, width, 3).

        Args:
            cell: pixels of a cell's side, the line beside it included.
        """
        pictures = []
        for _, mask in self.masks:
            colours = np.where(mask[..., None], np.array(_SEEN, "uint8"), np.array(_HIDDEN, "uint8"))
            own = np.arange(len(mask))
            colours[own, own] = np.where(np.diag(mask)[:, None], np.array(_OWN, "uint8"), colours[own, own])
            large = colours.repeat(cell, 0).repeat(cell, 1)
            if cell > 2:
                large[::cell] = large[:, ::cell] = _LINE
            pictures += [large, np.full((len(large), cell, 3), 255, "uint8")]
        return np.concatenate(pictures[:-1], axis=1)

    def save(self, path: str | os.PathLike, cell: int = 12) -> None:
        """Write a PNG file: rows see columns, a token's own cell is green, what it sees yellow."""
        Path(path).write_bytes(png(self.image(cell)))

    def _repr_png_(self) -> bytes:
        return png(self.image())


class AttentionMaskVisualizer:
    """Shows the attention mask that a model uses: causal, both ways, windows, padding, packed texts, prefixes.

    Args:
        model: a model, or where one is (its weights are not read).
        tokenizer: for texts; default: from where the model is.
        **options: arguments of the hub, such as `revision`, where `model` is a name.

    Example:
        >>> from tfmodels import AttentionMaskVisualizer
        >>> show = AttentionMaskVisualizer("stories260K")
        >>> print(show("Once upon a time", show=False))
        LlamaModel, all 5 layers: causal
           0 <s>    ■ · · · ·
           1 ▁Once  ■ ■ · · ·
           2 ▁upon  ■ ■ ■ · ·
           3 ▁a     ■ ■ ■ ■ ·
           4 ▁time  ■ ■ ■ ■ ■
        >>> show(packed=["Once", "Hello"], show=False).save("packed.png")  # doctest: +SKIP
    """

    def __init__(self, model: TFPreTrainedModel | str | os.PathLike, tokenizer: Any = None, **options: Any):
        self._place, self._options = None, options
        if isinstance(model, TFPreTrainedModel):
            if options:
                raise TypeError(f"{', '.join(options)}: only for a model that is given by its name.")
            self._place, config = model.config.name_or_path or None, model.config
        elif isinstance(model, (str, os.PathLike)):
            self._place, config = model, AutoConfig.from_pretrained(model, **options)
        else:
            raise TypeError(f"model={quote(model)}; a model of tfmodels, or its name, was expected.")
        self._tokenizer = tokenizer
        kind = TFAutoModel.class_for(config)
        self.title = kind.__name__.removeprefix("TF")
        try:
            self.model = kind(narrowed(config), attn_implementation="eager")
        except (ValueError, TypeError):  # widths that belong together in a way that is not known here
            self.model = model if isinstance(model, TFPreTrainedModel) else kind.from_pretrained(model, **options)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, loaded when it is first needed."""
        if self._tokenizer is None:
            if self._place is None:
                raise ValueError("texts need a tokenizer: give tokenizer=, or input_ids instead of a text.")
            self._tokenizer = AutoTokenizer.from_pretrained(self._place, **self._options)
        return self._tokenizer

    def __call__(
        self,
        text: str | None = None,
        text_pair: str | None = None,
        *,
        packed: Sequence[str] | None = None,
        input_ids: Sequence[int] | None = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        prefix: int | None = None,
        pad_to: int | None = None,
        show: bool = True,
    ) -> AttentionMaskPicture:
        """Make the picture of one row.

        Args:
            text: a text.
            text_pair: its second text.
            packed: texts in one row, told apart by positions that begin anew, as packed training data has them.
            input_ids: ids instead of a text.
            attention_mask: (tokens,), 0 at padding, or (tokens, tokens), nonzero where a token may see another.
            position_ids: (tokens,).
            prefix: so many first tokens see each other, all others what is before them: a mask of pairs, handed to the
                model.
            pad_to: fill the row up with padding, on the tokenizer's side.
            show: print the picture.

        Returns:
            The picture; `save("mask.png")` writes it.

        Raises:
            ValueError: nothing to show, or arguments that do not go together.
        """
        if sum(given is not None for given in (text, packed, input_ids)) != 1:
            raise ValueError("one of text, packed and input_ids is needed.")
        if text_pair is not None and text is None:
            raise ValueError("text_pair is the second text of a pair; text is missing.")
        ids, positions = self._row(text, text_pair, packed, input_ids)
        positions = position_ids if position_ids is not None else positions
        mask = None if attention_mask is None else np.asarray(attention_mask)
        if prefix is not None or pad_to is not None:
            if mask is not None or (prefix is not None and pad_to is not None):
                raise ValueError("attention_mask, prefix and pad_to each make the mask: give one of them.")
            if prefix is not None:
                mask = np.tril(np.ones((len(ids), len(ids)), "int32"))
                mask[:prefix, :prefix] = 1
            else:
                ids, mask, positions = self._padded(ids, positions, pad_to)
        if mask is not None and mask.shape not in ((len(ids),), (len(ids), len(ids))):
            raise ValueError(
                f"attention_mask has shape {mask.shape}; ({len(ids)},) or ({len(ids)}, {len(ids)}) was expected."
            )
        picture = AttentionMaskPicture(self.title, self._names(ids), self._masks(ids, mask, positions))
        if show:
            from rich.console import Console

            Console(highlight=False, soft_wrap=True).print(picture)
        return picture

    def _row(self, text: Any, pair: Any, packed: Any, ids: Any) -> tuple[list[int], list[int] | None]:
        """Ids and, of packed texts, positions."""
        if ids is not None:
            return [int(token) for token in ids], None
        if packed is None:
            return self.tokenizer(text, pair)["input_ids"], None
        rows = [self.tokenizer(one)["input_ids"] for one in packed]
        return [token for row in rows for token in row], [place for row in rows for place in range(len(row))]

    def _padded(self, ids: list[int], positions: Any, length: int) -> tuple[list[int], np.ndarray, Any]:
        if positions is not None:
            raise ValueError("pad_to does not go together with packed texts or position_ids.")
        missing = length - len(ids)
        if missing < 0:
            raise ValueError(f"pad_to={length} is shorter than the {len(ids)} tokens.")
        found = (self.model.config.pad_token_id, None if self._tokenizer is None else self._tokenizer.pad_token_id)
        pad = [next((token for token in found if token is not None), 0)] * missing
        left = self._tokenizer is not None and self._tokenizer.padding_side == "left"
        mask = [0] * missing + [1] * len(ids) if left else [1] * len(ids) + [0] * missing
        return (pad + ids if left else ids + pad), np.asarray(mask, "int32"), None

    def _names(self, ids: list[int]) -> list[str]:
        if self._tokenizer is None:
            return [str(token) for token in ids]
        return [str(token) for token in self._tokenizer.convert_ids_to_tokens(ids)]

    def _masks(self, ids: list[int], mask: Any, positions: Any) -> list[tuple[tuple[int, ...], np.ndarray]]:
        inputs: dict[str, Any] = {"input_ids": np.asarray([ids], "int32")}
        if mask is not None:
            inputs["attention_mask"] = mask[None] if mask.ndim == 1 else mask[None, None]
        if positions is not None:
            inputs["position_ids"] = np.asarray([positions], "int32")
        if "use_cache" in self.model.input_names:
            inputs["use_cache"] = False
        outputs = self.model(**inputs, output_attentions=True, return_dict=True)
        groups: list[tuple[list[int], np.ndarray]] = []
        for layer, weights in enumerate(outputs.attentions):
            seen = ops.convert_to_numpy(ops.max(weights[0], axis=0)) > 0
            if mask is not None and mask.ndim == 1:  # padding that sees nothing spreads its attention over everything
                seen = seen & (mask[:, None] != 0)
            same = next((layers for layers, other in groups if np.array_equal(other, seen)), None)
            if same is None:
                groups.append(([layer], seen))
            else:
                same.append(layer)
        return [(tuple(layers), seen) for layers, seen in groups]


def narrowed(config: ModelConfig) -> ModelConfig:
    """A configuration that masks as the given one does and makes a model of a few thousand weights.

    Example:
        >>> from tfmodels import AutoConfig
        >>> config = narrowed(AutoConfig.from_pretrained("stories260K"))
        >>> config.hidden_size, config.num_hidden_layers
        (16, 5)
    """
    return config.replace(**{name: value for name, value in _NARROW.items() if hasattr(config, name)})


def kind_of(mask: np.ndarray) -> str:
    """The kind of a mask, bool (tokens, tokens), in a few words.

    Example:
        >>> kind_of(np.tril(np.ones((4, 4), bool))), kind_of(np.ones((4, 4), bool))
        ('causal', 'both ways')
        >>> kind_of(np.triu(np.tril(np.ones((4, 4), bool)), -1))
        'causal, window of 2'
    """
    tokens = mask.any(0) | mask.any(1)
    inner = mask[np.ix_(tokens, tokens)]
    padding = "" if tokens.all() else ", padding"
    if inner.all():
        return f"both ways{padding}"
    ones = np.ones_like(inner)
    if np.array_equal(inner, np.tril(ones)):
        return f"causal{padding}"
    for window in range(1, len(inner)):
        if np.array_equal(inner, np.triu(np.tril(ones), 1 - window)):
            return f"causal, window of {window}{padding}"
    return f"causal in parts{padding}" if not np.triu(inner, 1).any() else f"a mask of pairs{padding}"


def _layers(layers: Sequence[int], total: int) -> str:
    """Layers in words, of so many in total.

    Example:
        >>> _layers((0, 1, 2), 3), _layers((1, 3), 4), _layers((4,), 5)
        ('all 3 layers', 'layers 1, 3', 'layer 4')
    """
    if len(layers) == total > 1:
        return f"all {total} layers"
    if len(layers) == 1:
        return f"layer {layers[0]}"
    return f"layers {', '.join(map(str, layers))}"
