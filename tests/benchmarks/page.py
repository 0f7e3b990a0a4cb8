"""Write the tables of docs/benchmarks.md from the results of the benchmarks.

How to run: python tests/benchmarks/page.py, after
    python tests/benchmarks/training.py --json tests/benchmarks/results/training.json
    python tests/benchmarks/busy.py --json tests/benchmarks/results/busy.json
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(values: Sequence[float], unit: str) -> str:
    """Return the median of several turns, and their range."""
    return f"{statistics.median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def training_table(results: dict[str, Any]) -> str:
    """Return the time of a step of each preset, and its ratios to the floor and to the plain loops."""
    rows = []
    for result in results["results"]:
        times, ratios = result["milliseconds"], result["ratios"]
        cells = [spread(times["grokscope"], " ms"), spread(times["products"], " ms")]
        rows.append([f"`{result['preset']}`", *cells, *(spread(values, "") for values in ratios.values())])
    names = next(iter(results["results"]))["ratios"]
    return table(["preset, on one core", "step", "its matrix products", *names], rows)


def busy_table(results: dict[str, Any]) -> str:
    """Return the times of both loops under each load, and their ratio."""
    rows = []
    for result in results["results"]:
        for load, times in result["milliseconds"].items():
            ours, plain = times["grokscope"], times["HookedTransformer"]
            ratios = [b / a for a, b in zip(ours, plain, strict=True)]
            rows.append([load, spread(ours, " ms"), spread(plain, " ms"), spread(ratios, "")])
    return table(["load", "grokscope", "HookedTransformer loop", "times as fast"], rows)


TABLES = {"training": training_table, "busy": busy_table}
"""The function that makes the table of each benchmark."""


def page_with_tables(page: str) -> str:
    """Return a page with the table of each benchmark between its marks."""
    for name, make in TABLES.items():
        results = json.loads((RESULTS / f"{name}.json").read_text())
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        after = rest.partition(f"<!-- end of {name} -->\n")[2]
        machine = results["machine"]
        about = (
            f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f} at the start, torch "
            f"{machine['torch']}; medians of {results['turns']} turns, with their range.\n\n"
        )
        page = f"{before}<!-- {name} -->\n{about}{make(results)}<!-- end of {name} -->\n{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
