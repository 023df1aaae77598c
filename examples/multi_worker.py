"""Train one language model in several processes, on one machine or many, each with its part of every batch.

python examples/multi_worker.py                      # two workers on this machine
python examples/multi_worker.py --workers 10.0.0.1:2222,10.0.0.2:2222 --index 0 --checkpoints /shared/run

The second form starts one worker; every machine runs it with the same list and its own index. Started again with the
same folder of checkpoints, which all workers see, a run goes on where it was last saved.

Keras's `fit` does not take dicts of tensors under `MultiWorkerMirroredStrategy`, so the loop is written out: what is
particular to several workers is marked (1) to (5). One worker computes the same numbers as many.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from typing import Any

from helpers import load_tokenizer, read_lines


def read_data(tokenizer: Any, limit: int, max_length: int) -> dict[str, Any]:
    """Stories as ids, mask and labels, (stories, max_length); -100 keeps padding out of the loss."""
    import numpy as np

    stories = [json.loads(line) for line in read_lines("tinystories.jsonl", limit)]
    batch = tokenizer(stories, padding="max_length", truncation=True, max_length=max_length, return_tensors="np")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return {"input_ids": ids, "attention_mask": mask, "labels": np.where(mask == 1, ids, -100)}


def work(options: argparse.Namespace) -> float:
    """Train as one of the workers. Returns the last loss."""
    import keras
    import tensorflow as tf

    from tfmodels import TFAutoModelForCausalLM

    workers = options.workers.split(",")
    # (1) Who takes part; the strategy reads it, and has to be made before TensorFlow computes anything.
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": options.index}}
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    is_first = options.index == 0
    tokenizer = load_tokenizer(options.model)
    data = read_data(tokenizer, options.limit, options.max_length)

    # (2) Variables that all workers share are made in the strategy's scope.
    with strategy.scope():
        model = TFAutoModelForCausalLM.from_pretrained(options.model)
        optimizer = keras.optimizers.AdamW(options.learning_rate, weight_decay=0.1)
        optimizer.build(model.trainable_variables)
    done = tf.Variable(0, dtype=tf.int64)  # steps; each worker counts for itself

    # (3) Each worker saves, as TensorFlow wants it, but only the first where it counts.
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, done=done)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.checkpoints if is_first else scratch
        manager = tf.train.CheckpointManager(checkpoint, folder or scratch, max_to_keep=2)
        latest = tf.train.latest_checkpoint(options.checkpoints) if options.checkpoints else None
        if latest:
            checkpoint.restore(latest).assert_existing_objects_matched()
            print(f"worker {options.index} goes on after step {int(done)}", flush=True)

        # (4) The order of batches follows from the seed alone; workers split each batch.
        rows = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data["labels"]), seed=0)
        batches = rows.repeat().batch(options.batch_size, drop_remainder=True).skip(int(done))
        sharding = tf.data.Options()
        sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        batches = iter(strategy.experimental_distribute_dataset(batches.with_options(sharding)))

        def learn(batch):
            # (5) The model's loss is a mean over its own tokens; all together it is a mean over everybody's. The
            # optimizer adds up the gradients of all workers.
            tokens = tf.math.count_nonzero(batch["labels"][:, 1:] != -100, dtype=tf.float32)
            everybodys = tf.distribute.get_replica_context().all_reduce("sum", tokens)
            with tf.GradientTape() as tape:
                loss = model(**batch, training=True).loss * tokens / everybodys
            weights = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return loss

        @tf.function
        def step():
            return strategy.reduce("sum", strategy.run(learn, args=(next(batches),)), axis=None)

        loss = float("nan")
        while int(done) < options.steps:
            loss = float(step())
            done.assign_add(1)
            if is_first:
                print(f"step {int(done)}: loss {loss:.6f}", flush=True)
            if options.checkpoints and (int(done) % options.save_every == 0 or int(done) == options.steps):
                manager.save()
    return loss


def start_workers(arguments: list[str], count: int) -> int:
    """Run this script as `count` workers of one machine; returns the exit status of the first that fails, or 0."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    workers = ",".join(f"localhost:{one.getsockname()[1]}" for one in sockets)
    for one in sockets:
        one.close()
    command = [sys.executable, __file__, *arguments, "--workers", workers, "--index"]
    running = [subprocess.Popen([*command, str(index)]) for index in range(count)]
    return next((status for status in [process.wait() for process in running] if status), 0)


def main(arguments: list[str] | None = None) -> float | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stories260K", help="folder, hub id, or the bundled stories260K (default)")
    parser.add_argument("--workers", help="host:port of every worker, with commas; this process is one of them")
    parser.add_argument("--index", type=int, default=0, help="which of --workers this process is")
    parser.add_argument("--local", type=int, default=2, help="workers to start here where --workers is not given")
    parser.add_argument("--checkpoints", help="folder that all workers see; a run found there goes on")
    parser.add_argument("--save-every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=8, help="rows of all workers together")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--limit", type=int, default=64, help="use so many stories")
    parser.add_argument("--max-length", type=int, default=128, help="tokens that a story is cut to")
    options = parser.parse_args(arguments)
    if options.workers:
        return work(options)
    status = start_workers(sys.argv[1:] if arguments is None else arguments, options.local)
    if status:
        raise SystemExit(status)
    return None


if __name__ == "__main__":
    main()
