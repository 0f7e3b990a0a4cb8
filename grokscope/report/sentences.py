"""The report in words: a summary and headline numbers, from what was measured alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from grokscope import phases
from grokscope.circuits.clock_and_pizza import verdict
from grokscope.series import Series

_GROKKED = 2
"""How many times as late as memorization generalisation must come to be called grokking."""
_NEAR = 0.25
"""Within which share of an event's step a checkpoint is said to be near it."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Finding:
    """One headline number: what it is, the number with its unit, and what stands beside it for comparison."""

    name: str
    value: str
    beside: str = ""


def summary(log: Series, n_steps: int = 0) -> str:
    """Say in a few plain sentences what happened, from the numbers alone; with fewer steps than `n_steps`, so far."""
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    last = int(log.steps[-1])
    present = f"by step {last:,} of {n_steps:,}" if last < n_steps else f"within {last:,} steps"
    if memorized is None and last < n_steps:
        return f"The model has not memorized its training set {present}: it is too early to say more."
    if memorized is None:
        return f"The model has not memorized its training set {present}, so there is no grokking to see."
    said = f"The model memorized its training set by step {memorized.step:,}"
    if generalised is None:
        accuracy = log["test_accuracy"][-1]
        return f"{said} and has not generalised {present}: the test accuracy is {accuracy:.1%}."
    if int(log.steps[0]):
        return f"{said} and generalised by step {generalised.step:,}; its log begins at step {int(log.steps[0]):,}."
    if generalised.step <= memorized.step:
        return f"{said} and generalised with it: there was no delay, and so no grokking."
    said += f" and generalised at step {generalised.step:,}"
    ratio = generalised.step / memorized.step if memorized.step else float("inf")
    late = (
        ""
        if ratio == float("inf")
        else f", {ratio:.0f} times as late"
        if ratio >= 10
        else f", {ratio:.2g} times as late"
    )
    return f"{said}{late}: {'it grokked' if ratio >= _GROKKED else 'there was hardly a delay'}."


def details(log: Series, series: Mapping[str, Series]) -> list[str]:
    """Return further sentences, each about one thing that was measured: circles, algorithm, phases, sharpness."""
    said = []
    embedding = series.get("embedding")
    if embedding is not None and "circularity" in embedding:
        share, shuffled = embedding["key_frequency_share"], embedding["key_frequency_share_shuffled"]
        stand_out = f"{len(embedding['key_frequencies'])} of {len(embedding['frequencies'])} frequencies"
        said.append(
            f"At step {embedding.steps[-1]:,} {stand_out} hold {share[-1]:.1%} of the embedding's variance, against "
            f"{share[0]:.1%} at the first checkpoint and {shuffled[-1]:.1%} with the tokens shuffled: {key}."
            if (key := _standing_out(embedding))
            else f"At step {embedding.steps[-1]:,} no frequency of the embedding stands out: {stand_out} are within "
            "a factor 4 of the strongest."
        )
    named = series.get("progress", series.get("fourier"))
    if named is not None and "key_frequencies" in named:
        key = named["key_frequencies"]
        said.append(
            f"The logits use {len(key)} of them, by a rule confirmed by removing each: {_list(key)}."
            if len(key)
            else "Removing any one frequency from the logits hardly raises the loss: none of them is used."
        )
    if "representations" in series:
        found = series["representations"]
        names = [found.words("representations")[int(i)] for i in found["key_representations"]]
        said.append(
            f"The characters of its key representations ({', '.join(names) or 'none'}) explain "
            f"{found['logit_variance_explained'][-1]:.0%} of the logits' variance, in the untrained model "
            f"{found['logit_variance_explained_initialization']:.0%}."
        )
    if "progress" in series:
        ends = dict(phases.nanda_phases(series["progress"]))
        clauses = [f"{name} ended at step {at.step:,}" + _since(at) for name, at in ends.items()]
        if clauses:
            said.append(f"By Nanda et al.'s phases, {'; '.join(clauses)}.")
    if "algorithm" in series:
        said.append(verdict(series["algorithm"]).sentence)
    if "sharpness" in series:
        said.append(_sharpness(log, series["sharpness"]))
    return said


def findings(log: Series, series: Mapping[str, Series], n_steps: int = 0) -> list[Finding]:
    """Return the headline numbers, each with what it should be compared with; `n_steps` as for `summary`."""
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    last, missing = ("present", "not yet") if log.steps[-1] < n_steps else ("final", "not within the run")
    found = [
        _crossing("memorized (train accuracy ≥ 99%)", memorized, missing),
        _crossing("generalised (test accuracy ≥ 99%)", generalised, missing),
        _loss(f"{last} train loss", log["train_loss"][-1], f"at the start {log['train_loss'][0]:.2f}"),
        _loss(f"{last} test loss", log["test_loss"][-1], f"highest {log['test_loss'].max():.2f}"),
        Finding(
            f"{last} test accuracy",
            f"{log['test_accuracy'][-1]:.2%}",
            f"highest {log['test_accuracy'].max():.2%}",
        ),
    ]
    if "weight_norm" in series:
        norm = series["weight_norm"]["weight_norm"]
        beside = f"at the start {written(norm[0])}, highest {written(norm.max())}"
        found.append(Finding(f"{last} weight norm", written(norm[-1]), beside))
    embedding = series.get("embedding")
    if embedding is not None and "circularity" in embedding:
        found += [
            Finding(
                f"{last} circularity of PCs 1–4",
                f"{embedding['circularity'][-1]:.3f}",
                f"untrained {embedding['circularity_initialization']:.3f}, "
                f"shuffled {embedding['circularity_shuffled'][-1]:.3f}",
            ),
            Finding(
                "key frequencies of the embedding",
                _standing_out(embedding) or "none stands out",
                f"{embedding['key_frequency_share'][-1]:.1%} of variance; "
                f"shuffled {embedding['key_frequency_share_shuffled'][-1]:.1%}",
            ),
        ]
    if "sharpness" in series:
        top, steps = series["sharpness"]["sharpness"], series["sharpness"].steps
        peak = int(top.argmax())
        found.append(
            Finding(
                f"{last} top Hessian eigenvalue",
                written(top[-1]),
                f"at the start {written(top[0])}, highest measured {written(top[peak])} at step {steps[peak]:,}",
            )
        )
    return found


def written(value: float) -> str:
    """Return a number to three digits as one writes it by hand: 0.0125, 3.65·10⁻⁵."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_RAISED)}" if exponent else mantissa


def _sharpness(log: Series, sharpness: Series) -> str:
    """Say how the top eigenvalue moved."""
    top, steps = sharpness["sharpness"], sharpness.steps
    words = {"first": "at the first", "highest": "highest", "memorized": "near memorization"}
    words |= {"generalised": "near generalisation", "last": "at the last"}
    crossings = {"memorized": phases.memorization_step(log), "generalised": phases.generalisation_step(log)}
    # Two landmarks may be one checkpoint, and what is nearest to an event may still be far from it.
    by_row: dict[int, list[str]] = {}
    for name, row in phases.landmarks(log, steps, top):
        at = crossings.get(name)
        if at is None or abs(int(steps[row]) - at.step) <= _NEAR * at.step:
            by_row.setdefault(row, []).append(words[name])
    clauses = [f"{written(top[row])} ({' and '.join(names)}, step {steps[row]:,})" for row, names in by_row.items()]
    measured = f"measured at {len(steps):,} checkpoint{'s' * (len(steps) > 1)}"
    return f"The train loss's sharpness, {measured}, went {' → '.join(clauses)}."


def _standing_out(embedding: Series) -> str:
    """Return the key frequencies, or nothing where they are most of all."""
    key = embedding["key_frequencies"]
    return _list(key) if 2 * len(key) <= len(embedding["frequencies"]) else ""


def _loss(name: str, last: float, beside: str) -> Finding:
    return Finding(name, f"{written(last)} nats", beside)


def _since(crossing: phases.Crossing) -> str:
    return f" (after {crossing.after:,})" if crossing.after >= 0 else ""


def _list(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _crossing(name: str, crossing: phases.Crossing | None, missing: str) -> Finding:
    """Return when something was reached, with the evaluation before, when it was not yet."""
    if crossing is None:
        return Finding(name, missing)
    if not crossing.is_seen:
        return Finding(name, f"by step {crossing.step:,}", "or before: its log begins there")
    beside = f"not yet at step {crossing.after:,}" if crossing.after >= 0 else "at the first evaluation"
    return Finding(name, f"step {crossing.step:,}", beside)
