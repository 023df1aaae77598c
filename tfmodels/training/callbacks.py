"""Keras callbacks: metrics over whole texts, uploads to the hub, and backups that a kill cannot tear."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmodels.models.losses import IGNORED
from tfmodels.utils.files import write_text
from tfmodels.utils.text import quote


class KerasMetricCallback(keras.callbacks.Callback):
    """Computes metrics at the end of every epoch by a Python function over all predictions.

    Args:
        metric_fn: called with (predictions, labels): NumPy arrays, or dicts of them by name where there are several;
            returns a dict of numbers, which enter the history.
        eval_dataset: a `tf.data.Dataset` of batches with labels, or arrays that become one of `batch_size` rows each.
        output_cols: outputs of the model to hand on; None for all but the loss and caches.
        label_cols: labels among the features, where they are not a part of their own.
        batch_size: rows per batch where `eval_dataset` is not a dataset.
        predict_with_generate: predictions are what `generate` writes instead of logits.
        use_xla_generation: compile `generate`.
        generate_kwargs: arguments of `generate`.

    Raises:
        ValueError: labels that are neither named, nor apart, nor called "labels" or "start_positions" and
            "end_positions"; no `batch_size` for arrays.
        TypeError: `metric_fn` returned something else than a dict.
    """

    def __init__(
        self,
        metric_fn: Callable[[tuple[Any, Any]], Mapping[str, float]],
        eval_dataset: Any,
        output_cols: Sequence[str] | None = None,
        label_cols: Sequence[str] | str | None = None,
        batch_size: int | None = None,
        predict_with_generate: bool = False,
        use_xla_generation: bool = False,
        generate_kwargs: Mapping[str, Any] | None = None,
    ):
        import tensorflow as tf

        super().__init__()
        self.metric_fn = metric_fn
        if not isinstance(eval_dataset, tf.data.Dataset):
            if batch_size is None:
                raise ValueError("batch_size is None; for data that is not a tf.data.Dataset a number is needed.")
            eval_dataset = tf.data.Dataset.from_tensor_slices(eval_dataset).batch(batch_size)
        self.eval_dataset = eval_dataset
        self.output_cols = output_cols
        self.predict_with_generate = predict_with_generate
        self.generate_kwargs = {**(generate_kwargs or {})}
        if predict_with_generate:
            self.generate_kwargs.setdefault("jit_compile", use_xla_generation)
        self.label_cols = self._labels_of(eval_dataset.element_spec, label_cols)

    @staticmethod
    def _labels_of(spec: Any, label_cols: Sequence[str] | str | None) -> list[str] | None:
        """Names of the labels among the features; None where they are apart."""
        features = spec[0] if isinstance(spec, tuple) else spec
        if label_cols is not None:
            names = [label_cols] if isinstance(label_cols, str) else list(label_cols)
            missing = [name for name in names if not isinstance(features, Mapping) or name not in features]
            if missing:
                raise ValueError(f"label_cols={quote(names)}; the features have no {', '.join(missing)}.")
            return names
        if isinstance(spec, tuple) and len(spec) > 1:
            return None
        for names in (["labels"], ["start_positions", "end_positions"]):
            if isinstance(features, Mapping) and all(name in features for name in names):
                return names
        raise ValueError("label_cols is None and the dataset has no labels: name the columns that are labels.")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        predictions, labels = [], []
        for batch in self.eval_dataset:
            features, apart = batch[:2] if isinstance(batch, tuple) else (batch, None)
            predictions.append(self._predict(features))
            labels.append(apart if self.label_cols is None else {name: features[name] for name in self.label_cols})
        found = self.metric_fn((_joined(predictions), _joined(labels)))
        if not isinstance(found, Mapping):
            raise TypeError(f"metric_fn returned {quote(found)}; a dict of numbers by name was expected.")
        if logs is not None:
            logs.update(found)

    def _predict(self, features: Any) -> Any:
        if self.predict_with_generate:
            if not isinstance(features, Mapping):
                return self.model.generate(features, **self.generate_kwargs)
            mask = features.get("attention_mask")
            return self.model.generate(features["input_ids"], attention_mask=mask, **self.generate_kwargs)
        outputs = dict(self.model.predict_on_batch(features))
        names = self.output_cols or [name for name in outputs if name not in ("loss", "past_key_values")]
        return {name: outputs[name] for name in names}


def _joined(batches: list[Any]) -> Any:
    """Arrays of all batches, one after the other; a single array where there is only one name."""
    if isinstance(batches[0], Mapping):
        joined = {name: _joined([batch[name] for batch in batches]) for name in batches[0]}
        return joined if len(joined) > 1 else next(iter(joined.values()))
    if isinstance(batches[0], (list, tuple)):
        joined = [_joined(list(parts)) for parts in zip(*batches, strict=True)]
        return joined if len(joined) > 1 else joined[0]
    arrays = [np.asarray(batch) for batch in batches]
    if arrays[0].ndim > 1:
        # Batches padded to lengths of their own get one; what is added is what losses leave out.
        longest = max(array.shape[1] for array in arrays)
        arrays = [
            np.pad(
                array,
                [(0, 0), (0, longest - array.shape[1])] + [(0, 0)] * (array.ndim - 2),
                constant_values=IGNORED,
            )
            for array in arrays
        ]
    return np.concatenate(arrays)


class PushToHubCallback(keras.callbacks.Callback):
    """Saves the model and uploads it to the hub while it trains; the last upload is complete when `fit` returns.

    Args:
        output_dir: folder that is saved to and uploaded.
        save_strategy: "epoch", "steps" or "no" (only at the end).
        save_steps: batches between uploads with "steps".
        tokenizer: saved and uploaded beside the model.
        hub_model_id: repository; the name of `output_dir` by default.
        hub_token: access token; by default the one that is stored or in the environment.
        checkpoint: with "epoch", also upload the optimizer's state and the epoch, in the folder "checkpoint", from
            which `BackupAndRestore` resumes.
        **model_card_args: fields of the model card, such as `tags=["..."]`, `language="en"`, `license="mit"`.

    Raises:
        ValueError: another `save_strategy`, "steps" without `save_steps`, `checkpoint` without "epoch".
    """

    def __init__(
        self,
        output_dir: Any,
        save_strategy: str = "epoch",
        save_steps: int | None = None,
        tokenizer: Any = None,
        hub_model_id: str | None = None,
        hub_token: str | None = None,
        checkpoint: bool = False,
        **model_card_args: Any,
    ):
        from huggingface_hub import HfApi

        super().__init__()
        save_strategy = str(getattr(save_strategy, "value", save_strategy)).lower()
        if save_strategy not in ("epoch", "steps", "no"):
            raise ValueError(f'save_strategy={quote(save_strategy)}; "epoch", "steps" or "no" was expected.')
        if checkpoint and save_strategy != "epoch":
            raise ValueError(f'checkpoint=True goes with save_strategy="epoch"; got {quote(save_strategy)}.')
        if save_strategy == "steps" and (not isinstance(save_steps, int) or save_steps < 1):
            raise ValueError(f'save_steps={quote(save_steps)}; save_strategy="steps" needs a whole number above 0.')
        self.save_strategy, self.save_steps, self.checkpoint = save_strategy, save_steps, checkpoint
        self.output_dir, self.tokenizer, self.card = Path(output_dir), tokenizer, model_card_args
        self.api = HfApi(token=hub_token)
        wanted = hub_model_id or self.output_dir.absolute().name
        self.hub_model_id = self.api.create_repo(wanted, exist_ok=True).repo_id
        self.history: list[dict[str, Any]] = []
        self.upload: Future | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.history = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.save_strategy == "steps" and (batch + 1) % self.save_steps == 0:
            self._push(f"Training in progress, step {batch + 1}", wait=False)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.history.append({"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}})
        if self.save_strategy == "epoch":
            self._push(f"Training in progress, epoch {epoch + 1}", wait=False, epoch=epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        self._push("End of training", wait=True, epoch=len(self.history))

    def _push(self, message: str, *, wait: bool, epoch: int | None = None) -> None:
        if self.upload is not None:
            if not wait and not self.upload.done():
                return  # the files must not change while they are read; the next save uploads them
            self.upload.result()
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(self.output_dir)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(self.output_dir)
        if self.checkpoint and epoch is not None:
            _write_backup(self.model, self.output_dir / "checkpoint", epoch, 0)
        write_text(self.output_dir / "README.md", self._card_text())
        self.upload = self.api.upload_folder(
            repo_id=self.hub_model_id,
            folder_path=self.output_dir,
            commit_message=message,
            run_as_future=True,
        )
        if wait:
            self.upload.result()

    def _card_text(self) -> str:
        """A model card: its fields as JSON, which YAML includes, and a table of the epochs."""
        fields = {"library_name": "tfmodels", **self.card}
        lines = ["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---", ""]
        lines += [f"# {self.hub_model_id.split('/')[-1]}", "", "Trained with Keras and tfmodels.", ""]
        names = sorted({name for row in self.history for name in row} - {"epoch"})
        if names:
            lines += ["| " + " | ".join(["epoch", *names]) + " |", "|---" * (len(names) + 1) + "|"]
            for row in self.history:
                cells = [str(row["epoch"]), *(f"{row[name]:.4f}" if name in row else "" for name in names)]
                lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


_BACKUP = re.compile(r"epoch-(\d+)-batch-(\d+)\.weights\.h5$")


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """Keras's `BackupAndRestore`, whose backup is one file that is whole or not there, whenever the process is killed.

    Weights, the optimizer's state and the epoch are in one file, which replaces the one before once it is complete.
    Keras writes the weights and the epoch one after the other, in place.

    Args:
        backup_dir: a folder for this run's backup alone.
        save_freq: "epoch", or a number of batches.
        double_checkpoint: keep the backup before the last one too.
        delete_checkpoint: remove the folder when training has ended.

    Example:
        >>> import tempfile
        >>> from tfmodels import TFLlamaForCausalLM
        >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
        >>> model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        >>> backup = BackupAndRestore(tempfile.mkdtemp())
        >>> ids = np.array([[1, 403, 407]])
        >>> history = model.fit({"input_ids": ids, "labels": ids}, epochs=2, verbose=0, callbacks=[backup])
        >>> len(history.history["loss"])
        2
    """

    def on_train_begin(self, logs: Any = None) -> None:
        found = _backups(self.backup_dir)
        if not found:
            return
        (epoch, _), path = found[-1]
        if self.model.optimizer is not None and not self.model.optimizer.built:
            # The file holds the optimizer's variables, which have to exist before it is read.
            self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(path)
        self.model._initial_epoch = epoch  # Keras's own way to start `fit` at a later epoch

    def _save_model(self) -> None:
        keep = 2 if self.double_checkpoint else 1
        _write_backup(self.model, Path(self.backup_dir), self._current_epoch, self._last_batch_seen, keep)

    def on_train_end(self, logs: Any = None) -> None:
        if self.delete_checkpoint:
            shutil.rmtree(self.backup_dir, ignore_errors=True)


def _write_backup(model: keras.Model, folder: Path, epoch: int, batch: int, keep: int = 1) -> None:
    """Add a backup to a folder, and then remove all but the last `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    # `save_weights` of these models is atomic.
    model.save_weights(folder / f"epoch-{epoch:06d}-batch-{batch:08d}.weights.h5")
    for _, path in _backups(folder)[:-keep]:
        path.unlink()


def _backups(folder: Any) -> list[tuple[tuple[int, int], Path]]:
    """Backups of a folder by epoch and batch, the last one last."""
    named = ((_BACKUP.match(path.name), path) for path in Path(folder).glob("*.weights.h5"))
    return sorted(((int(match[1]), int(match[2])), path) for match, path in named if match)
