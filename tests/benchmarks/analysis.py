"""The speed of cheap measures over many checkpoints of nanda2023: grokscope against a loop over HookedTransformer.

The target is a ratio of at least TARGET_RATIO.

- grokscope evaluates `loss`, `weight_norm` and `embedding` on N_CHECKPOINTS checkpoints.
- The loop loads each checkpoint into one HookedTransformer by `load_state_dict` and runs all p² pairs with
  `run_with_cache`. It then computes the same quantities: losses and accuracies, norms, the distance from
  initialization, the principal components of W_E (scikit-learn), circularity and Fourier norms. It uses as many
  shuffled controls. It is timed on N_SAMPLED checkpoints and scaled.

Both read a run from the disk. They take turns, so a drift of the machine's speed affects both.

How to run: python tests/benchmarks/analysis.py
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from grokscope import Trajectory, environment, measures, tasks
from grokscope.config import RunConfig, presets
from grokscope.model import families
from grokscope.opened_run import data_digest
from grokscope.store.run_store import Record, create

TARGET_RATIO, N_TURNS, N_CHECKPOINTS, N_SAMPLED, SEGMENT_SIZE = 10, 3, 1000, 10, 50
MEASURES = ("loss", "weight_norm", "embedding")
N_COMPONENTS, N_SHUFFLES = 10, 16


def make_run(config: RunConfig, folder: Path, n: int) -> Trajectory:
    """Write and open a run of `n` checkpoints between the initialization and an embedding of three circles."""
    task, split = tasks.load(config.task, config.split_seed)
    model = families.build(config.model, task)
    first = model.initialize(config.init_seed)
    angles = 2 * torch.pi * torch.outer(torch.tensor([14.0, 35, 41]), torch.arange(task.n_elements)) / task.n_elements
    plane = torch.linalg.qr(first["embed.W_E"][:, :6].T @ first["embed.W_E"]).R
    circles = torch.cat([angles.cos(), angles.sin()]).T @ plane
    last = {
        name: tensor + 0.02 * torch.sin(torch.arange(tensor.numel()) + 1.0).view_as(tensor)
        for name, tensor in first.items()
    }
    last["embed.W_E"] = last["embed.W_E"].clone()
    last["embed.W_E"][: task.n_elements] += circles
    record = Record(config, environment.describe("cpu"), data_digest(task, split))
    run = create(folder, record)
    for start in range(0, n, SEGMENT_SIZE):
        steps = list(range(start, min(start + SEGMENT_SIZE, n)))
        checkpoints: list[Mapping[str, np.ndarray]] = [
            {name: torch.lerp(first[name], last[name], step / max(n - 1, 1)).numpy() for name in first}
            for step in steps
        ]
        run.commit(steps, checkpoints, coverage=(steps[0] - 1 if steps[0] else 0, steps[-1]))
    return Trajectory.open(folder)


def evaluate_measures(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """Return the arrays of grokscope's measures."""
    arrays: dict[str, np.ndarray] = {}
    for name in MEASURES:
        arrays |= measures.evaluate(name, trajectory).arrays
    return arrays


def evaluate_loop(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """Return the same quantities from a loop over checkpoints with HookedTransformer's cache."""
    task, split, names = trajectory.task, trajectory.split, trajectory.model.trained
    origin = trajectory.initialization
    assert origin is not None
    hooked = trajectory.model.hooked_transformer(origin)
    rows: list[dict[str, np.ndarray]] = []
    n, rng = task.n_elements, np.random.default_rng(0)
    angles = 2 * np.pi * np.outer(np.arange(1, n // 2 + 1), np.arange(n)) / n
    basis = np.stack([np.cos(angles), np.sin(angles)], 1).reshape(-1, n) * np.sqrt(2 / n)
    orders = [np.arange(n), *(rng.permutation(n) for _ in range(N_SHUFFLES))]
    for step in trajectory.steps:
        parameters = trajectory.at(step).parameters
        hooked.load_state_dict(parameters, strict=False)
        with torch.no_grad():
            logits, _ = hooked.run_with_cache(task.inputs)
            answers = torch.as_tensor(logits)[:, -1].double()
            losses = F.cross_entropy(answers, task.labels, reduction="none")
            is_right = (answers.argmax(-1) == task.labels).double()
            row = {
                "train_loss": losses[split.train].mean(),
                "test_loss": losses[split.test].mean(),
                "loss": losses.mean(),
                "train_accuracy": is_right[split.train].mean(),
                "test_accuracy": is_right[split.test].mean(),
                "accuracy": is_right.mean(),
            }
            norms = {f"weight_norm.{name}": parameters[name].double().norm() for name in names}
            row |= norms
            row["weight_norm"] = torch.stack(list(norms.values())).norm()
            distances = [(parameters[name] - origin[name]).double().norm() for name in names]
            row["distance_from_initialization"] = torch.stack(distances).norm()
        arrays = {name: value.numpy() for name, value in row.items()}
        W_E = hooked.embed.W_E.detach()[:n].double().numpy()
        pca = PCA(N_COMPONENTS)
        arrays["principal_components"] = pca.fit_transform(W_E)
        arrays["explained_variance_ratio"] = pca.explained_variance_ratio_
        circularities, shares = [], []
        for order in orders:
            unit = arrays["principal_components"][order] / np.linalg.norm(arrays["principal_components"], axis=0)
            circularities.append(((basis @ unit) ** 2).reshape(-1, 2, N_COMPONENTS).sum(1).max(0))
            power = ((basis @ W_E[order]) ** 2).sum(-1).reshape(-1, 2).sum(-1)
            shares.append(power / power.sum())
        arrays["component_circularity"], arrays["frequency_shares"] = circularities[0], shares[0]
        rows.append(arrays)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def milliseconds(evaluate: Callable[[Trajectory], object], trajectory: Trajectory) -> float:
    """Return the time per checkpoint."""
    started = time.perf_counter()
    evaluate(trajectory)
    return 1000 * (time.perf_counter() - started) / len(trajectory)


def main() -> None:
    """Print the median times per checkpoint, the time of each measure, and the median ratio."""
    with tempfile.TemporaryDirectory() as folder:
        trajectory = make_run(presets.get("nanda2023"), Path(folder) / "run", N_CHECKPOINTS)
        sample = trajectory.thin(N_SAMPLED)
        for warm_up in (evaluate_measures, evaluate_loop):
            warm_up(sample)
        times = [
            (milliseconds(evaluate_measures, trajectory), milliseconds(evaluate_loop, sample)) for _ in range(N_TURNS)
        ]
        measure_times = {
            name: milliseconds(lambda run, name=name: measures.evaluate(name, run), trajectory) for name in MEASURES
        }
    ours, theirs = (statistics.median(side) for side in zip(*times, strict=True))
    ratios = [loop / own for own, loop in times]
    print(f"{len(trajectory):,} checkpoints, {torch.get_num_threads()} threads")
    per_measure = ", ".join(f"{name} {value:.2f}" for name, value in measure_times.items())
    print(f"grokscope          {ours:7.2f} ms per checkpoint ({per_measure})")
    print(f"HookedTransformer  {theirs:7.2f} ms per checkpoint")
    print(
        f"ratio              {statistics.median(ratios):7.2f} (from {min(ratios):.2f} to {max(ratios):.2f}); "
        f"target: at least {TARGET_RATIO}"
    )


if __name__ == "__main__":
    main()
