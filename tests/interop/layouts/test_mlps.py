"""MLPs of other programs: the imported network gives the logits of the program's own forward pass."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from grokscope import Trajectory, tasks
from grokscope.algebra.groups import group
from grokscope.config import TaskConfig
from grokscope.config.run_config import RunConfig, from_dict
from grokscope.errors import GrokscopeError
from grokscope.interop.import_run import import_checkpoints
from grokscope.interop.layouts import mlps

pytestmark = pytest.mark.filterwarnings("ignore:.*above chance", "ignore:.*accuracy")
P, WIDTH, N_NEURONS = 7, 5, 12
Weights = dict[str, Tensor]


def drawn(**shapes: tuple[int, ...]) -> Weights:
    """Return random weights under names with dots for "__"."""
    generator = torch.Generator().manual_seed(0)
    return {name.replace("__", "."): torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def one_hot(x: Tensor, p: int = P) -> Tensor:
    return F.one_hot(x, p).float()


def gromov(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    x = torch.cat([one_hot(a), one_hot(b)], -1)
    return F.linear(F.linear(x, w["fc1.weight"]).square(), w["fc2.weight"])


def split(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    return (w["U"][a] + w["V"][b]).square() @ w["W"]


def summed(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    return torch.relu((one_hot(a) + one_hot(b)) @ w["W_in"].T) @ w["W_out"].T


def shared(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    x = torch.cat([w["embedding.weight"][a], w["embedding.weight"][b]], -1)
    x = torch.relu(F.linear(x, w["layers.0.weight"], w["layers.0.bias"]))
    x = torch.relu(F.linear(x, w["layers.2.weight"], w["layers.2.bias"]))
    return F.linear(x, w["layers.4.weight"], w["layers.4.bias"])


def separate(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    return torch.relu(torch.cat([w["left"][a], w["right"][b]], -1) @ w["mix"]) @ w["unembed"]


def transposed(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    x = w["embed.W_E"][:, a] + w["embed.W_E"][:, b]
    return torch.relu(w["mlp.W_in"] @ x).T @ w["unembed.W_U"]


def with_signs(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    tokens = torch.stack([a, torch.full_like(a, P), b, torch.full_like(a, P + 1)], -1)
    x = w["embed.weight"][tokens].flatten(1)
    return F.linear(torch.tanh(F.linear(x, w["fc1.weight"], w["fc1.bias"])), w["fc2.weight"])


def with_equals(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    x = w["embed.weight"][torch.stack([a, b, torch.full_like(a, P)], -1)].flatten(1)
    return F.linear(torch.relu(F.linear(x, w["fc1.weight"])), w["fc2.weight"])


def turned_square(w: Weights, a: Tensor, b: Tensor) -> Tensor:
    x = torch.relu(w["W1"] @ torch.cat([one_hot(a), one_hot(b)], -1).T + w["b1"][:, None])
    return (w["W3"] @ torch.relu(w["W2"] @ x)).T


CASES: dict[str, tuple[Callable[[Weights, Tensor, Tensor], Tensor], Weights, str]] = {
    "one-hot, concatenated": (gromov, drawn(fc1__weight=(N_NEURONS, 2 * P), fc2__weight=(P, N_NEURONS)), "quadratic"),
    "one-hot, split": (split, drawn(U=(P, N_NEURONS), V=(P, N_NEURONS), W=(N_NEURONS, P)), "quadratic"),
    "one-hot, summed": (summed, drawn(W_in=(N_NEURONS, P), W_out=(P, N_NEURONS)), "relu"),
    "embedded, two layers": (
        shared,
        drawn(
            embedding__weight=(P, WIDTH),
            layers__0__weight=(N_NEURONS, 2 * WIDTH),
            layers__0__bias=(N_NEURONS,),
            layers__2__weight=(N_NEURONS, N_NEURONS),
            layers__2__bias=(N_NEURONS,),
            layers__4__weight=(P, N_NEURONS),
            layers__4__bias=(P,),
        ),
        "relu",
    ),
    "embedded, TransformerLens' names": (
        transposed,
        drawn(embed__W_E=(WIDTH, P), mlp__W_in=(N_NEURONS, WIDTH), unembed__W_U=(N_NEURONS, P)),
        "relu",
    ),
    "one-hot, raw, outputs first": (
        turned_square,
        drawn(W1=(N_NEURONS, 2 * P), b1=(N_NEURONS,), W2=(N_NEURONS, N_NEURONS), W3=(P, N_NEURONS)),
        "relu",
    ),
    "embedded with two signs": (
        with_signs,
        drawn(
            embed__weight=(P + 2, WIDTH),
            fc1__weight=(N_NEURONS, 4 * WIDTH),
            fc1__bias=(N_NEURONS,),
            fc2__weight=(P, N_NEURONS),
        ),
        "tanh",
    ),
    "embedded with =": (
        with_equals,
        drawn(embed__weight=(P + 1, WIDTH), fc1__weight=(N_NEURONS, 3 * WIDTH), fc2__weight=(P, N_NEURONS)),
        "relu",
    ),
    "embedded separately": (
        separate,
        drawn(left=(P, WIDTH), right=(P, WIDTH), mix=(2 * WIDTH, N_NEURONS), unembed=(N_NEURONS, P)),
        "relu",
    ),
}


def import_mlp(content: Any, folder: Path, act_fn: str, **options: Any) -> Trajectory:
    path = folder / "step_60.pt"
    torch.save(content, path)
    values = {"model": {"family": "mlp", "mlp": {"act_fn": act_fn}}, "task": options.pop("task", {"p": P})}
    given = {"model.mlp.act_fn", *(f"task.{name}" for name in values["task"])}
    return import_checkpoints([path], from_dict(values), "run", folder, given=given, is_described=False, **options)


def require_logits(run: Trajectory, expected: Tensor) -> None:
    assert float(expected.std()) > 0.1, "so equal logits mean something"
    logits = run.model.logits(run.last.parameters, run.task.inputs)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_mlp_gives_the_logits_of_its_program(name: str, tmp_path: Path):
    forward, weights, act_fn = CASES[name]
    run = import_mlp(weights, tmp_path, act_fn)
    assert run.config.model.family == "mlp" and run.config.task.p == P
    require_logits(run, forward(weights, *run.task.operands.T))


WRAPPERS: dict[str, Callable[[Mapping[str, Tensor]], Any]] = {
    "bare": dict,
    "module": lambda w: {f"module.{name}": value for name, value in w.items()},
    "lightning": lambda w: {
        "state_dict": {f"model.net.{name}": value for name, value in w.items()},
        "global_step": 60,
        "epoch": 3,
    },
    "compiled": lambda w: {"model": {f"_orig_mod.{name}": value for name, value in w.items()}, "step": 60},
    "list": lambda w: {"checkpoints": [dict(w)], "steps": [60]},
}


@pytest.mark.parametrize("name", CASES)
def test_wrappers_and_prefixes_leave_the_same_network(name: str, tmp_path: Path):
    _, weights, act_fn = CASES[name]
    plain = import_mlp(weights, tmp_path, act_fn).last.parameters
    for wrapper, wrapped in WRAPPERS.items():
        folder = tmp_path / wrapper
        folder.mkdir()
        parameters = import_mlp(wrapped(weights), folder, act_fn).last.parameters
        assert all(torch.equal(parameters[key], plain[key]) for key in plain), wrapper


def test_safetensors_give_the_same_network_in_any_order(tmp_path: Path):
    forward, weights, _ = CASES["embedded, two layers"]
    path = tmp_path / "step_60.safetensors"
    save_file({f"net.{name}": value for name, value in weights.items()}, path)
    config = from_dict({"model": {"family": "mlp"}})
    run = import_checkpoints([path], config, "run", tmp_path, given={"model.mlp.act_fn"}, is_described=False)
    require_logits(run, forward(weights, *run.task.operands.T))


def test_order_of_the_matrices_does_not_matter():
    _, weights, _ = CASES["embedded separately"]
    for names in itertools.permutations(weights):
        best = mlps.read({name: weights[name] for name in names})[0]
        assert best.settings["operands"] == "embedded separately" and best.n_elements == P
        assert torch.equal(best.parameters["mlp.0.W_in"], weights["mix"])


def planted(p: int, n_frequencies: int = 3) -> Weights:
    """Return a quadratic MLP that adds modulo p: waves of the operands, with the angles of Gromov (2023)."""
    shifts = torch.arange(8).double() * torch.pi / 4
    pairs = [(k, first, second) for k in range(1, n_frequencies + 1) for first in shifts for second in shifts]
    angles = 2 * torch.pi * torch.arange(p) / p
    rows = [torch.cat([torch.cos(k * angles + first), torch.cos(k * angles + second)]) for k, first, second in pairs]
    columns = [torch.cos(k * angles + first + second) for k, first, second in pairs]
    return {"fc1.weight": torch.stack(rows).float(), "fc2.weight": torch.stack(columns, 1).float()}


def test_planted_solution_answers_every_equation(tmp_path: Path):
    weights = planted(P)
    path = tmp_path / "step_60.pt"
    torch.save(weights, path)
    # Without a known modulus, the chain that answers more equations is chosen.
    config = from_dict({"model": {"family": "mlp", "mlp": {"act_fn": "quadratic"}}})
    run = import_checkpoints([path], config, "run", tmp_path, given={"model.mlp.act_fn"}, is_described=False)
    assert run.config.task.p == P and float(run.log["accuracy"][0]) == 1
    require_logits(run, gromov(weights, *run.task.operands.T))


def test_unknown_activation_is_asked_by_name(tmp_path: Path):
    path = tmp_path / "step_60.pt"
    torch.save(planted(P), path)
    with pytest.raises(GrokscopeError, match=r"activation function.*--model\.mlp\.act-fn … .*quadratic"):
        import_checkpoints([path], RunConfig(), "run", tmp_path, is_described=False)
    assert not (tmp_path / "run").exists()


def test_fourier_basis_is_left_out(tmp_path: Path):
    forward, weights, act_fn = CASES["one-hot, summed"]
    basis = torch.linalg.qr(
        torch.stack([torch.cos(2 * torch.pi * k * torch.arange(P) / P - (k > 3) * torch.pi / 2) for k in range(P)], 1)
    )[0]
    waves = torch.cat([basis[:, :1], basis[:, 1:]], 1).T
    assert mlps.is_fourier_basis(waves) and not mlps.is_fourier_basis(torch.eye(P))
    run = import_mlp({**weights, "basis": waves}, tmp_path, act_fn, task={})
    assert run.config.task.p == P and "basis" not in run.last.parameters
    require_logits(run, forward(weights, *run.task.operands.T))


def test_hidden_layers_of_different_widths_are_refused(tmp_path: Path):
    weights = drawn(l1__weight=(9, 2 * P), l2__weight=(5, 9), l3__weight=(P, 5))
    with pytest.raises(GrokscopeError, match="hidden layers are equally wide"):
        import_mlp(weights, tmp_path, "relu")


def test_attention_and_norms_are_not_read_as_an_mlp():
    _, weights, _ = CASES["one-hot, concatenated"]
    for name in ("attn.w", "ln.weight"):
        assert mlps.read({**weights, name: torch.ones(3)}) == []
    # Without a hidden layer, an embedding and its answers have no activation between them.
    assert mlps.read(drawn(embed__weight=(P, WIDTH), out__weight=(P, WIDTH))) == []


def test_bias_of_another_width_is_named(tmp_path: Path):
    _, weights, act_fn = CASES["one-hot, concatenated"]
    with pytest.raises(GrokscopeError, match=r"fc1\.bias is unknown"):
        import_mlp({**weights, "fc1.bias": torch.ones(3)}, tmp_path, act_fn)


def table_network(answers: Tensor) -> Weights:
    """Return an MLP that has a neuron for each pair of operands, and so gives any table of answers."""
    n = len(answers)
    a, b = torch.cartesian_prod(torch.arange(n), torch.arange(n)).unbind(1)
    first = torch.cat([one_hot(a, n), one_hot(b, n)], 1)
    return {
        "fc1.weight": first,
        "fc1.bias": -torch.ones(n * n),
        "fc2.weight": 20 * one_hot(answers[a, b], n).T,
    }


def test_elements_of_a_group_are_brought_into_our_order(tmp_path: Path):
    own = torch.from_numpy(group("D4").table)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    theirs = order.argsort()[own[order][:, order]]
    train = torch.cartesian_prod(torch.arange(4), torch.arange(8))
    options: dict[str, Any] = {"task": {"name": "composition", "group": "D4"}, "train_indices": train.tolist()}
    run = import_mlp(table_network(theirs), tmp_path, "relu", **options)
    assert float(run.log["train_accuracy"][0]) == float(run.log["test_accuracy"][0]) == 1
    # Half of the equations, by their first operand: in our order too.
    first = run.task.operands[run.split.train][:, 0].unique()
    assert len(run.split.train) == 32 and len(first) == 4
    assert isinstance(run.task, tasks.Task) and run.config.task == TaskConfig(
        "composition", group="D4", form="a b", p=run.config.task.p
    )
