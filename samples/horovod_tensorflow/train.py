"""Recognise handwritten digits with Horovod: data parallelism in TensorFlow, over MPI.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Azure ML starts the processes with its own `mpirun`: no `horovodrun` in the command, and no TF_CONFIG. Every process has
the whole model and learns from its own part of the images; Horovod's tape averages their gradients in each step.
"""

import argparse
import os
import time
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # from TensorFlow itself, only fatal errors
import horovod.tensorflow as hvd
import tensorflow as tf
from sklearn.datasets import load_digits

TO_LEARN = 1409
"""Of the 1,797 images; the rest are for testing. Like real data, this divides evenly by nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="images per step of a process")
    parser.add_argument("--learning-rate", type=float, default=0.004)
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the checkpoint")
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoint")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")

    hvd.init()  # connects the processes that mpirun started; no address, no port
    if gpus := tf.config.list_physical_devices("GPU"):
        # Every process sees all GPUs of its node, so each selects its own.
        tf.config.set_visible_devices(gpus[hvd.local_rank()], "GPU")
    else:
        tf.config.threading.set_intra_op_parallelism_threads(1)  # the processes share the cores
    print(f"rank {hvd.rank()} of {hvd.size()}, {hvd.local_rank()} on node {hvd.cross_rank()}", flush=True)
    train(args)


def train(args: argparse.Namespace) -> None:
    (images, labels), test_set = digits()
    tf.random.set_seed(0)
    model = network()
    optimizer = tf.keras.optimizers.Adam(args.learning_rate)
    optimizer.build(model.trainable_variables)
    epochs_done = tf.Variable(0, trainable=False, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, epochs_done=epochs_done)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    load(checkpoint, args.output) or load(checkpoint, args.resume_from)
    # Only rank 0 has read a checkpoint: all others get its state.
    # `value`, because Horovod needs TensorFlow's variables, which Keras 3 wraps in its own.
    hvd.broadcast_variables([v.value for v in (*model.variables, *optimizer.variables)] + [epochs_done], root_rank=0)
    saved = tf.train.CheckpointManager(checkpoint, str(args.output), max_to_keep=1)

    @tf.function  # type: ignore[untyped-decorator]
    def learn(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.keras.losses.sparse_categorical_crossentropy(labels, model(images), from_logits=True)
            loss = tf.reduce_mean(losses)
        # Averages the gradients of all processes.
        tape = hvd.DistributedGradientTape(tape)
        weights = model.trainable_variables
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return loss

    for epoch in range(int(epochs_done.numpy()) + 1, args.epochs + 1):
        # A different order in each epoch, the same in all processes, with equally many batches: a process with one more
        # would wait for the others forever.
        order = tf.random.Generator.from_seed(epoch).uniform([TO_LEARN]).numpy().argsort()
        mine = order[hvd.rank() :: hvd.size()][: TO_LEARN // hvd.size()]
        start = time.perf_counter()
        steps = [mine[i : i + args.batch_size] for i in range(0, len(mine), args.batch_size)]
        losses = [learn(images[step], labels[step]) for step in steps]
        mean = hvd.allreduce(tf.reduce_mean(losses), name="loss")  # the average, by default
        images_per_second = len(mine) * hvd.size() / (time.perf_counter() - start)
        report(epoch, loss=float(mean), images_per_second=images_per_second)
        epochs_done.assign(epoch)
        if hvd.rank() == 0:  # global rank, not local rank: one checkpoint, written once
            saved.save()

    report(args.epochs, test_accuracy=accuracy(model, *test_set))


def accuracy(model: tf.keras.Model, images: tf.Tensor, labels: tf.Tensor) -> float:
    """Over the whole test set: every process counts its part, then the counts are added up."""
    mine, wanted = images[hvd.rank() :: hvd.size()], labels[hvd.rank() :: hvd.size()]
    right = tf.argmax(model(mine), axis=1, output_type=tf.int32) == wanted
    counts = tf.stack([tf.reduce_sum(tf.cast(right, tf.float32)), float(len(wanted))])
    total = hvd.allreduce(counts, op=hvd.Sum, name="counts")
    return float(total[0] / total[1])


def digits() -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Images and labels for training and for testing, split the same way in every process."""
    data = load_digits()
    images, labels = (data.images[..., None] / 16).astype("float32"), data.target.astype("int32")
    order = tf.random.Generator.from_seed(0).uniform([len(labels)]).numpy().argsort()
    learn, test = order[:TO_LEARN], order[TO_LEARN:]
    return (images[learn], labels[learn]), (images[test], labels[test])


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


def load(checkpoint: tf.train.Checkpoint, folder: Path | None) -> bool:
    """On rank 0, resume from the checkpoint in a folder, if there is one."""
    found = tf.train.latest_checkpoint(str(folder)) if folder and hvd.rank() == 0 else None
    if found:
        checkpoint.restore(found)
        print(f"resumes after epoch {int(checkpoint.epochs_done.numpy())} of {folder}", flush=True)
    return bool(found)


def report(epoch: int, **metrics: float) -> None:
    if hvd.rank() != 0:
        return
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
