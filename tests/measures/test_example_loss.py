"""Each equation's loss, against the measure of their means and against the definition."""

import numpy as np
import torch

from grokscope import measures


def test_the_means_are_the_losses_and_accuracies(plant):
    trajectory = plant({0: {}, 5: {"unembed.b_U": torch.linspace(-3, 3, 11)}}, biases="all")
    each, mean = (measures.evaluate(name, trajectory) for name in ("example_loss", "loss"))
    for part in ("train", "test"):
        chosen = getattr(trajectory.split, part).numpy()
        np.testing.assert_allclose(each["example_loss"][:, chosen].mean(1), mean[f"{part}_loss"], rtol=1e-6)
        np.testing.assert_allclose(each["is_right"][:, chosen].mean(1), mean[f"{part}_accuracy"])


def test_a_loss_is_minus_the_logarithm_of_the_answers_probability(plant):
    trajectory = plant({0: {}})
    found = measures.evaluate("example_loss", trajectory)
    logits = trajectory.first.model(trajectory.task.inputs)[:, -1].detach().double()
    p = torch.softmax(logits, -1)[torch.arange(121), trajectory.task.labels]
    np.testing.assert_allclose(found["example_loss"][0], -p.log(), rtol=1e-4)
    assert found["is_right"][0].tolist() == (logits.argmax(-1) == trajectory.task.labels).tolist()
