"""Learns y = 3x + 2 with a parameter server. Azure ML names no chief, so worker 0 takes that part.

The other workers do what it sends them, and end when it has ended. The parameter server never ends by itself.
"""

import contextlib
import json
import os
import socket
import time

import tensorflow as tf


def main() -> None:
    config = json.loads(os.environ["TF_CONFIG"])
    (chief, *workers), task = config["cluster"]["worker"], config["task"]
    cluster = tf.train.ClusterSpec({"chief": [chief], "worker": workers, "ps": config["cluster"]["ps"]})
    if task["type"] == "worker" and task["index"] == 0:
        coordinate(cluster, len(workers))
        return
    index = task["index"] - (task["type"] == "worker")
    if task["type"] == "ps":
        print(f"parameter server {index} serves", flush=True)  # before the chief can begin, and end
    while not listens(chief):  # it begins when all serve: who looks for it later might find it gone
        time.sleep(0.1)
    server = tf.distribute.Server(cluster, job_name=task["type"], task_index=index, protocol="grpc")
    if task["type"] == "ps":
        server.join()
    while listens(chief):
        time.sleep(0.1)
    print(f"worker {task['index']} is done")


def coordinate(cluster: tf.train.ClusterSpec, workers: int) -> None:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type="chief", task_id=0, rpc_layer="grpc"
    )
    # Also the chief listens: the others send their answers there.
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        slope, offset = tf.Variable(0.0), tf.Variable(0.0)

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> None:
        x = tf.random.uniform([32])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((slope * x + offset - (3 * x + 2)) ** 2)
        for variable, gradient in zip([slope, offset], tape.gradient(loss, [slope, offset]), strict=True):
            variable.assign_sub(0.3 * gradient)

    for _ in range(300):
        coordinator.schedule(step)
    coordinator.join()
    print(f"{workers} workers; {slope.device} holds y = {slope.numpy():.2f} x + {offset.numpy():.2f}")


def listens(address: str) -> bool:
    """Whether the chief is there: it listens from its start to its end."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False


if __name__ == "__main__":
    main()
