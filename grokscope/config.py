"""What a run is: frozen dataclasses, the same for Python, TOML, the command line and ``config.json``.

Construction never raises. `RunConfig.faults` collects what is wrong over the whole tree and
`RunConfig.validate` raises one GrokscopeError that names every fault with what is allowed.
"""

import dataclasses
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grokscope import plugins, schedule
from grokscope.errors import GrokscopeError

TOKEN_FORMS = ("a b =", "a ∘ b =")
LARGEST_P = 2003


@dataclass(frozen=True)
class _Allowed:
    """What a field may hold: in words, as a test, and the type that its value has in ``config.json``."""

    words: str
    test: Callable[[Any], bool] | None
    """None for a value that other code judges: a registered name, a schedule."""
    kind: Callable[[Any], Any]


def _field(default: Any, words: str, test: Callable[[Any], bool] | None, kind: Callable[[Any], Any]) -> Any:
    return field(default=default, metadata={"allowed": _Allowed(words, test, kind)})


def _is_number(value: object) -> bool:
    # The comparison refuses what is not a number, infinite, or an integer too large to be a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _integer(default: int | None, low: int, high: int = 2**62, *, none: str = "") -> Any:
    words = f"a whole number from {low}" + (f" to {high}" if high < 2**62 else "")

    def test(value: object) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return whole or (bool(none) and value is None)

    return _field(default, words + (f", or none for {none}" if none else ""), test, lambda value: value)


def _number(default: float, words: str, test: Callable[[float], bool]) -> Any:
    return _field(default, words, lambda value: _is_number(value) and test(value), float)


def _choice(default: str | None, *allowed: str | None) -> Any:
    words = " or ".join("none" if name is None else repr(name) for name in allowed)
    return _field(default, words, lambda value: _is_among(value, allowed), lambda value: value)


def _registered(default: str, kind: str) -> Any:
    return _field(default, f"a name that `grokscope list {kind}` prints", None, str)


def _is_among(value: object, allowed: Sequence[str | None]) -> bool:
    # What is no text may not even be comparable, such as an array.
    return (value is None or isinstance(value, str)) and value in allowed


def is_prime(value: int) -> bool:
    """Return whether `value` is a prime number."""
    return value > 1 and all(value % divisor for divisor in range(2, math.isqrt(value) + 1))


@dataclass(frozen=True)
class TaskConfig:
    """Which binary operation is learned, on which numbers, and how much of its table is shown."""

    name: str = _registered("addition", "tasks")
    """The operation: one of the names that `grokscope list tasks` prints."""
    p: int = _field(
        113,
        f"a prime from 3 to {LARGEST_P}",
        lambda value: isinstance(value, int) and 3 <= value <= LARGEST_P and is_prime(value),
        int,
    )
    """The modulus, a prime: the operands are 0 … p − 1."""
    train_fraction: float = _number(0.3, "a number between 0 and 1, both excluded", lambda value: 0 < value < 1)
    """The share of all equations that is trained on; the rest is the test set."""
    form: str = _choice("a b =", *TOKEN_FORMS)
    """How an equation is written in tokens: "a b =" or "a ∘ b ="; the answer is read at the "="."""


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer that HookedTransformer can hold, with learned positions."""

    n_layers: int = _integer(1, 1, 12)
    """The number of transformer blocks."""
    d_model: int = _integer(128, 2, 4096)
    """The width of the residual stream."""
    n_heads: int = _integer(4, 1, 64)
    """The number of attention heads in each block; it divides d_model, and d_head = d_model / n_heads."""
    d_mlp: int = _integer(512, 1, 16384)
    """The number of neurons in each block's MLP."""
    act_fn: str = _choice("relu", "relu", "gelu")
    """The neurons' activation function: "relu" or "gelu"."""
    normalization_type: str | None = _choice(None, None, "LN")
    """"LN" for LayerNorm before attention, MLP and unembedding, or none for no normalization at all."""
    biases: str = _choice("mlp", "all", "mlp", "none")
    """Which linear layers' biases are trained: "all", "mlp" (Nanda et al. 2023) or "none"; the rest stay zero."""
    init_scale: float = _number(1.0, "a number above 0 and up to 100", lambda value: 0 < value <= 100)
    """A factor on every initial weight matrix (Liu et al. 2022, Omnigrok: α)."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How the gradient becomes an update."""

    name: str = _registered("adamw", "optimizers")
    """The optimizer: one of the names that `grokscope list optimizers` prints."""
    lr: float = _number(1e-3, "a number above 0 and up to 100", lambda value: 0 < value <= 100)
    """The learning rate after warm-up."""
    weight_decay: float = _number(1.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """The decoupled weight decay: each update shrinks the weights by lr · weight_decay (Loshchilov & Hutter 2019)."""
    betas: tuple[float, float] = _field(
        (0.9, 0.98),
        "two numbers from 0 to below 1",
        lambda value: (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(_is_number(beta) and 0 <= beta < 1 for beta in value)
        ),
        lambda value: [float(beta) for beta in value],
    )
    """Adam's two decay rates, of the gradient's mean and of its square's mean."""
    warmup_steps: int = _integer(10, 0)
    """Update number u = 0, 1, … has lr · min(u / warmup_steps, 1); with 0 every update has lr."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run: with the same RunConfig and environment come the same bits."""

    task: TaskConfig = field(default_factory=TaskConfig)
    """What is learned."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """What learns it."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How it learns."""
    checkpoints: str = _field("every 100", "terms joined by '+'", None, str)
    """Which steps are kept, such as "every 100 + log 200 + pythia 1000 + window 2000 4000 5 + adaptive 0.1"."""
    max_checkpoints: int = _integer(10_000, 2, 10_000_000)
    """The most checkpoints: a fixed schedule beyond it is refused, an adaptive one stops taking more."""
    n_steps: int = _integer(40_000, 1, 10**9)
    """The number of optimizer updates."""
    batch_size: int | None = _integer(None, 1, none="the full training set")
    """The examples in a batch, or none for the full training set at every step."""
    evaluate_every: int = _integer(10, 1)
    """The number of steps between two rows of the log (losses and accuracies on train and test)."""
    loss_dtype: str = _choice("float64", "float32", "float64")
    """The precision of the log-softmax; parameters are float32. After memorization float32 loses the gradient."""
    device: str = _field(
        "cpu",
        "'cpu', 'cuda' or 'cuda:N'",
        lambda value: isinstance(value, str) and re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]?))?", value) is not None,
        str,
    )
    """Where training runs: "cpu", "cuda" or "cuda:N"."""
    split_seed: int = _integer(0, 0)
    """The seed of the train/test split."""
    init_seed: int = _integer(0, 0)
    """The seed of the initial weights."""
    training_seed: int = _integer(0, 0)
    """The seed of everything random during training: the batches."""

    def faults(self) -> list[str]:
        """Return every fault of the whole tree, one sentence each with what is allowed; empty if there is none."""
        found = list(_field_faults(self, ""))

        def sound(*names: str) -> bool:
            """Whether these fields have possible values, so that one can say what contradicts what."""
            return not any(fault.startswith(f"{name}:") for name in names for fault in found)

        if sound("model", "model.d_model", "model.n_heads") and self.model.d_model % self.model.n_heads:
            divisors = [n for n in range(1, 65) if self.model.d_model % n == 0]
            found.append(
                f"model.n_heads: {self.model.n_heads} does not divide d_model = {self.model.d_model}; "
                f"allowed: {', '.join(map(str, divisors))}"
            )
        n_steps = self.n_steps if sound("n_steps") else None
        unreadable = schedule.faults(self.checkpoints, n_steps)
        found += [f"checkpoints: {fault}" for fault in unreadable]
        if not unreadable and n_steps is not None and sound("max_checkpoints"):
            parsed = schedule.parse(self.checkpoints)
            # A term may ask for more steps than there is memory, so they are built only if they are few.
            n_fixed = parsed.largest_term(n_steps)
            if n_fixed <= self.max_checkpoints:
                n_fixed = len(parsed.fixed_steps(n_steps))
            if n_fixed > self.max_checkpoints:
                found.append(
                    f"checkpoints: {self.checkpoints!r} takes {n_fixed:,} checkpoints in {n_steps:,} steps; "
                    f"allowed: up to max_checkpoints = {self.max_checkpoints:,}"
                )
        return found

    def validate(self) -> "RunConfig":
        """Return the config itself, or raise one GrokscopeError that names every fault."""
        return _refuse(self.faults(), self)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON values, floats as floats, in the order of the fields."""
        return _to_dict(self)

    @property
    def digest(self) -> str:
        """The SHA-256 of the config without `n_steps`: what must not change in the life of a run."""
        rest = {name: value for name, value in self.to_dict().items() if name != "n_steps"}
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def from_dict(values: Mapping[str, Any], base: RunConfig | None = None) -> RunConfig:
    """Build a valid RunConfig from nested plain values over `base`; one GrokscopeError names every fault.

    The text "none" stands for none in a field that admits it, since TOML has no null.
    """
    config, unknown = _from_dict(base or RunConfig(), values, "")
    return _refuse(unknown + config.faults(), config)


def _refuse(found: list[str], config: RunConfig) -> RunConfig:
    if not found:
        return config
    if len(found) == 1:
        raise GrokscopeError(f"One setting cannot be used: {found[0]}.")
    raise GrokscopeError(f"{len(found)} settings cannot be used:\n" + "\n".join(f"  {fault}" for fault in found))


def _field_faults(config: Any, prefix: str) -> Iterator[str]:
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), prefix + item.name
        allowed: _Allowed | None = item.metadata.get("allowed")
        if allowed is None:
            part = item.default_factory
            if isinstance(value, part):  # pyright: ignore[reportArgumentType]
                yield from _field_faults(value, f"{name}.")
            else:
                yield f"{name}: {_shown(value)} is no {part.__name__}"  # pyright: ignore[reportAttributeAccessIssue]
        elif name in ("task.name", "optimizer.name"):
            kind = name.split(".")[0]
            if not _is_among(value, plugins.names(f"{kind}s")):
                yield f"{name}: " + plugins.unknown(kind, value, plugins.names(f"{kind}s")).rstrip(".")
        elif allowed.test is not None and not allowed.test(value):
            yield f"{name}: {_shown(value)}; allowed: {allowed.words}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not write out an integer of more than 4,300 digits.
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "…"


def _to_dict(config: Any) -> dict[str, Any]:
    values = {}
    for item in dataclasses.fields(config):
        value, allowed = getattr(config, item.name), item.metadata.get("allowed")
        values[item.name] = allowed.kind(value) if allowed else _to_dict(value)
    return values


def _from_dict(base: Any, values: Mapping[str, Any], prefix: str) -> tuple[Any, list[str]]:
    fields = {item.name: item for item in dataclasses.fields(base)}
    changes, found = {}, []
    for key, value in values.items():
        if key not in fields:
            found.append(plugins.unknown("setting", prefix + key, [prefix + name for name in fields]))
        elif dataclasses.is_dataclass(getattr(base, key)):
            if isinstance(value, Mapping):
                changes[key], deeper = _from_dict(getattr(base, key), value, f"{prefix}{key}.")
                found += deeper
            else:
                found.append(f"{prefix}{key}: {_shown(value)} is no table of settings")
        else:
            test = fields[key].metadata["allowed"].test
            is_none = value == "none" and test is not None and test(None)
            changes[key] = None if is_none else tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(base, **changes), [fault.rstrip(".") for fault in found]
