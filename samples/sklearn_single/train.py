"""Recognise handwritten digits with scikit-learn: a model that needs no distribution.

On a laptop:                       python train.py
Here, as Azure ML would run it:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster      (a cluster of CPU nodes is enough)

One process, one node, no launcher: this is how most classical models are trained, and a job still gives you the
snapshot, the environment, the metrics and the outputs.
"""

import argparse
import os
import time
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--alpha", type=float, default=0.001, help="strength of the regularisation")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the model")
    args = parser.parse_args()

    data = load_digits()
    learn, test, learn_labels, test_labels = train_test_split(
        data.data / 16, data.target, test_size=0.2, random_state=0
    )
    model, first = load(args.output) or (
        MLPClassifier((32,), alpha=args.alpha, learning_rate_init=0.01, random_state=0),
        0,
    )
    for epoch in range(first, args.epochs):
        order = np.random.default_rng(epoch).permutation(len(learn))
        start = time.perf_counter()
        model.partial_fit(learn[order], learn_labels[order], classes=np.arange(10))
        speed = len(learn) / (time.perf_counter() - start)
        report(epoch + 1, loss=log_loss(learn_labels, model.predict_proba(learn)), images_per_second=speed)
        save(args.output, model, epoch + 1)
    report(args.epochs, test_accuracy=accuracy_score(test_labels, model.predict(test)))


def save(folder: Path, model: MLPClassifier, epochs_done: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump({"model": model, "epochs_done": epochs_done}, folder / "model.part")
    os.replace(folder / "model.part", folder / "model.joblib")  # never an incomplete model


def load(folder: Path) -> tuple[MLPClassifier, int] | None:
    """The checkpoint of an earlier attempt of this run: when Azure ML restarts a job, it resumes from there."""
    if not (folder / "model.joblib").exists():
        return None
    state = joblib.load(folder / "model.joblib")  # can run code from the file: load only your own
    print(f"resumes after epoch {state['epochs_done']} of {folder}", flush=True)
    return state["model"], state["epochs_done"]


def report(epoch: int, **metrics: float) -> None:
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
