"""Ensembles: many models that train in one program, along a leading axis of every tensor.

- The gradient is one vmapped backward pass.
- The update is one AdamW over all parameters of all models, with a learning rate and a weight decay per model.
- The limits of the gradient's and the weights' norm apply to each model by itself.
- No operation in a step waits for the device. On CUDA a step is one replayed graph.
- Each trajectory agrees with that of the single run within rounding. The difference grows as between two machines.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import environment
from grokscope.config import RunConfig, lr_schedule, part_decay
from grokscope.model import families, losses
from grokscope.model.embedding_bag import Entries
from grokscope.model.equation_batch import Equations
from grokscope.training.dataset import Dataset
from grokscope.training.ensemble_settings import require_compatible
from grokscope.training.evaluation import Row, require_finite_losses
from grokscope.training.learner import require_resumable
from grokscope.training.loop import training_device
from grokscope.training.optimizers import TINY
from grokscope.training.state import State
from grokscope.training.thread_choice import ensemble_threads

_EVALUATED_LOGITS = 2**27
"""The number of logits that an evaluation computes at a time over all models: a gigabyte in float64."""
_EPS = 1e-8
"""Adam's ε, torch's default."""
_LOG_NAMES: tuple[str, ...] = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Ensemble:
    """Models that train together in one program.

    Args:
        configs: A config per model. They may differ in seeds, learning rate, weight decay and train fraction.

    Attributes:
        configs: The configs, in the order of the models.
        datasets: The data of each model.
        step: The number of updates made.
        threads: The threads that training uses.

    Raises:
        GrokscopeError: A config is invalid, uses a setting that an ensemble cannot train with, or differs from the
            others in another setting.
    """

    def __init__(self, configs: list[RunConfig]):
        require_compatible(configs)
        environment.keep_memory()
        self.configs, self._config = configs, configs[0]
        self._device = training_device(self._config.device)
        self.datasets = [Dataset(config, self._device) for config in configs]
        self._model = families.build(self._config.model, self.datasets[0].task)
        # The equations are the same in all models; only the answers may differ.
        self._all_inputs = self.datasets[0].inputs
        self._all_equations = self._model.equations(self._all_inputs)
        n_batch = len(configs) * max(dataset.batch_size for dataset in self.datasets)
        self.threads = ensemble_threads(self._config, self._model, self._all_equations, n_batch)
        self._trained = {name: self._model.shapes[name] for name in self._model.trained}
        self.step = 0
        self._failed_at = self._tensor([-1] * len(configs), torch.long)
        self._rows: tuple[int, list[Row]] = (-1, [])
        self._evaluated = torch.zeros(len(configs), len(_LOG_NAMES), dtype=torch.float64, device=self._device)
        self._graphs: dict[str, torch.cuda.CUDAGraph | None] = {}

        self._gather_data()
        initializations = [self._model.initialize(config.init_seed) for config in configs]
        self._frozen = {
            name: torch.stack([parameters[name] for parameters in initializations]).to(self._device)
            for name in self._model.shapes
            if name not in self._trained
        }
        self._weights = torch.stack([self._flattened(parameters) for parameters in initializations]).to(self._device)
        self._moments = torch.zeros(2, *self._weights.shape, device=self._device)
        self._lr = self._tensor([[config.optimizer.lr] for config in configs], torch.float64)
        decays = [
            part_decay.decays(config.optimizer.decay_by_part, config.optimizer.weight_decay, self._trained)
            for config in configs
        ]
        self._decays = {
            name: self._tensor([decay[name] for decay in decays], torch.float64) for name in self._trained
        }
        self._lr_factor = self._tensor(0.0, torch.float64)
        # On the device, because a replayed graph cannot read a Python counter.
        self._n_updates = self._tensor(0, torch.long)

    def _tensor(self, values: object, dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self._device)

    def _flattened(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, " n_trained"]:
        """Return one model's trained parameters as one vector."""
        return torch.cat([parameters[name].flatten() for name in self._trained])

    def _unflattened(self, vectors: Float[Tensor, "models n_trained"]) -> dict[str, Tensor]:
        """Return views of all models' trained parameters by name."""
        parts = vectors.split([torch.Size(shape).numel() for shape in self._trained.values()], dim=1)
        return {
            name: part.unflatten(1, shape) for (name, shape), part in zip(self._trained.items(), parts, strict=True)
        }

    def _gather_data(self) -> None:
        """Stack the models' training sets, padded to one length; padding has no weight in the loss."""
        self._all_labels = torch.stack([dataset.labels for dataset in self.datasets])
        self._is_train = torch.zeros(len(self.datasets), len(self._all_inputs), device=self._device)
        for mask, dataset in zip(self._is_train, self.datasets, strict=True):
            mask[dataset.train] = 1
        self._batch, self._share = (tensor.to(self._device) for tensor in self._next_batch())
        self._entries: Entries | None = None
        if self._config.batch_size is None and self._device.type == "cpu":
            entries = [self._equations(self._inputs(examples)).entries for examples in self._batch]
            self._entries = Entries(*(torch.stack(part) for part in zip(*entries, strict=True)))

    def _next_batch(self) -> tuple[Int[Tensor, "models batch"], Float[Tensor, "models batch"]]:
        """Return each model's next batch: the indices of its equations, and the weight of each in the mean loss."""
        batches = [dataset.split.train[dataset.batch_indices(self.step)] for dataset in self.datasets]
        longest = max(dataset.batch_size for dataset in self.datasets)
        batch, share = torch.zeros(len(batches), longest, dtype=torch.long), torch.zeros(len(batches), longest)
        for i, examples in enumerate(batches):
            batch[i, : len(examples)] = examples
            share[i, : len(examples)] = 1 / len(examples)
        return batch, share.double()

    def _inputs(self, examples: Int[Tensor, " n"]) -> Int[Tensor, "n n_ctx"]:
        # Unlike indexing, index_select can be vmapped over the examples.
        return torch.index_select(self._all_inputs, 0, examples)

    def _equations(self, tokens: Int[Tensor, "n n_ctx"], entries: Entries | None = None) -> Equations:
        return replace(self._all_equations, tokens=tokens, precomputed_entries=entries)

    def advance(self) -> None:
        """Make one update of every model, without waiting for the device."""
        if self._config.batch_size is not None:
            batch, share = self._next_batch()
            self._batch.copy_(batch, non_blocking=True)
            self._share.copy_(share, non_blocking=True)
        optimizer = self._config.optimizer
        self._lr_factor.fill_(lr_schedule.factor(optimizer.schedule, optimizer.warmup_steps, self.step))
        with self.threads.active():
            self._run_or_replay("update", self._update)
        self.step += 1

    @torch.no_grad()
    def _update(self) -> None:
        """Compute the gradients, and make AdamW's update W ← W − lr λ W − lr m̂ / (√v̂ + ε) in place."""
        optimizer = self._config.optimizer
        in_dims = (0, 0, 0, 0, 0, None if self._entries is None else 0)
        gradients_and_loss = torch.func.vmap(torch.func.grad_and_value(self._loss), in_dims=in_dims)
        labels = self._all_labels.gather(1, self._batch)
        with environment.matrix_products(self._config.matrix_products):
            gradients, loss = gradients_and_loss(
                self._unflattened(self._weights), self._frozen, self._batch, labels, self._share, self._entries
            )
        gradient = torch.cat([gradients[name].flatten(1) for name in self._trained], dim=1)
        if optimizer.gradient_clip:
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient = gradient * (optimizer.gradient_clip / (norm + 1e-6)).clamp_max(1)
        update, lr = self._n_updates.double(), self._lr * self._lr_factor
        mean, square = self._moments
        beta_1, beta_2 = optimizer.betas
        mean.lerp_(gradient, 1 - beta_1)
        square.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
        bias_1, bias_2 = (1 - beta ** (update + 1) for beta in optimizer.betas)
        denominator = (square / bias_2.float()).sqrt_().add_(_EPS)
        for name, weights in self._unflattened(self._weights).items():
            shrinkage = (1 - lr[:, 0] * self._decays[name]).float()
            weights.mul_(shrinkage.reshape(-1, *[1] * (weights.ndim - 1)))
        self._weights.sub_((lr / bias_1).float() * (mean / denominator))
        if optimizer.norm_clamp:
            norm = torch.linalg.vector_norm(self._weights, dim=1, keepdim=True, dtype=torch.float64)
            self._weights.mul_((optimizer.norm_clamp / norm.clamp_min(TINY)).float())
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
        logits = self._model.logits({**trained, **frozen}, equations)
        return (losses.cross_entropy(logits, labels, self._config.loss_dtype, self._config.loss) * share).sum()

    def _run_or_replay(self, name: str, work: Callable[[], None]) -> None:
        """Run a function; on CUDA, record it as a graph the second time and replay the graph from then on."""
        if self._device.type != "cuda":
            work()
        elif name not in self._graphs:
            # The first call initializes libraries, which is not allowed while a graph is recorded.
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

    def failed_updates(self) -> list[int]:
        """Return each model's first update with a value that is not finite, or −1; this waits for the device."""
        return self._failed_at.tolist()

    def evaluate(self, i: int, state: State) -> Row:
        """Return model i's log row at the present step.

        The first call at a step evaluates all models.

        Args:
            i: The number of the model, from 0.
            state: The model's state at the present step.

        Returns:
            The log row.

        Raises:
            NotFiniteError: A loss is not finite.
        """
        if self._rows[0] != self.step:
            with self.threads.active():
                self._run_or_replay("evaluation", self._evaluate)
            rows: list[Row] = [dict(zip(_LOG_NAMES, row, strict=True)) for row in self._evaluated.tolist()]
            self._rows = (self.step, rows)
        return require_finite_losses(self._rows[1][i], state.step)

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Compute train and test loss and accuracy of all models."""
        parts = self._all_equations.parts(losses.EVALUATION_CHUNK)

        def model_metrics(
            trained: Mapping[str, Tensor], frozen: Mapping[str, Tensor], labels: Tensor, is_train: Tensor
        ) -> Float[Tensor, " metrics"]:
            columns = []
            for equations, answers in zip(parts, labels.split(losses.EVALUATION_CHUNK), strict=True):
                logits = self._model.logits({**trained, **frozen}, equations)
                loss = losses.cross_entropy(logits, answers, self._config.loss_dtype, self._config.loss)
                columns.append(torch.stack([loss.double(), (logits.argmax(-1) == answers).double()]))
            loss, is_right = torch.cat(columns, 1)
            weights = (is_train.double(), 1 - is_train.double())
            return torch.stack(
                [(values * weight).sum() / weight.sum() for values in (loss, is_right) for weight in weights]
            )

        chunk_size = max(_EVALUATED_LOGITS // (len(parts[0]) * self._model.d_vocab_out), 1)
        over_models = torch.func.vmap(model_metrics, chunk_size=chunk_size)
        self._evaluated.copy_(
            over_models(self._unflattened(self._weights), self._frozen, self._all_labels, self._is_train)
        )

    def state(self, i: int) -> State:
        """Return model i's state at the present step, named as in its single run; the tensors are views."""
        stacked = {**self._unflattened(self._weights), **self._frozen}
        parameters = {name: stacked[name][i] for name in self._model.shapes}
        return State(self.step, parameters, _MomentsOfModel(partial(self._optimizer_state, i)))

    def _optimizer_state(self, i: int) -> dict[str, Tensor]:
        """Return the optimizer's tensors of model i, named as in its single run; empty before the first update."""
        if not self.step:
            return {}
        count = torch.tensor(float(self.step))
        moments = {name: self._unflattened(stacked) for name, stacked in zip(_MOMENTS, self._moments, strict=True)}
        return {
            f"{parameter}/{name}": tensor
            for parameter in self._trained
            for name, tensor in (("step", count), *((name, moments[name][parameter][i]) for name in _MOMENTS))
        }

    @torch.no_grad()
    def load(self, i: int, resume_state: Mapping[str, Tensor]) -> None:
        """Continue model i from a resume state; all models must be loaded from the same step.

        Raises:
            GrokscopeError: The resume state does not fit the model's run.
        """
        step = int(resume_state["step"])
        require_resumable(resume_state, self.configs[i], self._model, complete=step > 0)
        self.step = step
        self._n_updates.fill_(step)
        parameters = {name: resume_state[f"parameters/{name}"] for name in self._model.shapes}
        for name, stacked in self._frozen.items():
            stacked[i] = parameters[name].to(self._device)
        self._weights[i] = self._flattened(parameters).to(self._device)
        if step:
            for stacked, quantity in zip(self._moments, _MOMENTS, strict=True):
                moments = {name: resume_state[f"optimizer/{name}/{quantity}"] for name in self._trained}
                stacked[i] = self._flattened(moments).to(self._device)


class _MomentsOfModel:
    """One model's optimizer state, copied to the CPU on demand."""

    def __init__(self, read: Callable[[], dict[str, Tensor]]):
        self._read = read

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._read().items()}
