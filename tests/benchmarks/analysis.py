"""Cheap measures over many checkpoints of nanda2023: grokscope against a loop over HookedTransformer.

Promised: at least 10 times as fast. Ours is `loss`, `weight_norm` and `embedding` over CHECKPOINTS checkpoints. The
loop loads each checkpoint into one HookedTransformer by `load_state_dict`, runs all p² pairs with `run_with_cache`,
and computes the same quantities: losses and accuracies on train, test and all pairs, norms and the distance from
initialization, the principal components of W_E (scikit-learn), circularity, and the Fourier norms with as many
shuffled controls. It is timed on SAMPLE checkpoints and scaled. Both read a run from the disk, and turns
alternate, so that a drift of the machine's speed hits both.

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
from grokscope.model import transformer
from grokscope.store.run_store import Record, create
from grokscope.trajectory import data_digest

PROMISED, TURNS, CHECKPOINTS, SAMPLE, IN_A_SEGMENT = 10, 3, 1000, 10, 50
MEASURES = ("loss", "weight_norm", "embedding")
N_COMPONENTS, N_SHUFFLES = 10, 16


def make_run(config: RunConfig, folder: Path, n: int) -> Trajectory:
    """Write a run whose `n` checkpoints go from the initialization to an embedding of three circles; open it."""
    task, split = tasks.load(config.task, config.split_seed)
    model = transformer.build(config.model, task)
    first = model.initialize(config.init_seed)
    angle = 2 * torch.pi * torch.outer(torch.tensor([14.0, 35, 41]), torch.arange(task.n_elements)) / task.n_elements
    plane = torch.linalg.qr(first["embed.W_E"][:, :6].T @ first["embed.W_E"]).R
    circles = torch.cat([angle.cos(), angle.sin()]).T @ plane
    last = {name: one + 0.02 * torch.sin(torch.arange(one.numel()) + 1.0).view_as(one) for name, one in first.items()}
    last["embed.W_E"] = last["embed.W_E"].clone()
    last["embed.W_E"][: task.n_elements] += circles
    record = Record(config, environment.present("cpu"), data_digest(task, split))
    run = create(folder, record)
    for start in range(0, n, IN_A_SEGMENT):
        steps = list(range(start, min(start + IN_A_SEGMENT, n)))
        checkpoints: list[Mapping[str, np.ndarray]] = [
            {name: torch.lerp(first[name], last[name], step / max(n - 1, 1)).numpy() for name in first}
            for step in steps
        ]
        run.commit(steps, checkpoints, coverage=(steps[0] - 1 if steps[0] else 0, steps[-1]))
    return Trajectory.open(folder)


def ours(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """Return what grokscope's cheap measures say."""
    found: dict[str, np.ndarray] = {}
    for name in MEASURES:
        found |= measures.evaluate(name, trajectory).arrays
    return found


def theirs(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """Return the same from a loop over checkpoints and HookedTransformer's cache."""
    task, split, names = trajectory.task, trajectory.split, trajectory.model.trained
    origin = trajectory.initialization
    assert origin is not None
    hooked = trajectory.model.hooked(origin)
    rows: list[dict[str, np.ndarray]] = []
    n, rng = task.n_elements, np.random.default_rng(0)
    angle = 2 * np.pi * np.outer(np.arange(1, n // 2 + 1), np.arange(n)) / n
    basis = np.stack([np.cos(angle), np.sin(angle)], 1).reshape(-1, n) * np.sqrt(2 / n)
    orders = [np.arange(n), *(rng.permutation(n) for _ in range(N_SHUFFLES))]
    for step in trajectory.steps:
        parameters = trajectory.at(step).parameters
        hooked.load_state_dict(parameters, strict=False)
        with torch.no_grad():
            logits, _ = hooked.run_with_cache(task.inputs)
            last = torch.as_tensor(logits)[:, -1].double()
            losses = F.cross_entropy(last, task.labels, reduction="none")
            right = (last.argmax(-1) == task.labels).double()
            row = {
                "train_loss": losses[split.train].mean(),
                "test_loss": losses[split.test].mean(),
                "loss": losses.mean(),
                "train_accuracy": right[split.train].mean(),
                "test_accuracy": right[split.test].mean(),
                "accuracy": right.mean(),
            }
            norms = {f"weight_norm.{name}": parameters[name].double().norm() for name in names}
            row |= norms
            row["weight_norm"] = torch.stack(list(norms.values())).norm()
            moved = [(parameters[name] - origin[name]).double().norm() for name in names]
            row["distance_from_initialization"] = torch.stack(moved).norm()
        arrays = {name: one.numpy() for name, one in row.items()}
        W_E = hooked.embed.W_E.detach()[:n].double().numpy()
        pca = PCA(N_COMPONENTS)
        arrays["principal_components"] = pca.fit_transform(W_E)
        arrays["explained_variance_ratio"] = pca.explained_variance_ratio_
        circular, shares = [], []
        for order in orders:
            unit = arrays["principal_components"][order] / np.linalg.norm(arrays["principal_components"], axis=0)
            circular.append(((basis @ unit) ** 2).reshape(-1, 2, N_COMPONENTS).sum(1).max(0))
            power = ((basis @ W_E[order]) ** 2).sum(-1).reshape(-1, 2).sum(-1)
            shares.append(power / power.sum())
        arrays["component_circularity"], arrays["frequency_shares"] = circular[0], shares[0]
        rows.append(arrays)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def milliseconds(evaluate: Callable[[Trajectory], object], trajectory: Trajectory) -> float:
    """Return the time of one checkpoint."""
    started = time.perf_counter()
    evaluate(trajectory)
    return 1000 * (time.perf_counter() - started) / len(trajectory)


def main() -> None:
    """Print both times a checkpoint, what each of our measures takes, and the ratio: medians over the turns."""
    with tempfile.TemporaryDirectory() as folder:
        trajectory = make_run(presets.get("nanda2023"), Path(folder) / "run", CHECKPOINTS)
        few = trajectory.thin(SAMPLE)
        for warm_up in (ours, theirs):
            warm_up(few)
        times = [(milliseconds(ours, trajectory), milliseconds(theirs, few)) for _ in range(TURNS)]
        parts = {
            name: milliseconds(lambda run, name=name: measures.evaluate(name, run), trajectory) for name in MEASURES
        }
    our, their = (statistics.median(side) for side in zip(*times, strict=True))
    ratios = [theirs / ours for ours, theirs in times]
    print(f"{len(trajectory):,} checkpoints, torch's threads: {torch.get_num_threads()}")
    each = ", ".join(f"{name} {part:.2f}" for name, part in parts.items())
    print(f"grokscope          {our:7.2f} ms a checkpoint ({each})")
    print(f"HookedTransformer  {their:7.2f} ms a checkpoint")
    print(
        f"ratio              {statistics.median(ratios):7.2f} (from {min(ratios):.2f} to {max(ratios):.2f}); "
        f"promised: {PROMISED}"
    )


if __name__ == "__main__":
    main()
