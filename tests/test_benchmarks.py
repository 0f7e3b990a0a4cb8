"""The benchmarks that nobody runs every day: that they run, and count what they say they count."""

import re
from pathlib import Path
from types import ModuleType

import pytest
from support.scripts import import_script

from grokscope.config import presets
from grokscope.training.loop import Setup

FOLDER = Path(__file__).parent / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """Import a benchmark from its file."""
    return import_script(FOLDER / f"{name}.py")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_gpu_benchmark_runs_on_a_processor_too(capsys: pytest.CaptureFixture[str]):
    benchmark("gpu").main(["--device", "cpu", "--small", "--seconds", "0.01"])
    printed = capsys.readouterr().out
    speeds = re.findall(r"(\w+), (\w+), +(\d+) models: +([\d,.]+) steps per second each, +([\d,]+) together", printed)
    assert [match[:3] for match in speeds] == [
        (preset, precision, n)
        for preset in ("nanda2023", "power2022")
        for precision in ("float32", "tf32", "bfloat16")
        for n in ("1", "16")
    ]
    for *_, n, each, everything in speeds:
        of_all = int(n) * float(each.replace(",", ""))
        assert abs(of_all - float(everything.replace(",", ""))) <= 0.5 + 0.05 * int(n)
    assert "390 cells, 3.90e+07 steps" in printed
    assert re.search(r"nanda2023, 200 steps, 3 checkpoints: [\d.]+ s", printed)


def test_operations_of_the_plain_loop_are_its_matrix_products():
    """All three positions of 3,830 examples pass every matrix once forward and twice backward; scores by hand."""
    training = benchmark("training")
    setup = Setup(presets.get("nanda2023"))
    d_model, d_mlp, vocabulary, n_ctx, n = 128, 512, 113, 3, 3830
    matrices = 4 * d_model**2 + 2 * d_model * d_mlp + d_model * vocabulary
    scores_and_mixing = 2 * n_ctx * d_model
    expected = 3 * 2 * n * n_ctx * (matrices + scores_and_mixing) / 1e9
    assert training.gigaflop(setup, training.hooked_steps) == pytest.approx(expected, rel=0.01)
    assert training.gigaflop(setup, training.module_steps) == pytest.approx(expected, rel=0.02)
    assert training.gigaflop(setup, training.grokscope_steps) < expected / 5


def test_tables_of_the_page_agree_with_the_results():
    page = benchmark("page")
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.page_with_tables(text) == text


def test_ratio_of_a_table_is_the_median_of_its_turns():
    times = {"grokscope": [1.0, 2.0, 4.0], "HookedTransformer": [8.0, 10.0, 12.0]}
    table = benchmark("page").busy_table({"results": [{"milliseconds": {"idle": times}}]})
    assert "| idle | 2 ms (1 to 4) | 10 ms (8 to 12) | 5 (3 to 8) |" in table
