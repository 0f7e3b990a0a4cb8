"""The report in words: a summary, detail sentences and headline numbers, all computed from measured numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from grokscope import phases
from grokscope.circuits.clock_and_pizza import verdict
from grokscope.series import Series

_GROKKING_RATIO = 2
"""A run grokked if generalisation took at least this many times the steps of memorization."""
_MOST_NAMED = 12
"""The most frequencies or representations that a sentence names; of more it gives the number."""
_NEAR = 0.25
"""A checkpoint is near an event if their steps differ by at most this share of the event's step."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Headline:
    """One headline number."""

    name: str
    """The quantity."""
    value: str
    """The number with its unit."""
    context: str = ""
    """The numbers to compare it with, such as a control."""


def summary(log: Series, n_steps: int = 0, *, is_fresh: bool = False) -> str:
    """Return one sentence on whether a run memorized, generalised and grokked.

    Args:
        log: The run's log.
        n_steps: The planned number of steps. If the log ends earlier, the sentence describes an unfinished run. 0,
            the default, takes every run as finished.
        is_fresh: Whether every batch is new, so that there is nothing to memorize.
    """
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    first, last = int(log.steps[0]), int(log.steps[-1])
    if "train_accuracy" not in log:
        return (
            f"The training set is unknown, so every loss here covers all equations: at step {last:,} their accuracy "
            f"is {log['accuracy'][-1]:.2%}."
        )
    is_unfinished = last < n_steps
    period = f"by step {last:,} of {n_steps:,}" if is_unfinished else f"within {last:,} steps"
    if is_fresh:
        learned = (
            f"learned the task by step {generalised.step:,}" if generalised else f"has not learned the task {period}"
        )
        return f"The model {learned}: its test accuracy is {log['test_accuracy'][-1]:.1%}. Every batch was new."
    if memorized is None:
        outlook = ": it is too early to say more" if is_unfinished else ", so it could not grok"
        return f"The model has not memorized its training set {period}{outlook}."
    start = f"The model memorized its training set by step {memorized.step:,}"
    if generalised is None:
        return f"{start} and has not generalised {period}: its test accuracy is {log['test_accuracy'][-1]:.1%}."
    if first:
        return f"{start} and generalised by step {generalised.step:,}; its log begins at step {first:,}."
    if generalised.step <= memorized.step:
        return f"{start} and had generalised by then: there was no delay, so this is not grokking."
    start += f" and generalised at step {generalised.step:,}"
    if not memorized.step:
        return f"{start}: it grokked."
    ratio = generalised.step / memorized.step
    times = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"
    conclusion = "it grokked" if ratio >= _GROKKING_RATIO else "there was hardly a delay"
    return f"{start}, after {times} times as many steps: {conclusion}."


def details(log: Series, series: Mapping[str, Series]) -> list[str]:
    """Return one sentence for each measured topic: circles, frequencies, algorithm, phases, sharpness.

    Args:
        log: The run's log.
        series: The measures by name; topics without a measure are left out.
    """
    sentences = []
    embedding = series.get("embedding")
    if embedding is not None and "circularity" in embedding:
        sentences.append(_embedding_sentence(embedding))
    spectrum = series.get("progress", series.get("fourier"))
    if spectrum is not None and "key_frequencies" in spectrum:
        sentences.append(_logits_sentence(spectrum["key_frequencies"]))
    if "representations" in series:
        sentences.append(_representations_sentence(series["representations"]))
    if "progress" in series:
        ends = phases.nanda_phases(series["progress"])
        clauses = [f"{name} ended {_interval(end)}" for name, end in ends]
        if clauses:
            sentences.append(f"By the phases of Nanda et al., {'; '.join(clauses)}.")
    if "algorithm" in series:
        sentences.append(verdict(series["algorithm"]).sentence)
    if "sharpness" in series:
        sentences.append(_sharpness_sentence(log, series["sharpness"]))
    return sentences


def headlines(log: Series, series: Mapping[str, Series], n_steps: int = 0) -> list[Headline]:
    """Return the headline numbers, each with the numbers to compare it with.

    Args:
        log: The run's log.
        series: The measures by name; headlines without a measure are left out.
        n_steps: The planned number of steps, as in `summary`.
    """
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    is_unfinished = log.steps[-1] < n_steps
    last, missing = ("current", "not yet") if is_unfinished else ("final", "not within the run")
    if "train_accuracy" in log:
        accuracy = log["test_accuracy"]
        lines = [
            _crossing("memorized (train accuracy ≥ 99%)", memorized, missing),
            _crossing("generalised (test accuracy ≥ 99%)", generalised, missing),
            _loss(log, "train_loss", last, _over_steps(log, f"{log['train_loss'][0]:.2f} at the start")),
            _loss(log, "test_loss", last, _over_steps(log, f"highest {log['test_loss'].max():.2f}")),
            Headline(
                f"{last} test accuracy", f"{accuracy[-1]:.2%}", _over_steps(log, f"highest {accuracy.max():.2%}")
            ),
        ]
    else:
        lines = [
            _loss(log, "loss", last, _over_steps(log, f"highest {format_number(log['loss'].max())}")),
            Headline(f"{last} accuracy over all equations", f"{log['accuracy'][-1]:.2%}"),
        ]
    if "weight_norm" in series:
        norm = series["weight_norm"]["weight_norm"]
        context = f"{format_number(norm[0])} at the start, highest {format_number(norm.max())}"
        context = _over_steps(series["weight_norm"], context)
        lines.append(Headline(f"{last} weight norm", format_number(norm[-1]), context))
    embedding = series.get("embedding")
    if embedding is not None and "circularity" in embedding:
        lines += [
            Headline(
                f"{last} circularity of PCs 1–4",
                f"{embedding['circularity'][-1]:.3f}",
                f"untrained {embedding['circularity_initialization']:.3f}, "
                f"shuffled {embedding['circularity_shuffled'][-1]:.3f}",
            ),
            Headline(
                "key frequencies of the embedding",
                _distinct_frequencies(embedding) or "no distinct frequency",
                f"{embedding['key_frequency_share'][-1]:.1%} of variance, "
                f"shuffled {embedding['key_frequency_share_shuffled'][-1]:.1%}",
            ),
        ]
    if "sharpness" in series:
        top, steps = series["sharpness"]["sharpness"], series["sharpness"].steps
        peak = int(top.argmax())
        highest = f"highest measured {format_number(top[peak])} at step {steps[peak]:,}"
        context = _over_steps(series["sharpness"], f"{format_number(top[0])} at the start, {highest}")
        lines.append(
            Headline(
                f"{last} top Hessian eigenvalue, {_train_loss(series['sharpness'])}", format_number(top[-1]), context
            )
        )
    return lines


def format_number(value: float) -> str:
    """Return a number with three significant digits, such as 0.0125 or 3.65·10⁻⁵."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}" if exponent else mantissa


def _embedding_sentence(embedding: Series) -> str:
    share, shuffled = embedding["key_frequency_share"], embedding["key_frequency_share_shuffled"]
    step, n_all = f"{embedding.steps[-1]:,}", len(embedding["frequencies"])
    count = f"{len(embedding['key_frequencies'])} of {n_all} frequencies"
    frequencies = _distinct_frequencies(embedding)
    if not frequencies:
        return (
            f"At step {step}, no frequency of the embedding is distinct: {count} are within a factor of 4 of the "
            "strongest."
        )
    first = f"{share[0]:.1%} at the first checkpoint and " if len(share) > 1 else ""
    return (
        f"At step {step}, {count} ({frequencies}) hold {share[-1]:.1%} of the embedding's variance, compared with "
        f"{first}{shuffled[-1]:.1%} with shuffled tokens."
    )


def _logits_sentence(frequencies: np.ndarray) -> str:
    if not len(frequencies):
        return "The logits depend on no single frequency: removing any one of them hardly raises the softmax loss."
    if len(frequencies) == 1:
        return f"The logits use frequency {frequencies[0]}: removing it raises the softmax loss."
    if len(frequencies) > _MOST_NAMED:
        return f"The logits use {len(frequencies)} frequencies: removing any one of them raises the softmax loss."
    return f"The logits use frequencies {_join(frequencies)}: removing any one of them raises the softmax loss."


def _representations_sentence(representations: Series) -> str:
    words, keys = representations.words("representations"), representations["key_representations"]
    names = ", ".join(words[int(i)] for i in keys) or "none"
    if len(keys) > _MOST_NAMED:
        names = f"{len(keys)} of {len(words)}"
    return (
        f"The characters of the key representations ({names}) explain "
        f"{representations['logit_variance_explained'][-1]:.0%} of the logits' variance, compared with "
        f"{representations['logit_variance_explained_initialization']:.0%} in the untrained model."
    )


def _sharpness_sentence(log: Series, sharpness: Series) -> str:
    """Return the sharpness at the run's landmarks."""
    top, steps = sharpness["sharpness"], sharpness.steps
    if len(steps) == 1:
        return f"The sharpness of the {_train_loss(sharpness)} at step {steps[0]:,} is {format_number(top[0])}."
    words = {"first": "first checkpoint", "highest": "highest", "memorized": "near memorization"}
    words |= {"generalised": "near generalisation", "last": "last checkpoint"}
    crossings = {"memorized": phases.memorization_step(log), "generalised": phases.generalisation_step(log)}
    # Two landmarks may share a checkpoint, and the checkpoint nearest to an event may be far from it.
    landmarks: dict[int, list[str]] = {}
    for name, row in phases.landmarks(log, steps, top):
        crossing = crossings.get(name)
        if crossing is None or abs(int(steps[row]) - crossing.step) <= _NEAR * crossing.step:
            landmarks.setdefault(row, []).append(words[name])
    clauses = [
        f"{format_number(top[row])} ({' and '.join(names)}, step {steps[row]:,})" for row, names in landmarks.items()
    ]
    start = f"The sharpness of the {_train_loss(sharpness)}, measured at {len(steps):,} checkpoints"
    return f"{start}: {' → '.join(clauses)}."


def _distinct_frequencies(embedding: Series) -> str:
    """Return the key frequencies as a list; empty if they are more than half of all frequencies."""
    frequencies = embedding["key_frequencies"]
    return _join(frequencies) if 2 * len(frequencies) <= len(embedding["frequencies"]) else ""


def _loss(log: Series, name: str, last: str, context: str) -> Headline:
    return Headline(f"{last} {log.variable(name).label}", f"{format_number(log[name][-1])} nats", context)


def _train_loss(series: Series) -> str:
    return f"{series.loss} train loss".lstrip()


def _interval(crossing: phases.Crossing) -> str:
    is_first = crossing.after < 0
    return f"at step {crossing.step:,}" if is_first else f"between steps {crossing.after:,} and {crossing.step:,}"


def _join(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _over_steps(series: Series, context: str) -> str:
    """Return a number's history over the steps; empty for a single step, which has none."""
    return context if len(series.steps) > 1 else ""


def _crossing(name: str, crossing: phases.Crossing | None, missing: str) -> Headline:
    """Return the step of an event, with the evaluation before it as context."""
    if crossing is None:
        return Headline(name, missing)
    if not crossing.is_seen:
        return Headline(name, f"by step {crossing.step:,}", "or earlier: the log begins there")
    context = f"not yet at step {crossing.after:,}" if crossing.after >= 0 else "at the first evaluation"
    return Headline(name, f"step {crossing.step:,}", context)
