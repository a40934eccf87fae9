"""Recognise handwritten digits with parameter servers: asynchronous data parallelism in TensorFlow.

On a laptop, one process:          python train.py
Here, as 3 workers and a server:   python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Parameter servers hold the weights. One worker is the chief and hands out steps; the others take the current weights,
compute a gradient from their own batch, and apply it without waiting for each other. TensorFlow needs a chief in the
cluster, but Azure ML does not name one, so worker 0 takes that role.
"""

import argparse
import contextlib
import json
import os
import socket
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # from TensorFlow itself, only fatal errors
import tensorflow as tf
from sklearn.datasets import load_digits

TO_LEARN = 1409
"""Of the 1,797 images; the rest are for testing."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32, help="images per step of a worker")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the checkpoint")
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoint")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")

    tf.get_logger().setLevel("ERROR")  # otherwise it warns that each save is traced again
    if "TF_CONFIG" not in os.environ:  # python train.py: no servers, no other workers
        train(tf.distribute.get_strategy(), args)
        return
    config = json.loads(os.environ["TF_CONFIG"])
    (chief, *workers), task = config["cluster"]["worker"], config["task"]
    if not workers or not config["cluster"].get("ps"):
        parser.error("a chief needs at least one other worker and one parameter server: 2 nodes, 1 server")
    cluster = tf.train.ClusterSpec({"chief": [chief], "worker": workers, "ps": config["cluster"]["ps"]})
    if task["type"] == "worker" and task["index"] == 0:
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            cluster, task_type="chief", task_id=0, rpc_layer="grpc"
        )
        print(f"worker 0 is the chief of {len(workers)} others", flush=True)
        train(tf.distribute.ParameterServerStrategy(resolver), args)
        return
    serve(cluster, task["type"], task["index"], chief)


def serve(cluster: tf.train.ClusterSpec, kind: str, index: int, chief: str) -> None:
    """Run what the chief asks for until it exits."""
    print(f"{'parameter server' if kind == 'ps' else kind} {index} serves", flush=True)
    while not listens(chief):  # it starts when all serve; afterwards it might be gone already
        time.sleep(0.5)
    server = tf.distribute.Server(
        cluster, job_name=kind, task_index=index if kind == "ps" else index - 1, protocol="grpc"
    )
    if kind == "ps":
        server.join()  # never returns: Azure ML stops it at the end of the job
    while listens(chief):  # a worker's server does not end by itself either
        time.sleep(0.5)


def listens(address: str) -> bool:
    """Whether a task is running: it listens on its port from start to end."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False


def train(strategy: tf.distribute.Strategy, args: argparse.Namespace) -> None:
    learn_set, (test_images, test_labels) = digits()
    with strategy.scope():  # variables created here live on the parameter servers
        tf.random.set_seed(0)
        weights = network()
        epochs_done = tf.Variable(0, trainable=False, dtype=tf.int64)

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> tf.Tensor:
        """One step of one worker, on its own batch."""
        chosen = tf.random.uniform([args.batch_size], maxval=TO_LEARN, dtype=tf.int32)
        images, labels = (tf.gather(part, chosen) for part in learn_set)
        with tf.GradientTape() as tape:
            scores = forward(weights, images)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))
        # Plain gradient descent: with many workers updating them at once, Adam's moments would mean little.
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(args.learning_rate * gradient)
        return loss

    checkpoint = tf.train.Checkpoint(weights=weights, epochs_done=epochs_done)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    load(checkpoint, args.output) or load(checkpoint, args.resume_from)
    saved = tf.train.CheckpointManager(checkpoint, str(args.output), max_to_keep=1)
    run = Steps(strategy)
    for epoch in range(int(epochs_done.numpy()) + 1, args.epochs + 1):
        start, steps = time.perf_counter(), TO_LEARN // args.batch_size
        losses = run(step, steps)
        images_per_second = steps * args.batch_size / (time.perf_counter() - start)
        report(epoch, loss=sum(losses) / steps, images_per_second=images_per_second)
        epochs_done.assign(epoch)
        saved.save()  # only the chief does this, though parameter servers hold the weights

    right = tf.argmax(forward(weights, test_images), axis=1, output_type=tf.int32) == test_labels
    report(args.epochs, test_accuracy=float(tf.reduce_mean(tf.cast(right, tf.float32))))


class Steps:
    """Runs steps on whichever worker is free, or in this process if there are no workers."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        is_alone = not isinstance(strategy, tf.distribute.ParameterServerStrategy)
        self.coordinator = None if is_alone else tf.distribute.coordinator.ClusterCoordinator(strategy)

    def __call__(self, step: tf.types.experimental.PolymorphicFunction, count: int) -> list[float]:
        if self.coordinator is None:
            return [float(step()) for _ in range(count)]
        results = [self.coordinator.schedule(step) for _ in range(count)]  # returns at once
        self.coordinator.join()  # until all are done; the steps of a lost worker are done by another
        return [float(result.fetch()) for result in results]


def digits() -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Images and labels for training and for testing, split the same way in every process."""
    data = load_digits()
    images, labels = (data.images.reshape(-1, 64) / 16).astype("float32"), data.target.astype("int32")
    order = tf.random.Generator.from_seed(0).uniform([len(labels)]).numpy().argsort()
    learn, test = order[:TO_LEARN], order[TO_LEARN:]
    return (images[learn], labels[learn]), (images[test], labels[test])


def network() -> list[tf.Variable]:
    """Two layers of 128, as plain weights, which parameter servers hold."""
    initial = tf.keras.initializers.HeNormal(seed=0)
    return [tf.Variable(v) for a, b in pairwise([64, 128, 128, 10]) for v in (initial((a, b)), tf.zeros(b))]


def forward(weights: list[tf.Variable], images: tf.Tensor) -> tf.Tensor:
    values = images
    for matrix, offset in zip(weights[::2], weights[1::2], strict=True):
        values = (values if matrix is weights[0] else tf.nn.relu(values)) @ matrix + offset
    return values


def load(checkpoint: tf.train.Checkpoint, folder: Path | None) -> bool:
    """Resume from the checkpoint in a folder, if there is one."""
    found = tf.train.latest_checkpoint(str(folder)) if folder else None
    if found:
        checkpoint.read(found)
        print(f"resumes after epoch {int(checkpoint.epochs_done.numpy())} of {folder}", flush=True)
    return bool(found)


def report(epoch: int, **metrics: float) -> None:
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
