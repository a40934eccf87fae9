"""Learns y = 3x + 2 on all workers: each takes its own part of the data, and all hold the same weights at the end."""

import json
import os

import tensorflow as tf

config = json.loads(os.environ["TF_CONFIG"])
if not config["cluster"].get("ps"):  # TensorFlow dies of an empty list, which Azure ML gives to workers only
    config["cluster"].pop("ps", None)
    os.environ["TF_CONFIG"] = json.dumps(config)
strategy = tf.distribute.MultiWorkerMirroredStrategy()
index, workers = config["task"]["index"], len(config["cluster"]["worker"])

with strategy.scope():
    slope, offset = tf.Variable(0.0), tf.Variable(0.0)


def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((slope * x + offset - y) ** 2)
    context = tf.distribute.get_replica_context()
    gradients = context.all_reduce("mean", tape.gradient(loss, [slope, offset]))
    for variable, gradient in zip([slope, offset], gradients, strict=True):
        variable.assign_sub(0.5 * gradient)
    return loss


@tf.function  # type: ignore[untyped-decorator]
def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return strategy.reduce("mean", strategy.run(step, (x, y)), axis=None)


x = tf.linspace(0.0, 1.0, 60)[index::workers]
for _ in range(150):
    loss = train(x, 3 * x + 2)
print(f"worker {index} of {strategy.num_replicas_in_sync}: y = {slope.numpy():.2f} x + {offset.numpy():.2f}")
print(f"loss {loss.numpy():.6f}")
