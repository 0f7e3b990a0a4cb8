"""The search for values that are not finite, without reading a value back at every step.

A loss that is not finite stays in a running sum, and a gradient that is not finite stays in its weights. One look at
both every so many steps is therefore enough. If it finds a fault, the steps since the last look are repeated from a
copy, each with a full check. The first faulty step raises the error.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from grokscope.training.optimizers import Optimizer
from grokscope.training.state import NotFiniteError, State


class FinitenessWatch:
    """Finds the first step with a value that is not finite.

    Args:
        state: A state whose values are finite; updates change it in place.
        optimizer: Its optimizer.
        trained: Its trained parameters by name.
        repeat: Makes the next update of the state with a check of every value, or raises NotFiniteError.
        interval: The most updates between two looks.
    """

    def __init__(
        self,
        state: State,
        optimizer: Optimizer,
        trained: Mapping[str, Tensor],
        repeat: Callable[[], None],
        interval: int,
    ):
        self._state, self._optimizer, self._repeat, self._interval = state, optimizer, repeat, interval
        self._trained = [tensor.detach() for tensor in trained.values()]
        self._total = torch.zeros((), dtype=torch.float64, device=self._trained[0].device)
        self._keep_copy()

    def _keep_copy(self) -> None:
        self._step, self._parameters = self._state.step, [tensor.clone() for tensor in self._trained]
        self._optimizer_state = self._optimizer.copied_state()

    def add(self, loss: Tensor) -> None:
        """Take the loss of an update that was made; look if `interval` updates were made since the last look."""
        self._total += loss
        if self._state.step - self._step >= self._interval:
            self.look()

    def look(self) -> None:
        """Raise NotFiniteError if a value was not finite since the last look; the state is then that of the fault."""
        if self._state.step == self._step:
            return
        if not bool((self._total + torch.nn.utils.get_total_norm(self._trained)).isfinite()):
            self._find_fault()
        self._total.zero_()
        self._keep_copy()

    @torch.no_grad()
    def _find_fault(self) -> None:
        """Repeat the updates since the last look with full checks, up to the first fault."""
        last, self._state.step = self._state.step, self._step
        # The error is raised once; the state that it leaves can be committed.
        self._state.require_finite = lambda: None
        for tensor, copy in zip(self._trained, self._parameters, strict=True):
            tensor.copy_(copy)
        self._optimizer.load(self._optimizer_state)
        with torch.enable_grad():
            while self._state.step < last:
                self._repeat()
        self._state.require_finite = self.look


def require_finite(step: int, tensors: Mapping[str, Tensor], *, resumable: bool) -> None:
    """Raise NotFiniteError that names the first tensor with a value that is not finite.

    Args:
        step: The step at which the values were computed.
        tensors: The values by the subject of the error message.
        resumable: Whether the state at `step` is itself finite.
    """
    total = torch.nn.utils.get_total_norm(list(tensors.values()))
    if torch.isfinite(total):
        return
    # The norm of finite numbers may overflow, so only the elements decide.
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise NotFiniteError(name, step, step - 1, resumable=resumable)
