"""The model that a run trains: its initialization, and its state after a resume."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from grokscope.config import RunConfig, stop_rule
from grokscope.errors import GrokscopeError
from grokscope.model.families import Model
from grokscope.model.state_dicts import initial_parameters, parameters_digest
from grokscope.store.run_store import RunStore, Segment
from grokscope.training.optimizers import Optimizer, expected_state
from grokscope.training.state import State

_SCALARS = {
    "step": torch.tensor(0),
    "schedule/reference": torch.tensor(1.0, dtype=torch.float64),
    "schedule/n_adaptive": torch.tensor(0),
}
"""The entries of a resume state apart from parameters and optimizer; only their types and shapes matter."""
_OPTIMIZER = "optimizer/"

Given = Callable[[], Mapping[str, Tensor]]
"""A function that returns initial parameters that were not drawn; a run reads them from its files only if needed."""


class Learner:
    """A model, and the states from which its training starts or resumes.

    Args:
        config: A valid config.
        model: The architecture.
        device: The device that training uses.
        given: Returns the initial parameters, if `config.initialization` has their digest.
    """

    def __init__(self, config: RunConfig, model: Model, device: torch.device, given: Given | None = None):
        self.config, self.model, self.device = config, model, device
        self._given = given

    def initialization(self) -> Mapping[str, Tensor]:
        """Return the parameters of step 0: drawn with `init_seed`, or the given ones.

        Raises:
            GrokscopeError: The config names parameters that are not given, or those have another digest.
        """
        digest = self.config.initialization
        if not digest:
            return self.model.initialize(self.config.init_seed)
        if self._given is None:
            raise GrokscopeError(
                f"initialization: the parameters with the digest {digest[:12]}… are not given. Give them with "
                f"`grokscope train … --init-from FILE`, or train(config, initialization=parameters)."
            )
        parameters = initial_parameters(self.model, self._given())
        if parameters_digest(parameters) != digest:
            raise GrokscopeError(f"initialization: the given parameters do not have the digest {digest[:12]}…")
        return parameters

    def initial_state(self) -> State:
        """Return the state before the first update; raise as `initialization` does."""
        parameters = self._trainable(self.initialization())
        return State(0, parameters, self._optimizer(parameters))

    def resumed_state(self, resume_state: Mapping[str, Tensor]) -> State:
        """Return the state that a resume state describes; `require_resumable` checks it first."""
        parameters = self._trainable({name: resume_state[f"parameters/{name}"] for name in self.model.shapes})
        optimizer = self._optimizer(parameters)
        optimizer.load(
            {
                name.removeprefix(_OPTIMIZER): tensor
                for name, tensor in resume_state.items()
                if name.startswith(_OPTIMIZER)
            }
        )
        return State(int(resume_state["step"]), parameters, optimizer)

    def _trainable(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A copy in memory that torch aligned: alignment may decide the kernel, and so the bits.
        copies = {name: tensor.to(self.device, copy=True) for name, tensor in parameters.items()}
        for name in self.model.trained:
            copies[name].requires_grad_()
        return copies

    def _optimizer(self, parameters: Mapping[str, Tensor]) -> Optimizer:
        centre = {}
        if self.config.optimizer.decay_centre == "initialization":
            initialization = self.initialization()
            centre = {name: initialization[name].to(self.device) for name in self.model.trained}
        trained = {name: parameters[name] for name in self.model.trained}
        return Optimizer(self.config.optimizer, trained, centre, self.config.training_seed)


def require_resumable(
    resume_state: Mapping[str, Tensor], config: RunConfig, model: Model, *, complete: bool = False
) -> None:
    """Raise GrokscopeError if a resume state does not fit a run; the error names every misfit.

    Args:
        resume_state: The resume state of a segment.
        config: The run's config.
        model: The run's architecture.
        complete: Whether the optimizer's state must be present. By default the optimizer's whole state, or the
            gradient filter's, may be absent, because a fork may start with either of them empty.

    Raises:
        GrokscopeError: An entry is missing or unknown, or its type or shape is wrong.
    """
    parameters = {name: torch.empty(shape) for name, shape in model.shapes.items()}
    expected = {
        **_SCALARS,
        **new_stop_state(config),
        **{f"parameters/{name}": tensor for name, tensor in parameters.items()},
    }
    for part in expected_state(config.optimizer, {name: parameters[name] for name in model.trained}):
        entries = {_OPTIMIZER + name: tensor for name, tensor in part.items()}
        if complete or entries.keys() & resume_state.keys():
            expected |= entries
    missing = sorted(expected.keys() - resume_state.keys())
    unknown = sorted(resume_state.keys() - expected.keys())
    messages = [f"it lacks {', '.join(missing)}"] if missing else []
    messages += [f"it has unknown {', '.join(unknown)}"] if unknown else []
    messages += [
        f"{name} is {_kind(resume_state[name])}, not {_kind(expected[name])}"
        for name in sorted(expected.keys() & resume_state.keys())
        if _kind(resume_state[name]) != _kind(expected[name])
    ]
    if messages:
        raise GrokscopeError(f"The resume state does not fit the run: {'; '.join(messages)}.")


def new_stop_state(config: RunConfig) -> dict[str, Tensor]:
    """Return the entries of a resume state for a stop rule that has seen no evaluation; none without a rule."""
    if not config.stop:
        return {}
    return {"stop/since": torch.full((len(stop_rule.parse(config.stop)),), -1), "stop/step": torch.tensor(-1)}


def stored_initialization(run: RunStore, model: Model) -> dict[str, Tensor]:
    """Return the parameters of step 0 that a run has stored, in a fork those of its origin.

    Raises:
        GrokscopeError: They are not stored, or damaged.
    """
    arrays = run.initialization() or {name: rows[0] for name, rows in run.read(model.shapes, [0]).items()}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def latest_state(learner: Learner, run: RunStore, step: int) -> tuple[State, Mapping[str, Tensor]]:
    """Return the latest readable state at or before a step, and the resume state that it comes from.

    Args:
        learner: The run's learner.
        run: The run's store.
        step: The last step that is allowed.

    Returns:
        The state, and its resume state.

    Raises:
        GrokscopeError: No resume state at or before `step` can be read; the error names each damaged one.
    """
    messages = list(run.damaged)
    for segment in reversed(run.resume_points()):
        if (segment.resume_step or 0) <= step:
            try:
                return state_from_segment(learner, segment)
            except GrokscopeError as error:
                messages.append(str(error))
    raise GrokscopeError(
        f"{run.folder} has no readable resume state at or before step {step}. {' '.join(messages)}".strip()
    )


def state_from_segment(learner: Learner, segment: Segment) -> tuple[State, Mapping[str, Tensor]]:
    """Return the state at a segment's end and the resume state that it comes from.

    Args:
        learner: The run's learner.
        segment: A segment with a resume state.

    Returns:
        The state, and its resume state.

    Raises:
        GrokscopeError: The resume state is damaged, or does not fit the run; the error names the segment.
    """
    resume_state = {name: torch.from_numpy(array) for name, array in segment.resume_state().items()}
    try:
        require_resumable(resume_state, learner.config, learner.model)
    except GrokscopeError as error:
        raise GrokscopeError(f"{segment.path} is damaged. {error}") from error
    return learner.resumed_state(resume_state), resume_state


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"
