"""The state that training changes, and the error for a state that is not finite."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from grokscope.errors import GrokscopeError


class NotFiniteError(GrokscopeError):
    """A loss, gradient, parameter or optimizer tensor contains NaN or an infinity.

    Attributes:
        step: The step at which the value was computed.
        resumable: Whether the state at `step` is itself finite and can be committed. A resume from it fails at the
            same step.
    """

    def __init__(self, subject: str, step: int, last_finite: int, *, resumable: bool):
        super().__init__(
            f"{subject} is not finite at step {step}; the last finite step is {last_finite}. Everything saved is "
            f"intact. Try a smaller optimizer.lr or model.init_scale, or loss_dtype 'float64'."
        )
        self.step, self.resumable = step, resumable


@runtime_checkable
class StatefulOptimizer(Protocol):
    """The part of an optimizer that `State` needs: `state()`."""

    def state(self) -> dict[str, Tensor]:
        """Return copies of the optimizer's tensors on the CPU, named "parameter/quantity"."""
        ...


@dataclass
class State:
    """Everything that an update changes."""

    step: int
    """The number of updates made."""
    parameters: dict[str, Tensor]
    """The parameters by name; updates change them in place."""
    optimizer: StatefulOptimizer
    """The optimizer, which has a state of its own."""
    require_finite: Callable[[], None] = lambda: None
    """Raises NotFiniteError if a value was not finite in an update that was not checked yet."""
