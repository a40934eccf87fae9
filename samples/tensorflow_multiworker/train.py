"""Recognise handwritten digits with MultiWorkerMirroredStrategy: data parallelism in TensorFlow.

On a laptop, one process:          python train.py
Here, as 2 workers:                python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Azure ML starts one worker on each node, which uses all of its GPUs and finds the others through TF_CONFIG. Every
replica has the whole model and learns from its own part of each batch; gradients are summed with an allreduce.
"""

import argparse
import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # from TensorFlow itself, only errors
import tensorflow as tf
from sklearn.datasets import load_digits

TO_LEARN = 1409
"""Of the 1,797 images; the rest are for testing. Like real data, this divides evenly by nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64, help="images per step, over all workers")
    parser.add_argument("--learning-rate", type=float, default=0.004)
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the checkpoint")
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoint")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")

    drop_empty_ps()
    # Before any other use of TensorFlow: it reads TF_CONFIG, and waits for all workers.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index, workers = place()
    print(f"worker {index} of {workers}: {strategy.num_replicas_in_sync} replicas in the world", flush=True)
    train(strategy, args)


def drop_empty_ps() -> None:
    """Azure ML lists parameter servers even if there are none (`"ps":[]`), which crashes TensorFlow 2.13 and later."""
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    if config and not config["cluster"].get("ps"):
        config["cluster"].pop("ps", None)
        os.environ["TF_CONFIG"] = json.dumps(config)


def place() -> tuple[int, int]:
    """The index of this worker and the number of workers. Azure ML names no chief, so worker 0 is the chief."""
    config = json.loads(os.environ.get("TF_CONFIG", '{"cluster": {"worker": [""]}, "task": {"index": 0}}'))
    return config["task"]["index"], len(config["cluster"]["worker"])


def train(strategy: tf.distribute.Strategy, args: argparse.Namespace) -> None:
    with strategy.scope():  # variables created here are mirrored: each replica has a copy, and all copies stay equal
        tf.random.set_seed(0)
        model = network()
        optimizer = tf.keras.optimizers.Adam(args.learning_rate)
        optimizer.build(model.trainable_variables)
        epochs_done = tf.Variable(0, trainable=False, dtype=tf.int64)

    def learn_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.keras.losses.sparse_categorical_crossentropy(labels, model(images), from_logits=True)
            # Divided by the size of the whole batch: the allreduce sums, it does not average.
            loss = tf.reduce_sum(losses) / args.batch_size
        # Sums the gradients of all replicas.
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return tf.reduce_sum(losses)

    @tf.function  # type: ignore[untyped-decorator]
    def learn(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("sum", strategy.run(learn_step, (images, labels)), axis=None)

    def test_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        right = tf.argmax(model(images), axis=1, output_type=tf.int32) == labels
        return tf.reduce_sum(tf.cast(right, tf.float32))

    @tf.function  # type: ignore[untyped-decorator]
    def test(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("sum", strategy.run(test_step, (images, labels)), axis=None)

    checkpoints = Checkpoints(args.output, model=model, optimizer=optimizer, epochs_done=epochs_done)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    checkpoints.load(args.output) or checkpoints.load(args.resume_from)
    learn_set, test_set = digits()
    for epoch in range(int(epochs_done.numpy()) + 1, args.epochs + 1):
        # A different order in each epoch, the same in all workers; each takes its part of every batch. The rest is
        # dropped: a worker might get no image from it, and oneDNN's convolution fails on none (TensorFlow 2.21).
        batches = learn_set.shuffle(TO_LEARN, seed=epoch).batch(args.batch_size, drop_remainder=True)
        start, losses = time.perf_counter(), 0.0
        for images, labels in strategy.experimental_distribute_dataset(batches):
            losses += learn(images, labels)
        learnt = len(batches) * args.batch_size
        images_per_second = learnt / (time.perf_counter() - start)
        report(epoch, loss=float(losses) / learnt, images_per_second=images_per_second)
        epochs_done.assign(epoch)
        checkpoints.save()

    right = sum(float(test(*batch)) for batch in strategy.experimental_distribute_dataset(test_set.batch(256)))
    report(args.epochs, test_accuracy=right / len(test_set))


def digits() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Training and test images, split the same way in every worker."""
    data = load_digits()
    images, labels = (data.images[..., None] / 16).astype("float32"), data.target.astype("int32")
    options = tf.data.Options()
    # There are no files to divide: each worker reads everything, and takes its part of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    order = tf.random.Generator.from_seed(0).uniform([len(labels)]).numpy().argsort()
    learn, test = order[:TO_LEARN], order[TO_LEARN:]
    of = tf.data.Dataset.from_tensor_slices
    return of((images[learn], labels[learn])).with_options(options), of((images[test], labels[test])).with_options(
        options
    )


def network() -> tf.keras.Model:
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )


class Checkpoints:
    """All workers take part in saving; only the chief's files count."""

    def __init__(self, folder: Path, **parts: Any) -> None:
        index, _ = place()
        # Two writers would corrupt the file, so the others write to files that nobody reads.
        self.folder = folder if index == 0 else Path(f"not-the-chief-{index}")
        self.checkpoint = tf.train.Checkpoint(**parts)
        self.manager = tf.train.CheckpointManager(self.checkpoint, str(self.folder), max_to_keep=1)

    def save(self) -> None:
        self.manager.save()

    def load(self, folder: Path | None) -> bool:
        """Resume from the checkpoint in a folder, if there is one. All workers read the chief's."""
        found = tf.train.latest_checkpoint(str(folder)) if folder else None
        if found:
            self.checkpoint.restore(found).assert_consumed()
            if place()[0] == 0:
                print(f"resumes after epoch {int(self.checkpoint.epochs_done.numpy())} of {folder}", flush=True)
        return bool(found)


def report(epoch: int, **metrics: float) -> None:
    if place()[0] != 0:
        return
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only worker 0 needs it

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
