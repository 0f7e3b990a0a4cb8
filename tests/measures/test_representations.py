"""The measure `representations` on planted logits and cosets, by brute force over all triples, and at chance."""

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import silhouette_score

from grokscope import Trajectory, measures, tasks
from grokscope.algebra import groups
from grokscope.algebra.groups import Group
from grokscope.algebra.irreps import Representation, irreducible_representations
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.fourier.cyclic import frequency_shares
from grokscope.model import families
from grokscope.model.equation_batch import Equations
from grokscope.model.transformer import Transformer
from grokscope.series import Series

WIDTH = 16


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Planted(Transformer):
    """A model whose logits for (a, b) are those of a table (a, b, c)."""

    table: torch.Tensor = field(kw_only=True)

    def logits(self, parameters, tokens, dropout=None, hook=None):
        assert isinstance(tokens, Equations)
        if hook is not None:  # The hook records the tiny model's neurons.
            super().logits(parameters, tokens, hook=hook)
        return self.table[tokens.tokens[:, 0], tokens.tokens[:, -2]]


def of_task(task: TaskConfig, steps: dict[int, dict[str, torch.Tensor]] | None = None, **model) -> Trajectory:
    """Return a trajectory of a tiny model with the given parameters at each step."""
    shape = dataclasses.replace(ModelConfig(d_model=WIDTH, n_heads=2, d_mlp=24), **model)
    config = RunConfig(task=task, model=shape)
    start = families.build(shape, tasks.build(task)).initialize(0)
    return Trajectory.from_state_dicts(
        config, {step: {**start, **changes} for step, changes in (steps or {0: {}}).items()}
    )


def of_group(name: str, steps: dict[int, dict[str, torch.Tensor]] | None = None, **task) -> Trajectory:
    """Return a trajectory of a tiny model that composes elements of a group."""
    return of_task(TaskConfig(name="composition", group=name, train_fraction=0.5, **task), steps)


@pytest.fixture
def planted(monkeypatch):
    """The function that measures a tiny model whose logits are replaced by a table (a, b, c)."""

    def measured(trajectory: Trajectory, table: torch.Tensor, **options) -> Series:
        real = trajectory.model
        made = Planted(real.config, real.d_vocab, real.d_vocab_out, real.n_ctx, table=table)
        monkeypatch.setitem(trajectory.__dict__, "model", made)
        return measures.evaluate("representations", trajectory, **options)

    return measured


def cube(irrep: Representation, group: Group) -> torch.Tensor:
    """Return Tr ρ(a)ρ(b)ρ(c⁻¹) over all (a, b, c) by multiplying matrices."""
    inverses = irrep.matrices[torch.from_numpy(group.inverse)]
    return torch.einsum("aij,bjk,cki->abc", irrep.matrices, irrep.matrices, inverses)


@pytest.mark.parametrize("name", ["S3", "A4", "D4", "C3xC2xC2"])
def test_logit_quantities_equal_brute_force(name, planted):
    group = groups.group(name)
    n, cubes = len(group), [cube(irrep, group) for irrep in irreducible_representations(group)[1:]]
    table = noise(n, n, n) + sum(2 * character / character.std() / (i + 1) for i, character in enumerate(cubes))
    trajectory = of_group(name)
    series = planted(trajectory, table)
    centred = table - table.mean(-1, keepdim=True)
    expected = [float(F.cosine_similarity(centred.flatten(), character.flatten(), dim=0)) for character in cubes]
    np.testing.assert_allclose(series["logit_similarity"][0], expected, rtol=1e-9)
    key = [i for i, similarity in enumerate(expected) if similarity > max(expected) / 4]
    assert series["key_representations"].tolist() == key
    parts = [(centred * cubes[i]).sum() / cubes[i].square().sum() * cubes[i] for i in key]
    whole, right = torch.stack(parts).sum(0), torch.from_numpy(group.table).flatten()
    np.testing.assert_allclose(
        series["logit_variance_explained"][0], whole.square().sum() / centred.square().sum(), rtol=1e-9
    )
    restricted = F.cross_entropy((whole + centred.mean((0, 1))).flatten(0, 1), right)
    np.testing.assert_allclose(series["restricted_loss"][0], restricted, rtol=1e-9)
    train = trajectory.split.train
    for removed, value in (
        (whole, series["excluded_loss"][0]),
        *zip(parts, series["excluded_loss_by_representation"][0], strict=True),
        (torch.zeros(()), series["train_loss"][0]),
    ):
        loss = F.cross_entropy((table - removed).flatten(0, 1)[train], right[train])
        np.testing.assert_allclose(value, loss, rtol=1e-9)
    np.testing.assert_allclose(series["loss"][0], F.cross_entropy(table.flatten(0, 1), right), rtol=1e-9)


def test_logits_of_characters_are_explained_by_them(planted):
    """The restriction to the characters loses nothing; without them all answers are alike."""
    group = groups.group("S4")
    irreps = irreducible_representations(group)[1:]
    table = 3 * cube(irreps[0], group) + 2 * cube(irreps[2], group)
    series = planted(of_group("S4"), table)
    names = [series.words("representations")[i] for i in series["key_representations"]]
    assert names == ["standard", "standard × sign"]
    np.testing.assert_allclose(series["logit_similarity"][0], [3 / 13**0.5, 0, 2 / 13**0.5, 0], atol=1e-12)
    np.testing.assert_allclose(series["logit_variance_explained"][0], 1)
    np.testing.assert_allclose(series["logit_product_share"][0], 1)
    np.testing.assert_allclose(series["logit_shares"][0], [9 / 13, 0, 4 / 13, 0], atol=1e-12)
    np.testing.assert_allclose(series["restricted_loss"][0], series["loss"][0])
    np.testing.assert_allclose(series["excluded_loss"][0], math.log(24))
    sign_alone = planted(of_group("S4"), cube(irreps[1], group))
    np.testing.assert_allclose(sign_alone["logit_similarity"][0], [0, 1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("name", ["addition", "subtraction", "multiplication", "division"])
def test_cosine_of_one_frequency_is_its_representation(name, planted):
    """cos(2πk(a ± b − c)/n) over positions on the circle has similarity 1."""
    trajectory = of_task(TaskConfig(name=name, p=11, train_fraction=0.5))
    circle, sign = trajectory.task.circle, trajectory.task.circle_sign
    assert circle is not None
    i = torch.arange(len(circle))
    waves = torch.cos(2 * math.pi * 3 * (i[:, None, None] + sign * i[:, None] - i) / len(circle)).double()
    # The logits of tokens off the circle are arbitrary.
    table = noise(11, 11, 11)
    table[circle[:, None, None], circle[:, None], circle] = waves
    series = planted(trajectory, table)
    assert [series.words("representations")[k] for k in series["key_representations"]] == ["2-dim. k=3"]
    np.testing.assert_allclose(series["logit_similarity"][0, 2], 1, rtol=1e-6)
    np.testing.assert_allclose(series["excluded_loss"][0], math.log(len(circle)), rtol=1e-6)


def test_shuffled_similarities_are_those_of_a_relabelled_group(planted):
    group = groups.group("A4")
    irreps, table = irreducible_representations(group)[1:], noise(12, 12, 12)
    series = planted(of_group("A4"), table, n_shuffles=3, seed=5)
    generator = torch.Generator().manual_seed(5)
    centred, samples = table - table.mean(-1, keepdim=True), []
    for _ in range(3):
        order = torch.randperm(12, generator=generator)
        relabelled = [cube(irrep, group)[order][:, order][:, :, order].flatten() for irrep in irreps]
        samples.append([float(F.cosine_similarity(centred.flatten(), character, dim=0)) for character in relabelled])
    np.testing.assert_allclose(series["logit_similarity_shuffled"][0], np.mean(samples, 0), atol=1e-12)
    error = np.std(samples, 0, ddof=1) / 3**0.5
    np.testing.assert_allclose(series["logit_similarity_shuffled_stderr"][0], error, atol=1e-12)


def test_shuffled_elements_hide_planted_representations(planted):
    group = groups.group("S4")
    irrep = irreducible_representations(group)[1]
    weights = {"embed.W_E": F.pad(irrep.matrices.flatten(1), (0, 7, 0, 1)).float()}
    series = planted(of_group("S4", {0: weights}), cube(irrep, group), n_shuffles=32)
    assert series["embedding_shares"][0, 0] > 1 - 1e-6
    shuffled, error = series["embedding_shares_shuffled"][0], series["embedding_shares_shuffled_stderr"][0]
    assert (np.abs(shuffled - series["share_chance"]) < 4 * error).all()
    assert abs(series["logit_similarity_shuffled"][0, 0]) < 0.1


def test_quantities_do_not_depend_on_the_batch_sizes(monkeypatch):
    trajectory = of_group("S4")
    whole = measures.evaluate("representations", trajectory)
    monkeypatch.setattr("grokscope.circuits.pairs._LOGITS_PER_BATCH", 2400)
    monkeypatch.setattr("grokscope.circuits.group_neurons._ACTIVATIONS_PER_BATCH", 576 * 5)
    monkeypatch.setattr("grokscope.circuits.group_neurons._PAIRS_PER_BATCH", 100)
    parts = measures.evaluate("representations", trajectory)
    for name in whole.arrays:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("layers", [1, 2])
def test_neuron_shares_equal_those_of_projectors(layers):
    trajectory = of_task(TaskConfig(name="composition", group="S3", train_fraction=0.5), n_layers=layers)
    series = measures.evaluate("representations", trajectory)
    group = groups.group("S3")
    _, cache = trajectory.first.model.run_with_cache(trajectory.task.inputs)
    values = cache[f"blocks.{layers - 1}.mlp.hook_post"][:, -1].double()
    values = values - values.mean(0)
    mean = torch.full((6, 6), 1 / 6, dtype=torch.float64)
    a, b = torch.cartesian_prod(torch.arange(6), torch.arange(6)).unbind(1)
    product = torch.from_numpy(group.table)[a, b]
    for i, irrep in enumerate(irreducible_representations(group)[1:]):
        quotient = torch.from_numpy(group.table[group.inverse])
        P = irrep.dimension / (irrep.commutant * 6) * irrep.character[quotient]
        operand = [torch.kron(P, mean) @ values, torch.kron(mean, P) @ values]
        # The projector on functions of a·b averages over the pairs of a product, then applies P.
        of_product = P[product][:, product] / 6 @ values
        total = values.square().sum()
        expected = sum(part.square().sum() for part in operand) / total
        np.testing.assert_allclose(series["neuron_operand_shares"][0, i], expected, rtol=1e-5)
        expected = expected + (torch.kron(P, P) @ values).square().sum() / total
        np.testing.assert_allclose(series["neuron_shares"][0, i], expected, rtol=1e-5)
        np.testing.assert_allclose(
            series["neuron_product_shares"][0, i], of_product.square().sum() / total, rtol=1e-5
        )


@pytest.mark.parametrize("name", ["addition", "division"])
def test_shares_of_a_circular_task_are_its_frequency_shares(name):
    trajectory = of_task(TaskConfig(name=name, p=13, train_fraction=0.5))
    series = measures.evaluate("representations", trajectory)
    tokens = trajectory.task.circle
    for share, points in (("embedding", "embed.W_E"), ("unembedding", "unembed.W_U")):
        values = trajectory.parameter(points)[0].double()
        expected = frequency_shares((values if share == "embedding" else values.T)[tokens])
        np.testing.assert_allclose(series[f"{share}_shares"][0], expected, rtol=1e-9)


def test_untrained_model_is_near_chance():
    series = measures.evaluate("representations", of_group("S5"), n_shuffles=2)
    chance = series["share_chance"]
    for name in ("embedding_shares", "unembedding_shares"):
        # Each of WIDTH columns is a sum of (n − 1)·share squares.
        error = np.sqrt(2 * chance * (1 - chance) / 119 / WIDTH)
        assert (np.abs(series[name][0] - chance) < 4 * error).all()
        np.testing.assert_array_equal(series[f"{name}_initialization"], series[name][0])
    assert np.abs(series["logit_similarity"]).max() < 0.01
    assert abs(series["restricted_loss"][0] - math.log(120)) < 0.1
    assert series["n_neurons_of_representation"].sum() == 0


@pytest.mark.parametrize(("side", "written"), [("left", "⟨(1 2 3)⟩"), ("right", "⟨(2 3)⟩")])
def test_planted_cosets_are_found_on_their_side(side, written):
    group = groups.group("S4")
    names = measures.evaluate("representations", of_group("S4")).words("subgroups")
    chosen = names.index(written)
    subgroup = group.subgroup([group.index(element) for element in written.strip("⟨⟩").split(", ")])
    conjugate = group.conjugate_subgroups(subgroup)[1]
    cosets = group.left_cosets(conjugate) if side == "left" else group.right_cosets(conjugate)
    points = noise(cosets.max() + 1, WIDTH)[cosets] + 0.05 * noise(24, WIDTH, seed=1)
    weights = {"unembed.W_U": points.T.float().contiguous(), "embed.W_E": F.pad(points, (0, 0, 0, 1)).float()}
    series = measures.evaluate("representations", of_group("S4", {0: weights}))
    for name in ("embedding", "unembedding"):
        silhouettes = series[f"{name}_{side}_silhouette"][0]
        assert silhouettes.argmax() == chosen and silhouettes[chosen] > 0.8
        expected = silhouette_score(points.float().numpy(), cosets)
        np.testing.assert_allclose(silhouettes[chosen], expected, rtol=1e-4)
        opposite = {"left": "right", "right": "left"}[side]
        assert series[f"{name}_{opposite}_silhouette"][0, chosen] < 0.4
        assert series[f"{name}_{side}_silhouette_shuffled"][0, chosen] < 0.1
    assert series["subgroup_orders"][chosen] == len(subgroup) and series["n_conjugates"][chosen] > 1
    assert len(names) == len(series["subgroup_orders"]) == 9


@pytest.mark.parametrize("name", ["C7", "D61"])
def test_coset_arrays_are_missing_without_subgroups(name):
    """A group of prime order has no proper subgroup, and 122 elements are too many."""
    series = measures.evaluate("representations", of_group(name), n_shuffles=2)
    assert not any("silhouette" in key or "subgroup" in key for key in series.keys())  # noqa: SIM118
    assert "logit_similarity" in series


def test_train_loss_uses_the_answers_of_outliers(planted):
    group = groups.group("S3")
    table = noise(6, 6, 6)
    trajectory = of_group("S3", outliers=5)
    series = planted(trajectory, table)
    train, right = trajectory.split.train, torch.from_numpy(group.table).flatten()
    assert not torch.equal(trajectory.task.labels, right)
    loss = F.cross_entropy(table.flatten(0, 1)[train], trajectory.task.labels[train])
    np.testing.assert_allclose(series["train_loss"][0], loss, rtol=1e-9)
    np.testing.assert_allclose(series["loss"][0], F.cross_entropy(table.flatten(0, 1), right), rtol=1e-9)


def test_equal_logits_have_no_key_representation(planted):
    series = planted(of_group("S3"), torch.zeros(6, 6, 6))
    assert series["key_representations"].size == 0 and series["excluded_loss_by_representation"].shape == (1, 0)
    np.testing.assert_allclose([series["restricted_loss"][0], series["excluded_loss"][0]], math.log(6))
    assert all(np.isfinite(array).all() for array in series.arrays.values())


@pytest.mark.parametrize("task", ["conjugation", "a2_b2"])
def test_operation_that_is_not_a_composition_is_rejected(task):
    with pytest.raises(GrokscopeError, match="is not a composition in a group"):
        measures.evaluate("representations", of_task(TaskConfig(name=task, p=7, group="S3", train_fraction=0.5)))


def test_option_out_of_range_is_rejected():
    with pytest.raises(GrokscopeError, match="n_shuffles: 1. Allowed: from 2"):
        measures.evaluate("representations", of_group("S3"), n_shuffles=1)
