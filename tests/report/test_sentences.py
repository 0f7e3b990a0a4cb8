"""The report in words: every sentence and headline states numbers of the log and the measures, and nothing else."""

import dataclasses

import numpy as np
import pytest

from grokscope import report
from grokscope.report import sentences
from grokscope.series import Series
from grokscope.variable import Variable


def make_log(train_accuracy: list[float], test_accuracy: list[float]) -> Series:
    """Return a log with a row every 100 steps."""
    n = len(train_accuracy)
    arrays = {
        "train_loss": np.geomspace(4.123, 2.5e-7, n),
        "test_loss": np.array([*np.linspace(4, 12.3456, n - 1), 3.25e-4]),
        "train_accuracy": np.array(train_accuracy),
        "test_accuracy": np.array(test_accuracy),
    }
    return Series("log", np.arange(n) * 100, arrays, {"gaps": np.empty((0, 2), np.int64)})


def make_measures() -> dict[str, Series]:
    steps = np.array([0, 200, 400])
    embedding = {
        "circularity": np.array([0.21, 0.5, 0.98765]),
        "circularity_shuffled": np.array([0.2, 0.2, 0.1234]),
        "key_frequency_share": np.array([0.11, 0.5, 0.9876]),
        "key_frequency_share_shuffled": np.array([0.3, 0.3, 0.3333]),
    }
    constants = {
        "key_frequencies": np.array([4, 17]),
        "frequencies": np.arange(1, 30),
        "circularity_initialization": np.array(0.2222),
    }
    return {
        "embedding": Series("embedding", steps, embedding, constants),
        "weight_norm": Series("weight_norm", steps, {"weight_norm": np.array([50.04, 71.26, 33.33])}),
        "sharpness": Series("sharpness", steps, {"sharpness": np.array([12.0, 345.6, 0.0123])}),
    }


GROKKED = make_log([0.1, 1.0, 1.0, 1.0, 1.0], [0.0, 0.1, 0.5, 0.999, 0.995])


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (17.94, "17.9"), (0.000444, "0.000444"), (3.654e-5, "3.65·10⁻⁵"), (-1.2e17, "-1.2·10¹⁷")],
    ids=str,
)
def test_number_has_three_significant_digits(number: float, text: str):
    assert sentences.format_number(number) == text


def test_headlines_state_numbers_of_log_and_measures():
    lines = {line.name: (line.value, line.context) for line in report.headlines(GROKKED, make_measures())}
    assert lines["memorized (train accuracy ≥ 99%)"] == ("step 100", "not yet at step 0")
    assert lines["generalised (test accuracy ≥ 99%)"] == ("step 300", "not yet at step 200")
    assert lines["final train loss"] == ("2.5·10⁻⁷ nats", "4.12 at the start")
    assert lines["final test loss"] == ("0.000325 nats", "highest 12.35")
    assert lines["final test accuracy"] == ("99.50%", "highest 99.90%")
    assert lines["final weight norm"] == ("33.3", "50 at the start, highest 71.3")
    assert lines["final circularity of PCs 1–4"] == ("0.988", "untrained 0.222, shuffled 0.123")
    assert lines["key frequencies of the embedding"] == ("4, 17", "98.8% of variance, shuffled 33.3%")
    value, context = lines["final top Hessian eigenvalue, train loss"]
    assert value == "0.0123" and "12 at the start" in context and "346 at step 200" in context


def test_unfinished_run_is_described_as_unfinished():
    log = make_log([0.1, 0.2, 0.3, 0.4, 0.5], [0.0] * 5)
    text = report.summary(log, n_steps=1_000)
    assert "by step 400 of 1,000" in text and "too early" in text and "grok" not in text
    assert "by step 400 of 1,000" in report.summary(make_log([0.1, 1, 1, 1, 1], [0.0] * 5), n_steps=1_000)
    values = {line.name: line.value for line in report.headlines(log, make_measures(), n_steps=1_000)}
    assert values["memorized (train accuracy ≥ 99%)"] == "not yet"
    assert "current train loss" in values and not any("final" in name for name in values)
    assert report.summary(log, n_steps=400) == report.summary(log)


def test_frequencies_that_do_not_stand_out_are_not_listed():
    embedding = make_measures()["embedding"]
    most = {"key_frequencies": np.arange(1, 17), "frequencies": np.arange(1, 30)}
    series = {"embedding": dataclasses.replace(embedding, constants={**embedding.constants, **most})}
    (sentence,) = report.details(GROKKED, series)
    assert "no frequency of the embedding is distinct: 16 of 29" in sentence and "15, 16" not in sentence
    values = {line.name: line.value for line in report.headlines(GROKKED, series)}
    assert values["key frequencies of the embedding"] == "no distinct frequency"


def test_event_before_the_log_of_a_fork_is_marked():
    """A fork's log begins at the step where it left its origin."""
    fork = Series("log", GROKKED.steps + 1_000, {**GROKKED.arrays, "train_accuracy": np.ones(5)})
    lines = {line.name: (line.value, line.context) for line in report.headlines(fork, {})}
    assert lines["memorized (train accuracy ≥ 99%)"] == ("by step 1,000", "or earlier: the log begins there")
    sharpness = Series("sharpness", fork.steps[[0, -1]], {"sharpness": np.array([2.0, 1.0])})
    assert "near memorization" not in report.details(fork, {"sharpness": sharpness})[-1]


@pytest.mark.parametrize(
    ("train", "test", "contained", "absent"),
    [
        ([0.1, 1, 1, 1, 1], [0, 0, 0, 1, 1], ["by step 100", "at step 300", "3 times", "grokked"], ["not"]),
        ([0.1, 0.5, 1, 1, 1], [0, 0, 0, 1, 1], ["step 200", "step 300", "1.5 times", "hardly a delay"], ["grokked"]),
        ([0.1, 1, 1, 1, 1], [0, 0, 0.5, 0.5, 0.123], ["by step 100", "has not generalised", "12.3%"], ["grokked"]),
        ([0.1, 0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0, 0], ["not memorized", "400 steps"], ["generalised"]),
        ([0.1, 0.5, 1, 1, 1], [0, 0.5, 1, 1, 1], ["by step 200", "no delay"], ["grokked"]),
        ([1, 1, 1, 1, 1], [0, 0, 0, 1, 1], ["by step 0", "at step 300"], ["inf", "nan"]),
    ],
    ids=["grokked", "short delay", "memorized", "confused", "no delay", "known at step 0"],
)
def test_summary_states_the_outcome(train, test, contained, absent):
    summary = report.summary(make_log(train, test))
    assert all(text in summary for text in contained), summary
    assert not any(text in summary for text in absent), summary


def test_summary_of_a_fork_computes_no_delay():
    summary = report.summary(Series("log", GROKKED.steps + 2_000, GROKKED.arrays))
    assert "begins at step 2,000" in summary and "generalised by step 2,300" in summary
    assert "times as many steps" not in summary


def test_details_cover_exactly_the_measures():
    embedding, sharpness = report.details(GROKKED, make_measures())
    assert "2 of 29 frequencies (4, 17) hold 98.8%" in embedding and "with 11.0% at the first" in embedding
    path = "12 (first checkpoint, step 0) → 346 (highest, step 200) → 0.0123 (last checkpoint, step 400)"
    assert path in sharpness
    assert report.details(GROKKED, {}) == []


def test_single_checkpoint_has_no_history():
    """As in an import of one file."""

    def last(series: Series) -> Series:
        arrays = {name: values[-1:] for name, values in series.arrays.items()}
        return Series(series.measure, series.steps[-1:], arrays, series.constants)

    log, measured = last(GROKKED), {name: last(series) for name, series in make_measures().items()}
    embedding, sharpness = report.details(log, measured)
    assert embedding == (
        "At step 400, 2 of 29 frequencies (4, 17) hold 98.8% of the embedding's variance, compared with 33.3% with "
        "shuffled tokens."
    )
    assert sharpness == "The sharpness of the train loss at step 400 is 0.0123."
    contexts = "; ".join(line.context for line in report.headlines(log, measured))
    assert "at the start" not in contexts and "highest" not in contexts, "and nothing is compared with itself"


def test_sharpness_is_stated_near_the_events():
    near = Series("sharpness", np.array([0, 110, 310, 400]), {"sharpness": np.array([1.0, 9.0, 3.0, 2.0])})
    (sentence,) = report.details(GROKKED, {"sharpness": near})
    assert "9 (highest and near memorization, step 110) → 3 (near generalisation, step 310)" in sentence


def test_phases_are_stated_with_their_intervals():
    arrays = {
        "excluded_loss": np.array([4.0, 2.0, 1.0, 3.0, 5.0, 6.0]),
        "test_loss": np.array([4.0, 5.0, 6.0, 1.0, 1e-3, 1e-3]),
    }
    progress = Series("progress", np.arange(6) * 100, arrays)
    (sentence,) = report.details(GROKKED, {"progress": progress})
    assert sentence.startswith("By the phases of Nanda et al., memorization ended between steps 100 and 300; ")
    assert "cleanup ended between steps 300 and 400." in sentence


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_headlines_of_losses_state_the_loss_function(loss: str):
    names = ("train_loss", "test_loss")
    variables = {name: Variable(f"{{loss}} {name.replace('_', ' ')}") for name in names}
    log = dataclasses.replace(GROKKED, variables=variables, loss=loss)
    lines = [line.name for line in sentences.headlines(log, {})]
    assert [name for name in lines if " loss" in name] == [f"final {loss} train loss", f"final {loss} test loss"]


def test_many_frequencies_of_the_logits_are_counted():
    sentence = sentences._logits_sentence(np.arange(1, 28))
    assert "27 frequencies" in sentence and "1, 2" not in sentence
    assert "frequencies 3, 5:" in sentences._logits_sentence(np.array([3, 5]))


def test_run_on_fresh_batches_memorizes_nothing():
    learned = report.summary(make_log([0.1, 1, 1, 1, 1], [0, 0.5, 1, 1, 0.998]), is_fresh=True)
    assert "learned the task by step 200: its test accuracy is 99.8%" in learned and "memor" not in learned
    failed = report.summary(make_log([0.1] * 5, [0.1] * 5), is_fresh=True)
    assert "has not learned the task within 400 steps" in failed and "grok" not in failed
