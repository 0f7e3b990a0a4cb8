"""The measures `loss` and `example_loss` against closed forms and against HookedTransformer.

HookedTransformer's forward pass and `F.cross_entropy` share no code with `Model.logits` and `losses`.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from grokscope import Trajectory, measures


def parts(trajectory):
    """Return the indices of the train, the test and all examples by the prefix of their arrays."""
    split = trajectory.split
    return {"train_": split.train, "test_": split.test, "": torch.arange(len(trajectory.task.labels))}


@pytest.mark.parametrize("form", [{"n_layers": 1}, {"n_layers": 2, "normalization_type": "LN", "act_fn": "gelu"}])
def test_losses_and_accuracies_equal_hooked_transformers(plant, form):
    generator = torch.Generator().manual_seed(0)
    shape = plant({0: {}}, **form).model.shapes["unembed.W_U"]
    unembeds = {s: {"unembed.W_U": torch.randn(shape, generator=generator).double()} for s in (0, 10, 20)}
    trajectory = plant(unembeds, **form)
    series = measures.evaluate("loss", trajectory)
    for i, snapshot in enumerate(trajectory):
        logits = snapshot.model(trajectory.task.inputs)[:, -1].detach()
        for prefix, part in parts(trajectory).items():
            labels = trajectory.task.labels[part]
            expected = F.cross_entropy(logits[part], labels).item()
            assert series[f"{prefix}loss"][i] == pytest.approx(expected, rel=1e-10)
            right = (logits[part].argmax(-1) == labels).double().mean().item()
            assert series[f"{prefix}accuracy"][i] == right


def constant_logits(d_model: int, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return parameters under which every example has the same logits."""
    return {"unembed.W_U": torch.zeros(d_model, len(values)), "unembed.b_U": values}


def test_constant_logits_lose_the_log_of_the_number_of_answers(plant):
    series = measures.evaluate("loss", plant({0: constant_logits(16, torch.zeros(11))}))
    for prefix in ("train_", "test_", ""):
        assert series[f"{prefix}loss"].tolist() == pytest.approx([math.log(11)], rel=1e-12)
    assert series["accuracy"].tolist() == pytest.approx([1 / 11])


@pytest.mark.parametrize("loss_dtype", ["float64", "float32"])
def test_tiny_train_loss_is_exact_in_float64_only(plant, loss_dtype):
    """All train answers are 0 and logit 0 leads by 18, so each loses log(1 + 10·e^−18), about 1.5e-7."""
    sums = torch.cartesian_prod(torch.arange(11), torch.arange(11)).sum(1) % 11
    split = (torch.where(sums == 0)[0], torch.where(sums != 0)[0])
    logits = torch.zeros(11)
    logits[0] = 18
    trajectory = plant({0: constant_logits(16, logits)}, split=split, run={"loss_dtype": loss_dtype})
    series = measures.evaluate("loss", trajectory)
    exact = math.log1p(10 * math.exp(-18))
    assert (abs(series["train_loss"][0] / exact - 1) < 1e-7) == (loss_dtype == "float64")
    assert series["test_loss"][0] == pytest.approx(18 + exact, rel=1e-6)
    assert (series["train_accuracy"][0], series["test_accuracy"][0]) == (1, 0)


def test_loss_over_all_is_the_weighted_mean_of_train_and_test(plant):
    trajectory = plant({0: {}, 5: {"embed.W_E": torch.randn(12, 16, generator=torch.Generator().manual_seed(1))}})
    series = measures.evaluate("loss", trajectory)
    n_train, n_test = len(trajectory.split.train), len(trajectory.split.test)
    for quantity in ("loss", "accuracy"):
        mean = (n_train * series[f"train_{quantity}"] + n_test * series[f"test_{quantity}"]) / (n_train + n_test)
        np.testing.assert_allclose(series[quantity], mean, rtol=1e-12)


def test_measure_agrees_with_the_log_of_a_run(tiny_run):
    """Training writes the log; the measure reads checkpoints."""
    trajectory = Trajectory.open(tiny_run)
    series, log = measures.evaluate("loss", trajectory), trajectory.log
    common = np.intersect1d(series.steps, log.steps)
    assert len(common) >= 5
    for name in log.arrays:
        recomputed = series[name][np.isin(series.steps, common)]
        np.testing.assert_allclose(recomputed, log[name][np.isin(log.steps, common)], rtol=1e-12)


def test_means_of_example_losses_are_the_losses(plant):
    trajectory = plant({0: {}, 5: {"unembed.b_U": torch.linspace(-3, 3, 11)}}, biases="all")
    examples, means = (measures.evaluate(name, trajectory) for name in ("example_loss", "loss"))
    for part in ("train", "test"):
        chosen = getattr(trajectory.split, part).numpy()
        np.testing.assert_allclose(examples["example_loss"][:, chosen].mean(1), means[f"{part}_loss"], rtol=1e-6)
        np.testing.assert_allclose(examples["is_right"][:, chosen].mean(1), means[f"{part}_accuracy"])


def test_example_loss_is_minus_the_log_probability_of_the_answer(plant):
    trajectory = plant({0: {}})
    series = measures.evaluate("example_loss", trajectory)
    logits = trajectory.first.model(trajectory.task.inputs)[:, -1].detach().double()
    p = torch.softmax(logits, -1)[torch.arange(121), trajectory.task.labels]
    np.testing.assert_allclose(series["example_loss"][0], -p.log(), rtol=1e-4)
    assert series["is_right"][0].tolist() == (logits.argmax(-1) == trajectory.task.labels).tolist()
