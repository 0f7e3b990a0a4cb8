"""Settings that neither the files nor the caller name: their candidates are tried, and the caller is asked.

A candidate is never chosen silently. The question names the settings, and the candidates that answer most equations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from grokscope.errors import GrokscopeError

CLEAR_GAIN = 0.05
"""The gain in accuracy over all equations from which other settings fit clearly better."""
_MOST_TRIALS = 64
"""The most combinations of candidates that are tried."""
_MOST_NAMED = 4
"""The most combinations that an error names."""
_WORDS = {
    "n_heads": "the number of heads",
    "act_fn": "the activation function",
    "mlp.act_fn": "the activation function",
    "attention_dir": "the direction of attention",
    "attention_alpha": "the share α of softmax in its attention patterns",
    "normalization_type": "its normalization",
    "positions": "its position embeddings",
}


@dataclass(frozen=True)
class Trial:
    """How well a network with some candidates answers the equations."""

    accuracy: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """The key that sorts the best trial first: the accuracy in whole percent, then the loss."""
        return -round(self.accuracy, 2), self.loss


def settle(
    unknown: Mapping[str, Sequence[Any]],
    stated: Mapping[str, Any] | None,
    evaluate: Callable[[Mapping[str, Any]], Trial | None],
) -> list[str]:
    """Return sentences on the settings that the caller's config decides because the files do not name them.

    Args:
        unknown: The settings that the files leave open, each with its candidates.
        stated: The values of these settings in the caller's config; None if the caller described no config.
        evaluate: Evaluates candidates; returns None if they do not fit the weights.

    Raises:
        GrokscopeError: The caller described no config, or other values fit clearly better than the caller's.
    """
    if not unknown:
        return []
    results = {}
    for values in _candidates(unknown, stated):
        if trial := evaluate(dict(zip(unknown, values, strict=True))):
            results[values] = trial
    ranking = sorted(results, key=lambda values: results[values].rank)
    names = _joined([_WORDS[name] for name in unknown])
    if stated is None:
        raise GrokscopeError(f"The files do not name {names}. {_advice(unknown, ranking, results)}")
    own = tuple(stated[name] for name in unknown)
    accuracy = results[own].accuracy if own in results else 0.0
    if ranking and results[ranking[0]].accuracy > accuracy + CLEAR_GAIN:
        raise GrokscopeError(
            f"The files do not name {names}. The accuracy over all equations is {results[ranking[0]].accuracy:.1%} "
            f"with {_values(ranking[0])} and {accuracy:.1%} with {_values(own)}. Add {_flags(unknown, ranking[0])} "
            f"or {_flags(unknown, own)}."
        )
    verb = "is" if len(unknown) == 1 else "are"
    return [f"The files do not name {names}; {_values(own)} {verb} the config's."]


def _candidates(unknown: Mapping[str, Sequence[Any]], stated: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
    """Return the combinations of candidates to try, with the caller's first."""
    combinations = list(product(*unknown.values()))[:_MOST_TRIALS]
    own = tuple(stated[name] for name in unknown) if stated else None
    return combinations if own is None or own in combinations else [own, *combinations]


def _advice(
    unknown: Mapping[str, Sequence[Any]], ranking: list[tuple[Any, ...]], results: Mapping[tuple[Any, ...], Trial]
) -> str:
    """Return which flags to add, with the results of the combinations that fit, or of the two best.

    A lower loss alone does not identify an activation: "quadratic" instead of "relu" enlarges every logit.
    """
    flags = " ".join(f"--model.{name.replace('_', '-')} …" for name in unknown)
    if not ranking:
        return f"Add {flags}."
    best = results[ranking[0]].accuracy
    fitting = [values for values in ranking if results[values].accuracy >= best - CLEAR_GAIN][:_MOST_NAMED]
    if len(fitting) > 1:
        verdict = "The weights cannot tell which, because several values fit"
        named = fitting
    else:
        verdict = f"Of the values tried, {_flags(unknown, ranking[0])} fits best"
        named = ranking[:2]
    listed = "; ".join(f"{_values(values)} with {_result(results[values])}" for values in named)
    return f"Add {flags} as in its code. {verdict}: {listed}."


def _result(trial: Trial) -> str:
    return f"accuracy {trial.accuracy:.1%} and loss {trial.loss:.3g} over all equations"


def _flags(unknown: Mapping[str, Sequence[Any]], values: tuple[Any, ...]) -> str:
    return " ".join(f"--model.{name.replace('_', '-')} {value}" for name, value in zip(unknown, values, strict=True))


def _values(values: tuple[Any, ...]) -> str:
    return _joined([repr(value) for value in values])


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
