"""The training loop: `optimize` is a generator that makes one update after another."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import environment, rng
from grokscope.config import RunConfig, part_decay
from grokscope.errors import GrokscopeError
from grokscope.model import families, losses
from grokscope.model.equation_batch import Equations
from grokscope.store.run_store import RunStore
from grokscope.training.dataset import Dataset
from grokscope.training.evaluation import Evaluator
from grokscope.training.finiteness import FinitenessWatch, require_finite
from grokscope.training.learner import Given, Learner, stored_initialization
from grokscope.training.optimizers import Optimizer, noise_like
from grokscope.training.state import State
from grokscope.training.thread_choice import choose_threads

_TINY = 1e-12
"""The least norm that a gradient is divided by."""


class Setup:
    """The parts of a single run that training reads and never changes.

    Args:
        config: The run's config.
        given: Returns the initial parameters, if `config.initialization` has their digest.
        recorded: The recorded environment of a run that continues, whose number of threads is kept.

    Attributes:
        config: The config, validated.
        device: The device that training uses.
        threads: The threads that training uses.
        dataset: The task, its split and its batches.
        model: The architecture.
        learner: The states from which training starts or resumes.
        evaluator: The evaluation of a state, which makes a row of the log.

    Raises:
        GrokscopeError: The config is invalid, its device does not exist, or `decay_by_part` names an unknown part.
    """

    def __init__(self, config: RunConfig, given: Given | None = None, recorded: Mapping[str, str] | None = None):
        environment.keep_memory()
        self.config = config.validate()
        self.device = training_device(config.device)
        self.dataset = Dataset(config, self.device)
        self.model = families.build(config.model, self.dataset.task)
        if config.residual_dropout and not self.model.sublayers:
            raise GrokscopeError(
                f"residual_dropout: {config.residual_dropout}, but the family {config.model.family!r} has no "
                f"residual stream. Allowed: 0."
            )
        # A part without parameters raises here, before anything is announced or written.
        part_decay.decays(config.optimizer.decay_by_part, 0.0, self.model.trained)
        self.learner = Learner(config, self.model, self.device, given)
        equations = self.model.equations(self.dataset.inputs)
        self.threads = choose_threads(config, self.model, equations, self.dataset.batch_size, recorded)
        self.evaluator = Evaluator(config, self.model, self.dataset, equations, self.threads)
        self._train_equations = equations[self.dataset.train]
        self._train_labels = self.dataset.labels[self.dataset.train]

    @classmethod
    def of_run(cls, run: RunStore, config: RunConfig | None = None) -> "Setup":
        """Return the parts of a run on disk, which has stored its initial parameters; raise as the constructor does.

        Args:
            run: The store of the run.
            config: Another config with the same model, such as a fork's; by default the run's.
        """
        recorded = None if config else run.record.environment
        setup = cls(config or run.record.config, lambda: stored_initialization(run, setup.model), recorded)
        return setup

    def batch(self, step: int) -> tuple[Equations, Int[Tensor, "batch *positions"]]:
        """Return the equations and answers of the update that follows `step`."""
        if self.config.task.fresh:
            inputs, labels = self.dataset.fresh_batch(step)
            return self.model.equations(inputs), labels
        if self.config.batch_size is None:
            return self._train_equations, self._train_labels
        indices = self.dataset.batch_indices(step).to(self.device)
        return self._train_equations[indices], self._train_labels[indices]


def training_device(name: str) -> torch.device:
    """Return a config's device; raise GrokscopeError if this machine does not have it."""
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise GrokscopeError(
            f"device: {name!r} does not exist here. Allowed: 'cpu', and the {torch.cuda.device_count()} CUDA devices "
            f"of this machine."
        )
    return device


def optimize(setup: Setup, state: State, *, look_every: int = 1) -> Iterator[State]:
    """Make one update after another without end, and yield the state after each.

    Args:
        setup: The run's parts.
        state: The state to start from; updates change it in place.
        look_every: The most updates between two looks for values that are not finite. Between looks, no value is
            read back from the device. `state.require_finite` looks at once; a caller that uses a yielded state needs
            it if `look_every` is above 1.

    Yields:
        The same `state` object, after each update.

    Raises:
        NotFiniteError: A loss or gradient is not finite, and the update was not made; or a parameter is not finite
            after the update. The error names the tensor.
    """
    trained = {name: state.parameters[name] for name in setup.model.trained}
    if look_every == 1:
        while True:
            _checked_update(setup, state, trained)
            yield state
    assert isinstance(state.optimizer, Optimizer)
    repeat = partial(_checked_update, setup, state, trained)
    watch = FinitenessWatch(state, state.optimizer, trained, repeat, look_every)
    state.require_finite = watch.look
    while True:
        watch.add(_update(setup, state))
        yield state


def _update(setup: Setup, state: State) -> Tensor:
    """Make one update, and return the loss before it."""
    assert isinstance(state.optimizer, Optimizer)
    with setup.threads.active():
        loss, gradients = loss_and_gradients(setup, state)
        state.optimizer.update(gradients, state.step)
    state.step += 1
    return loss


def _checked_update(setup: Setup, state: State, trained: Mapping[str, Tensor]) -> None:
    """Make one update; raise NotFiniteError if a loss, gradient or parameter is not finite."""
    assert isinstance(state.optimizer, Optimizer)
    with setup.threads.active():
        loss, gradients = loss_and_gradients(setup, state)
        require_finite(state.step, {"The training loss": loss}, resumable=True)
        subjects = {f"The gradient of {name}": gradient for name, gradient in gradients.items()}
        require_finite(state.step, subjects, resumable=True)
        state.optimizer.update(gradients, state.step)
    state.step += 1
    weights = {f"The parameter {name}": tensor.detach() for name, tensor in trained.items()}
    require_finite(state.step, weights, resumable=False)


def loss_and_gradients(setup: Setup, state: State) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss L on the batch that follows `state.step`, and the gradient g for its update.

    - Plain: g = ∇L(θ).
    - Weight noise σ: L and g are taken at θ + σε with ε ~ N(0, 1), which replaces θ below.
    - Sharpness-aware minimization with radius ρ: g = ∇L(θ + ρ ∇L/|∇L|), with the same batch, noise and dropout. The
      returned loss is L(θ).

    The random numbers are functions of the training seed and the step alone. The parameters are not changed.

    Args:
        setup: The run's parts.
        state: The present state.

    Returns:
        The loss (a scalar, in nats), and the gradient of each trained parameter by name.

    References:
        Power et al. 2022 (weight noise); Foret et al. 2021, equations 2 and 3 (sharpness-aware minimization).
    """
    config, step = setup.config, state.step
    equations, labels = setup.batch(step)
    dropout = None
    if config.residual_dropout:
        generator = rng.generator("dropout", config.training_seed, step, setup.device)
        dropout = setup.model.dropout_masks(len(equations), config.residual_dropout, generator)

    parameters: Mapping[str, Tensor] = state.parameters
    if config.optimizer.weight_noise:
        generator = rng.generator("weight noise", config.training_seed, step, setup.device)
        noise = {name: noise_like(parameters[name], generator) for name in setup.model.trained}
        parameters = _moved(parameters, noise, config.optimizer.weight_noise)
    loss, gradients = _backward(setup, parameters, equations, labels, dropout)
    if config.optimizer.sam_radius:
        norm = torch.nn.utils.get_total_norm(list(gradients.values()))
        distance = config.optimizer.sam_radius / norm.clamp_min(_TINY)
        uphill = _moved(parameters, {name: gradient * distance for name, gradient in gradients.items()}, 1.0)
        _, gradients = _backward(setup, uphill, equations, labels, dropout)
    return loss, gradients


def _backward(
    setup: Setup,
    parameters: Mapping[str, Tensor],
    equations: Equations,
    labels: Int[Tensor, "batch *positions"],
    dropout: Mapping[str, Tensor] | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss at these parameters, and its gradient by the trained ones."""
    with environment.matrix_products(setup.config.matrix_products):
        return losses.mean_loss_and_gradient(setup.model, parameters, equations, labels, setup.config, dropout)


def _moved(parameters: Mapping[str, Tensor], directions: Mapping[str, Tensor], distance: float) -> dict[str, Tensor]:
    """Return the parameters, moved along their directions where they have one, as leaves of a new graph."""
    return {
        name: tensor.detach().add(directions[name], alpha=distance).requires_grad_() if name in directions else tensor
        for name, tensor in parameters.items()
    }
