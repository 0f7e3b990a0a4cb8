"""Ensembles: many models that train in one program, along a leading axis of every tensor.

The gradient is one vmapped backward pass, the update one AdamW over all parameters of all models with a learning
rate and a decay for each, and nothing in a step waits for the device; on CUDA a step is one replayed graph. Each
model's trajectory is that of its single run within rounding, which grows as it does between any two machines.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import environment
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses
from grokscope.model.embedding_bag import Entries
from grokscope.model.equation_batch import Equations
from grokscope.training.loop import Row, Setup, State, require_finite_losses

OPTIMIZERS = ("adamw", "adam")
_LOGITS_AT_ONCE = 2**27
"""How many logits of all models together are evaluated at a time: a gigabyte in float64, and as much twice more."""
_EPS = 1e-8
"""Adam's ε, torch's default."""


def faults(config: RunConfig) -> list[str]:
    """Return what keeps a run out of an ensemble, one clause each."""
    o = config.optimizer
    found = [f"optimizer.name {o.name!r} (allowed: {' or '.join(OPTIMIZERS)})"] if o.name not in OPTIMIZERS else []
    used = {
        "optimizer.decay_centre": o.decay_centre != "zero",
        "optimizer.gradient_filter": o.gradient_filter is not None,
        "optimizer.update_noise": o.update_noise,
        "optimizer.weight_noise": o.weight_noise,
        "optimizer.sam_radius": o.sam_radius,
        "residual_dropout": config.residual_dropout,
    }
    return found + [name for name, is_used in used.items() if is_used]


def likeness(config: RunConfig) -> str:
    """Return a digest of all settings but seeds, learning rate, weight decay and train fraction."""
    values = config.to_dict()
    for name in ("split_seed", "init_seed", "training_seed"):
        del values[name]
    for name in ("lr", "weight_decay"):
        del values["optimizer"][name]
    del values["task"]["train_fraction"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Ensemble:
    """Models that train together, and what each of them is: its `Member` and its `State`.

    Raise GrokscopeError for configs that differ in more than an ensemble's may, or use what it cannot train.
    """

    def __init__(self, configs: list[RunConfig]):
        for config in configs:
            config.validate()
        cannot = sorted({fault for config in configs for fault in faults(config)})
        if cannot:
            raise GrokscopeError(f"An ensemble cannot train with {', '.join(cannot)}; train these runs one by one.")
        if len({likeness(config) for config in configs}) != 1:
            raise GrokscopeError(
                "The runs of an ensemble may differ in seeds, learning rate, weight decay and train fraction only."
            )
        self.members = [Member(config, partial(self._row, i)) for i, config in enumerate(configs)]
        first = self.members[0]
        self._config, self._model, self._device = first.config, first.model, first.device
        self._trained = {name: first.model.shapes[name] for name in first.model.trained}
        self.step = 0
        self._failed_at = self._tensor([-1] * len(configs), torch.long)
        self._rows: tuple[int, list[Row]] = (-1, [])
        self._evaluated = torch.zeros(len(configs), 4, dtype=torch.float64, device=self._device)
        self._graphs: dict[str, torch.cuda.CUDAGraph | None] = {}

        self._gather_data()
        starts = [member.model.initialize(member.config.init_seed) for member in self.members]
        self._frozen = {
            name: torch.stack([one[name] for one in starts]).to(self._device)
            for name in first.model.shapes
            if name not in self._trained
        }
        self._weights = torch.stack([self._flat(one) for one in starts]).to(self._device)
        self._moments = torch.zeros(2, *self._weights.shape, device=self._device)
        decays = [one.config.optimizer.weight_decay for one in self.members]
        self._lr = self._tensor([[one.config.optimizer.lr] for one in self.members], torch.float64)
        self._decay = self._tensor([[one] for one in decays], torch.float64)
        # On the device, so that a replayed graph counts by itself.
        self._n_updates = self._tensor(0, torch.long)

    def _tensor(self, values: object, dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self._device)

    def _flat(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, " n_trained"]:
        return torch.cat([parameters[name].flatten() for name in self._trained])

    def _named(self, flat: Float[Tensor, "models n_trained"]) -> dict[str, Tensor]:
        """Return views of the trained parameters of all models by name."""
        parts = flat.split([torch.Size(shape).numel() for shape in self._trained.values()], dim=1)
        return {
            name: part.unflatten(1, shape) for (name, shape), part in zip(self._trained.items(), parts, strict=True)
        }

    def _gather_data(self) -> None:
        """Stack the models' training sets, padded to one length; what pads has no weight in the loss."""
        members = self.members
        splits = [member.split.train for member in members]
        self._all_labels = torch.stack([member.labels for member in members])
        self._is_train = torch.stack([torch.zeros(len(members[0].inputs), device=self._device)] * len(members))
        for mask, split in zip(self._is_train, splits, strict=True):
            mask[split.to(self._device)] = 1
        self._batch, self._share = (one.to(self._device) for one in self._next_batch())
        self._entries: Entries | None = None
        if self._config.batch_size is None and self._device.type == "cpu":
            prepared = [self._equations(self._inputs(one)).entries for one in self._batch]
            self._entries = Entries(*(torch.stack(part) for part in zip(*prepared, strict=True)))

    def _next_batch(self) -> tuple[Int[Tensor, "models batch"], Float[Tensor, "models batch"]]:
        """Return each model's batch, as indices of equations and what each has as its share of the mean loss."""
        chosen = [member.split.train[member.chosen(self.step)] for member in self.members]
        longest = max(member.batch_size for member in self.members)
        batch, share = torch.zeros(len(chosen), longest, dtype=torch.long), torch.zeros(len(chosen), longest)
        for i, examples in enumerate(chosen):
            batch[i, : len(examples)] = examples
            share[i, : len(examples)] = 1 / len(examples)
        return batch, share.double()

    def _inputs(self, examples: Int[Tensor, " n"]) -> Int[Tensor, "n n_ctx"]:
        # A lookup that can be vmapped over the examples.
        return torch.index_select(self.members[0].inputs, 0, examples)

    def _equations(self, tokens: Int[Tensor, "n n_ctx"], entries: Entries | None = None) -> Equations:
        return replace(self.members[0].equations, tokens=tokens, given=entries)

    def advance(self) -> None:
        """Make one update of every model; nothing waits for it to be done."""
        if self._config.batch_size is not None:
            batch, share = self._next_batch()
            self._batch.copy_(batch, non_blocking=True)
            self._share.copy_(share, non_blocking=True)
        self._replayed("update", self._update)
        self.step += 1

    @torch.no_grad()
    def _update(self) -> None:
        """Take the gradient and make the update of AdamW, W ← W − lr λ W − lr m̂ / (√v̂ + ε), in place."""
        optimizer = self._config.optimizer
        over = (0, 0, 0, 0, 0, None if self._entries is None else 0)
        gradient_and_loss = torch.func.vmap(torch.func.grad_and_value(self._loss), in_dims=over)
        labels = self._all_labels.gather(1, self._batch)
        with environment.matrix_products(self._config.matrix_products):
            gradients, loss = gradient_and_loss(
                self._named(self._weights), self._frozen, self._batch, labels, self._share, self._entries
            )
        gradient = torch.cat([gradients[name].flatten(1) for name in self._trained], dim=1)
        update = self._n_updates.double()
        lr = self._lr * (update / optimizer.warmup_steps).clamp_max(1) if optimizer.warmup_steps else self._lr
        mean, square = self._moments
        beta_1, beta_2 = optimizer.betas
        mean.lerp_(gradient, 1 - beta_1)
        square.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
        bias_1, bias_2 = (1 - beta ** (update + 1) for beta in optimizer.betas)
        denominator = (square / bias_2.float()).sqrt_().add_(_EPS)
        self._weights.mul_((1 - lr * self._decay).float())
        self._weights.sub_((lr / bias_1).float() * (mean / denominator))
        is_finite = loss.isfinite() & gradient.isfinite().all(1) & self._weights.isfinite().all(1)
        self._failed_at.copy_(torch.where((self._failed_at < 0) & ~is_finite, self._n_updates, self._failed_at))
        self._n_updates += 1

    def _loss(
        self,
        trained: Mapping[str, Tensor],
        frozen: Mapping[str, Tensor],
        examples: Int[Tensor, " batch"],
        labels: Int[Tensor, " batch"],
        share: Float[Tensor, " batch"],
        entries: Entries | None,
    ) -> Float[Tensor, ""]:
        """Return one model's mean loss over its batch."""
        equations = self._equations(self._inputs(examples), entries)
        found = self._model.logits({**trained, **frozen}, equations)
        return (losses.cross_entropy(found, labels, self._config.loss_dtype, self._config.loss) * share).sum()

    def _replayed(self, name: str, work: Callable[[], None]) -> None:
        """Do some work; on CUDA, record it as a graph the second time and replay it from then on."""
        if self._device.type != "cuda":
            work()
        elif name not in self._graphs:
            # The first time sets up what must not be set up inside a graph, on a stream of its own.
            present, aside = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
            aside.wait_stream(present)
            with torch.cuda.stream(aside):
                work()
            present.wait_stream(aside)
            self._graphs[name] = None
        else:
            graph = self._graphs[name]
            if graph is None:
                graph = self._graphs[name] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    work()
            graph.replay()

    def failures(self) -> list[int]:
        """Return each model's first update that met a number that is not finite, or −1. Waits for the device."""
        return self._failed_at.tolist()

    def _row(self, i: int) -> Row:
        """Return a model's row of the log at this step; all models are evaluated at once, at the first call."""
        if self._rows[0] != self.step:
            self._replayed("evaluation", self._evaluate)
            names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
            self._rows = (self.step, [dict(zip(names, row, strict=True)) for row in self._evaluated.tolist()])
        return self._rows[1][i]

    @torch.no_grad()
    def _evaluate(self) -> None:
        parts = self.members[0].equations.parts(losses.AT_ONCE)

        def one(
            trained: Mapping[str, Tensor], frozen: Mapping[str, Tensor], labels: Tensor, is_train: Tensor
        ) -> Float[Tensor, " four"]:
            found = []
            for part, its_labels in zip(parts, labels.split(losses.AT_ONCE), strict=True):
                logits = self._model.logits({**trained, **frozen}, part)
                loss = losses.cross_entropy(logits, its_labels, self._config.loss_dtype, self._config.loss)
                found.append(torch.stack([loss.double(), (logits.argmax(-1) == its_labels).double()]))
            loss, right = torch.cat(found, 1)
            on_train, on_test = is_train.double(), 1 - is_train.double()
            return torch.stack([(x * on).sum() / on.sum() for x in (loss, right) for on in (on_train, on_test)])

        at_once = max(_LOGITS_AT_ONCE // (len(parts[0]) * self._model.d_vocab_out), 1)
        over_models = torch.func.vmap(one, chunk_size=at_once)
        found = over_models(self._named(self._weights), self._frozen, self._all_labels, self._is_train)
        self._evaluated.copy_(found)

    def state(self, i: int) -> State:
        """Return a model's state at this step, as its single run has it; its tensors are views."""
        parameters = {name: one[i] for name, one in {**self._named(self._weights), **self._frozen}.items()}
        return State(
            self.step, {name: parameters[name] for name in self._model.shapes}, _Moments(partial(self._remembered, i))
        )

    def _remembered(self, i: int) -> dict[str, Tensor]:
        count = torch.tensor(float(self.step))
        names = ("exp_avg", "exp_avg_sq")
        moments = {name: self._named(one) for name, one in zip(names, self._moments, strict=True)}
        return {
            f"{parameter}/{name}": tensor
            for parameter in self._trained
            for name, tensor in (("step", count), *((name, moments[name][parameter][i]) for name in names))
            if self.step
        }

    @torch.no_grad()
    def load(self, i: int, resumed: Mapping[str, Tensor]) -> None:
        """Go on with a model from a resume state; every model must be loaded from the same step."""
        self.step = int(resumed["step"])
        self._n_updates.fill_(self.step)
        state = {name: resumed[f"parameters/{name}"] for name in self._model.shapes}
        for name, stacked in self._frozen.items():
            stacked[i] = state[name].to(self._device)
        self._weights[i] = self._flat(state).to(self._device)
        if self.step:
            for stacked, quantity in zip(self._moments, ("exp_avg", "exp_avg_sq"), strict=True):
                flat = self._flat({name: resumed[f"optimizer/{name}/{quantity}"] for name in self._trained})
                stacked[i] = flat.to(self._device)


class Member(Setup):
    """What one model of an ensemble trains with; it is evaluated with the others."""

    def __init__(self, config: RunConfig, row: Callable[[], Row]):
        super().__init__(config)
        self._row_of_member = row

    def evaluate(self, state: State) -> Row:
        """Return the log's row for the present parameters of the ensemble; raise NotFiniteError as any Setup does."""
        return require_finite_losses(self._row_of_member(), state.step)


class _Moments:
    """What the optimizer remembers of one model, named as a single run's optimizer names it."""

    def __init__(self, remembered: Callable[[], dict[str, Tensor]]):
        self._remembered = remembered

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._remembered().items()}
