"""Variable: the description of one array of a series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

ROLES = ("value", "coordinate", "stderr", "residual", "interval", "shuffled", "initialization")
"""The roles of a variable: a measured value; the labels along a dimension; or a companion of another variable: its
standard error, its residual, its interval, its control with the order shuffled, its value for the untrained model."""


@dataclass(frozen=True)
class Variable:
    """The description of one array of a series."""

    label: str = ""
    """The array in a few words, as an axis or a legend names it. "{loss} " stands for the run's loss function."""
    unit: str = ""
    """The unit, such as "nats"; empty for a pure number."""
    dims: tuple[str, ...] = ()
    """The names of the dimensions after the step, such as ("token", "component")."""
    is_logarithmic: bool = False
    """Whether a logarithmic axis shows it best."""
    role: str = "value"
    """One of ROLES."""
    of: str = ""
    """The array that this one is the error, the interval or the control of."""

    def with_loss(self, loss: str) -> "Variable":
        """Return the description with a loss function, such as "softmax", in its label; "" leaves it out."""
        return replace(self, label=self.label.replace("{loss} ", f"{loss} " if loss else ""))


def with_companions(variables: Mapping[str, Variable], **roles: Sequence[str]) -> dict[str, Variable]:
    """Return descriptions with those of the arrays that accompany them: errors, intervals and controls.

    The array of a role is called NAME_ROLE, such as `sharpness_residual`. A shuffled control has its own standard
    error, NAME_shuffled_stderr.

    Args:
        variables: The description of each value and coordinate by its name.
        **roles: For each role ("stderr", "residual", "interval", "shuffled", "initialization"), the arrays that have
            such a companion; an array named in an earlier role counts too, such as "x_stderr".
    """
    described = dict(variables)
    for role, names in roles.items():
        for name in names:
            value = described[name]
            dims = (*value.dims, "bound") if role == "interval" else value.dims
            described[f"{name}_{role}"] = replace(value, dims=dims, role=role, of=name)
            if role == "shuffled":
                described[f"{name}_shuffled_stderr"] = replace(value, role="stderr", of=f"{name}_shuffled")
    return described
