"""`Model.initialize`: distributions of the initial weights, and sinusoidal positions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support.small_models import small_model


def test_initial_weights_have_the_deviations_of_the_paper():
    model, _ = small_model(p=113, d_model=128, n_heads=4, d_mlp=512, normalization_type="LN")
    for name, tensor in model.initialize(0).items():
        kind = name.split(".")[-1]
        assert tensor.dtype == torch.float32
        if kind.startswith("W_"):
            expected = (114 if kind == "W_U" else 128) ** -0.5
            # For n normal numbers, the standard error of the deviation is σ/√(2n), and that of the mean is σ/√n.
            assert abs(tensor.std() / expected - 1) < 4 / (2 * tensor.numel()) ** 0.5
            assert abs(tensor.mean()) < 4 * expected / tensor.numel() ** 0.5
        else:
            assert (tensor == (1 if kind == "w" else 0)).all()


def test_initialization_depends_on_seed_and_parameter_name():
    model, _ = small_model(n_layers=2)
    first, repeated, changed = model.initialize(0), model.initialize(0), model.initialize(1)
    assert all(torch.equal(first[name], repeated[name]) for name in first)
    weights = [name for name in first if ".W_" in name]
    assert not any(torch.equal(first[name], changed[name]) for name in weights)
    # All tensors differ, and a deeper model has the same first layer as a shallower one.
    assert len({tuple(first[name].flatten()[:4].tolist()) for name in weights}) == len(weights)
    shallow = small_model(n_layers=1)[0].initialize(0)
    assert all(torch.equal(shallow[name], first[name]) for name in shallow)


def test_init_scale_multiplies_weight_matrices_only():
    plain, scaled = (small_model(init_scale=s, normalization_type="LN")[0].initialize(0) for s in (1.0, 4.0))
    for name, tensor in plain.items():
        torch.testing.assert_close(scaled[name], tensor * (4 if ".W_" in name else 1))


@pytest.mark.parametrize(("d_model", "n_heads"), [(8, 2), (128, 4), (7, 1)])
def test_sinusoids_agree_with_their_paper(d_model: int, n_heads: int):
    """Vaswani et al. 2017, section 3.5: PE(pos, 2i) = sin(pos/10000^(2i/d)), PE(pos, 2i + 1) = cos of the same."""
    model, task = small_model("a ∘ b =", d_model=d_model, n_heads=n_heads, positions="sinusoidal", init_scale=3.0)
    expected = np.empty((4, d_model))
    for position in range(4):
        for column in range(d_model):
            angle = position / 10_000 ** (2 * (column // 2) / d_model)
            expected[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    for seed in (0, 1):
        positions = model.initialize(seed)["pos_embed.W_pos"]
        assert positions.dtype == torch.float32
        np.testing.assert_allclose(positions.numpy(), expected, rtol=0, atol=6e-8)
    parameters = model.initialize(0)
    answers = torch.as_tensor(model.hooked_transformer(parameters)(task.inputs))[:, -1]
    torch.testing.assert_close(model.logits(parameters, task.inputs), answers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("biases", ["all", "mlp", "none"])
def test_sinusoids_change_only_the_training_of_positions(biases: str):
    learned, sinusoidal = (small_model(biases=biases, positions=kind)[0] for kind in ("learned", "sinusoidal"))
    assert set(learned.trained) - set(sinusoidal.trained) == {"pos_embed.W_pos"}
    assert [name for name in learned.trained if name != "pos_embed.W_pos"] == list(sinusoidal.trained)
    assert learned.shapes == sinusoidal.shapes
    first, second = learned.initialize(0), sinusoidal.initialize(0)
    assert all(torch.equal(first[name], second[name]) for name in sinusoidal.trained)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_init_torch_agrees_with_torch_layers(scale: float):
    """Each matrix has the distribution and bounds of a new torch.nn.Linear or Embedding of the same size."""
    model, task = small_model(
        p=97, d_model=96, n_heads=4, d_mlp=200, normalization_type="LN", n_layers=2, init="torch", init_scale=scale
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = {
            "W_U": torch.nn.Linear(96, 97),
            "W_in": torch.nn.Linear(96, 200),
            "W_out": torch.nn.Linear(200, 96),
            **{f"W_{name}": torch.nn.Linear(96, 96) for name in "QKVO"},
        }
        embedding = {"W_E": torch.nn.Embedding(98, 96), "W_pos": torch.nn.Embedding(3, 96)}
        torch_weights = {kind: layer.weight.detach() * scale for kind, layer in (linear | embedding).items()}
    kinds = set()
    for name, tensor in model.initialize(0).items():
        kind = name.split(".")[-1]
        assert tensor.dtype == torch.float32
        if not kind.startswith("W_"):
            assert (tensor == (1 if kind == "w" else 0)).all()
            continue
        kinds.add(kind)
        theirs, ours = torch_weights[kind].flatten().numpy(), tensor.flatten().numpy()
        assert len(ours) == len(theirs)
        assert abs(ours.mean()) < 4 * theirs.std() / len(ours) ** 0.5
        if kind in embedding:
            assert abs(ours.std() / scale - 1) < 4 / (2 * len(ours)) ** 0.5
            assert stats.kstest(ours / scale, "norm").pvalue > 1e-3
        else:
            bound = scale / linear[kind].in_features ** 0.5
            assert 0.999 * bound < abs(ours).max() <= bound * (1 + 1e-6)
            assert 0.999 * bound < abs(theirs).max() <= bound * (1 + 1e-6)
            # For n uniform numbers, the standard error of the deviation is σ/√(5n).
            assert abs(ours.std() / (bound / 3**0.5) - 1) < 4 / (5 * len(ours)) ** 0.5
            assert stats.kstest(ours, "uniform", (-bound, 2 * bound)).pvalue > 1e-3
        # The distance between two samples of n from one distribution exceeds 1.95 √(2/n) once in a thousand times.
        assert stats.ks_2samp(ours, theirs).statistic < 1.95 * (2 / len(ours)) ** 0.5  # pyright: ignore
    assert kinds == set(torch_weights)
