"""Callbacks: metrics over all predictions, uploads, backups that a kill does not tear."""

import json
import types

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels.training.callbacks import BackupAndRestore, KerasMetricCallback, PushToHubCallback

IDS = np.random.default_rng(0).integers(2, 61, (8, 6))
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])


def compiled(head="ForSequenceClassification"):
    model = small.make("llama", head)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    return model


class TestMetrics:
    def seen(self, head, data, **options):
        found = []
        callback = KerasMetricCallback(lambda pair: found.append(pair) or {"share": 0.25}, data, **options)
        model = compiled(head)
        callback.set_model(model)
        logs = {"loss": 1.0}
        callback.on_epoch_end(0, logs)
        assert logs == {"loss": 1.0, "share": 0.25}
        return model, *found[0]

    def test_labels_apart_or_inside(self):
        apart = tf.data.Dataset.from_tensor_slices(({"input_ids": IDS}, LABELS)).batch(3)
        inside = tf.data.Dataset.from_tensor_slices({"input_ids": IDS, "labels": LABELS}).batch(3)
        for data in (apart, inside):
            model, logits, labels = self.seen("ForSequenceClassification", data)
            np.testing.assert_allclose(logits, model(IDS).logits, atol=1e-5)
            np.testing.assert_array_equal(labels, LABELS)

    def test_batches_of_different_lengths_and_several_outputs(self):
        rows = [(IDS[:2, :4], 1), (IDS[2:4], 5)]
        spec = ({"input_ids": tf.TensorSpec((None, None), "int64")}, tf.TensorSpec((None,), "int64"))
        data = tf.data.Dataset.from_generator(
            lambda: iter([({"input_ids": ids}, np.array([n, n])) for ids, n in rows]), output_signature=spec
        )
        _, logits, labels = self.seen("ForTokenClassification", data)
        assert logits.shape == (4, 6, 3) and (logits[:2, 4:] == -100).all() and (logits[2:] != -100).all()
        assert labels.tolist() == [1, 1, 5, 5]
        both = {"input_ids": IDS, "start_positions": LABELS, "end_positions": LABELS}
        data = tf.data.Dataset.from_tensor_slices(both).batch(4)
        _, outputs, labels = self.seen("ForQuestionAnswering", data)
        assert set(outputs) == {"start_logits", "end_logits"} and set(labels) == {"start_positions", "end_positions"}

    def test_what_generate_writes(self):
        data = tf.data.Dataset.from_tensor_slices(({"input_ids": IDS}, LABELS)).batch(4)
        options = {"predict_with_generate": True, "generate_kwargs": {"max_new_tokens": 3, "eos_token_id": None}}
        model, written, _ = self.seen("ForCausalLM", data, **options)
        want = model.generate(IDS, max_new_tokens=3, eos_token_id=None, jit_compile=False)
        np.testing.assert_array_equal(written, want)

    def test_bad_input(self):
        data = tf.data.Dataset.from_tensor_slices({"input_ids": IDS}).batch(4)
        with pytest.raises(ValueError, match="label_cols is None and the dataset has no labels"):
            KerasMetricCallback(dict, data)
        with pytest.raises(ValueError, match="the features have no label"):
            KerasMetricCallback(dict, data, label_cols="label")
        with pytest.raises(ValueError, match="batch_size is None"):
            KerasMetricCallback(dict, {"input_ids": IDS, "labels": LABELS})
        callback = KerasMetricCallback(lambda pair: 0.5, {"input_ids": IDS, "labels": LABELS}, batch_size=8)
        callback.set_model(compiled())
        with pytest.raises(TypeError, match=r"metric_fn returned 0\.5; a dict"):
            callback.on_epoch_end(0, {})


class TestBackup:
    def fit(self, folder, epochs, stop_at=None, **options):
        keras.utils.set_random_seed(0)
        model = small.make("llama", "ForSequenceClassification")
        model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)

        class Interrupt(keras.callbacks.Callback):
            seen = 0

            def on_train_batch_end(self, batch, logs=None):
                self.seen += 1
                if self.seen == stop_at:
                    raise KeyboardInterrupt

        data = tf.data.Dataset.from_tensor_slices(({"input_ids": IDS}, LABELS)).batch(4)
        backup = BackupAndRestore(folder, **options)
        history = model.fit(data, epochs=epochs, verbose=0, callbacks=[backup, Interrupt()])
        return history.history["loss"], model

    def test_an_interrupted_run_goes_on_from_the_last_epoch(self, tmp_path):
        losses, whole = self.fit(tmp_path / "whole", 4)
        with pytest.raises(KeyboardInterrupt):
            self.fit(tmp_path / "broken", 4, stop_at=5)  # two batches an epoch: in the third
        assert [path.name for path in (tmp_path / "broken").iterdir()] == ["epoch-000002-batch-00000000.weights.h5"]
        resumed, model = self.fit(tmp_path / "broken", 4)
        assert resumed == pytest.approx(losses[2:], rel=1e-6) and not (tmp_path / "broken").exists()
        np.testing.assert_allclose(model(IDS).logits, whole(IDS).logits, atol=1e-6)

    def test_the_backup_before_is_kept_where_asked_for(self, tmp_path):
        self.fit(tmp_path, 3, double_checkpoint=True, delete_checkpoint=False)
        names = sorted(path.name[:12] for path in tmp_path.iterdir())
        assert names == ["epoch-000002", "epoch-000003"]

    def test_a_write_that_fails_leaves_the_last_backup(self, tmp_path, monkeypatch):
        model = compiled()
        model.fit({"input_ids": IDS}, LABELS, verbose=0)
        backup = BackupAndRestore(tmp_path)
        backup.set_model(model)
        backup.on_epoch_end(0)
        want = np.asarray(model(IDS).logits)
        model.fit({"input_ids": IDS}, LABELS, verbose=0)

        def fail(self, path, **options):
            path.write_bytes(b"torn")
            raise OSError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(keras.Model, "save_weights", fail)
            with pytest.raises(OSError, match="killed"):
                backup.on_epoch_end(1)
        fresh = compiled()
        restored = BackupAndRestore(tmp_path)
        restored.set_model(fresh)
        restored.on_train_begin()
        np.testing.assert_array_equal(fresh(IDS).logits, want)


class TestPush:
    @pytest.fixture
    def hub(self, monkeypatch):
        """The calls that reach huggingface_hub, without a network."""
        calls = []

        class Api:
            def __init__(self, token=None):
                calls.append(("token", token))

            def create_repo(self, repo_id, exist_ok=False):
                return types.SimpleNamespace(repo_id=f"me/{repo_id}")

            def upload_folder(self, *, repo_id, folder_path, commit_message, run_as_future):
                files = sorted(path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*"))
                calls.append((repo_id, commit_message, files, run_as_future))
                return types.SimpleNamespace(done=lambda: True, result=lambda: None)

        monkeypatch.setattr("huggingface_hub.HfApi", Api)
        return calls

    def test_epochs_and_the_end_are_uploaded(self, hub, tmp_path):
        tokenizer = types.SimpleNamespace(save_pretrained=lambda folder: (folder / "tokenizer.json").write_text("{}"))
        push = PushToHubCallback(tmp_path / "my-model", tokenizer=tokenizer, hub_token="x", tags=["spam"])
        losses = compiled().fit({"input_ids": IDS}, LABELS, epochs=2, verbose=0, callbacks=[push]).history["loss"]
        assert hub[0] == ("token", "x")
        assert [call[1] for call in hub[1:]] == [
            "Training in progress, epoch 1",
            "Training in progress, epoch 2",
            "End of training",
        ]
        assert hub[1][0] == "me/my-model"
        assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(hub[-1][2])
        card = (tmp_path / "my-model" / "README.md").read_text()
        assert 'tags: ["spam"]' in card and f"| 2 | {losses[1]:.4f} |" in card

    def test_steps_checkpoints_and_bad_settings(self, hub, tmp_path):
        push = PushToHubCallback(tmp_path / "m", save_strategy="steps", save_steps=2, hub_model_id="other")
        compiled().fit({"input_ids": IDS}, LABELS, batch_size=2, verbose=0, callbacks=[push])
        assert [call[1] for call in hub[1:]] == [
            "Training in progress, step 2",
            "Training in progress, step 4",
            "End of training",
        ]
        assert hub[1][0] == "me/other"
        push = PushToHubCallback(tmp_path / "c", checkpoint=True)
        model = compiled()
        model.fit({"input_ids": IDS}, LABELS, epochs=2, verbose=0, callbacks=[push])
        resumed = compiled()
        backup = BackupAndRestore(tmp_path / "c" / "checkpoint")
        backup.set_model(resumed)
        backup.on_train_begin()
        assert resumed._initial_epoch == 2
        np.testing.assert_array_equal(resumed(IDS).logits, model(IDS).logits)
        for options, message in (
            ({"save_strategy": "daily"}, "save_strategy='daily'"),
            ({"save_strategy": "steps"}, "save_steps=None"),
            ({"save_strategy": "no", "checkpoint": True}, "checkpoint=True goes with"),
        ):
            with pytest.raises(ValueError, match=message):
                PushToHubCallback(tmp_path, **options)
        assert json.loads((tmp_path / "c" / "config.json").read_text())["model_type"] == "llama"
