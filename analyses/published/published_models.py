"""Do published checkpoints give their published numbers in grokscope?

Each model is imported by the command that the table names, and its numbers are evaluated here. The published numbers
are those of the papers, of files beside the checkpoints, or of the papers' own code. Where papers differ, the page
states the definition.

How to run: python analyses/published/published_models.py FOLDER, with a folder for each publication
Findings: docs/published_models.md
"""

import contextlib
import io
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grokscope import Trajectory, measures
from grokscope.cli.importing import import_
from grokscope.fourier import cyclic

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "analyses" / "results" / "published_checkpoints.json"
PAGE = ROOT / "docs" / "published_models.md"
MARKS = ("<!-- table -->\n", "<!-- end of the table -->\n")
Number = tuple[str, float, Callable[[Trajectory], float]]
"""The name of a number, its published value, and the function that evaluates it."""


@dataclass(frozen=True)
class Published:
    """A published model, how it is imported, and its published numbers."""

    model: str
    files: tuple[str, ...]
    """The files, as patterns inside the folder."""
    flags: str
    """The flags of `grokscope import`. FOLDER is the folder."""
    numbers: tuple[Number, ...]


def logged(name: str, row: int = -1) -> Callable[[Trajectory], float]:
    """Return the function that reads a column of the log."""
    return lambda run: float(run.log[name][row])


def measured(measure: str, name: str, *place: int) -> Callable[[Trajectory], float]:
    """Return the function that reads a number of the last checkpoint's measure."""
    return lambda run: float(measures.evaluate(measure, run)[name][(-1, *place)])


def squares(run: Trajectory) -> float:
    """Return the sum of the squared weights."""
    return sum(float(value.double().square().sum()) for value in run.last.parameters.values())


def norm(run: Trajectory) -> float:
    """Return the norm of all weights."""
    return math.sqrt(squares(run))


def largest(measure: str, name: str, rank: int = 0) -> Callable[[Trajectory], float]:
    """Return the function that reads the representation with the largest value, or another rank."""
    return lambda run: sorted(measures.evaluate(measure, run)[name][-1].tolist(), reverse=True)[rank]


def similarity_squares(run: Trajectory) -> float:
    """Return Σ similarity² over the representations."""
    return float((measures.evaluate("representations", run)["logit_similarity"][-1] ** 2).sum())


def neuron_share(run: Trajectory) -> float:
    """Return the neurons' share in the key representations: their operand and product parts."""
    series = measures.evaluate("representations", run)
    keys = series["logit_similarity"][-1] > 0.1
    return float((series["neuron_operand_shares"][-1] + series["neuron_product_shares"][-1])[keys].sum())


def one_hot_weights(run: Trajectory, step: int) -> tuple[Tensor, Tensor]:
    """Return each neuron's input and output weights over the residues."""
    parameters = run.at(step).parameters
    return parameters["mlp.0.W_in"].double().T, parameters["unembed.W_U"].double()


def neuron_ratio(step: int) -> Callable[[Trajectory], float]:
    """Return the function for the neurons' mean inverse participation ratio.

    It is Σ c⁴ / (Σ c²)² over the real Fourier coefficients c, with the constant, and the mean over the input and the
    output weights.
    """

    def evaluate(run: Trajectory) -> float:
        weights = torch.cat(one_hot_weights(run, step))
        coefficients = weights @ cyclic.fourier_basis(weights.shape[1]).double().T
        shares = coefficients.square() / coefficients.square().sum(1, keepdim=True)
        return float(cyclic.inverse_participation_ratio(shares).mean())

    return evaluate


def phase_difference(step: int) -> Callable[[Trajectory], float]:
    """Return the function for the mean |2φ_in − φ_out| at each neuron's largest frequency, in radians."""

    def evaluate(run: Trajectory) -> float:
        inputs, outputs = (torch.fft.rfft(weights, dim=1)[:, 1:] for weights in one_hot_weights(run, step))
        frequency = inputs.abs().argmax(1, keepdim=True)
        turned = inputs.gather(1, frequency).square() * outputs.gather(1, frequency).conj()
        return float(turned.angle().abs().mean())

    return evaluate


def zhong(symmetricity: float, irrelevance: float, circularity: float, *more: Number) -> tuple[Number, ...]:
    """Return the three numbers of Zhong et al. 2023, and more."""
    return (
        ("gradient symmetricity", symmetricity, measured("algorithm", "gradient_symmetricity")),
        ("distance irrelevance", irrelevance, measured("algorithm", "distance_irrelevance")),
        ("circularity", circularity, measured("embedding", "circularity")),
        *more,
    )


_NANDA = "--model.act-fn relu --split random-shuffle:"
_STEPS = (1, 201, 1001, 2201, 5001, 10401, 20001, 49801)
_RATIOS = (0.1205, 0.1480, 0.2759, 0.3717, 0.4644, 0.5358, 0.6038, 0.6359)
_PHASES = (1.583, 0.347, 0.140, 0.101, 0.098, 0.073, 0.053, 0.045)
MODELS = (
    Published(
        "Nanda et al. 2023, weight decay 0.1",
        ("nanda2023/wd_10-1_*.pth",),
        f"{_NANDA}1",
        (
            ("train loss", 9.2024e-9, logged("train_loss")),
            ("test loss", 4.988e-7, logged("test_loss")),
            ("sum of squared weights", 1180.97, squares),
        ),
    ),
    Published(
        "Nanda et al. 2023, no weight decay",
        ("nanda2023/mod_addition_no_wd.pth",),
        f"{_NANDA}0 --task.train-fraction 0.9",
        (("train loss", 1.6809e-10, logged("train_loss")), ("test loss", 1.1097e-6, logged("test_loss"))),
    ),
    Published(
        "Zhong et al. 2023, constant attention (α = 0)",
        ("zhong2023/model_p99zdpze5l.pt",),
        "--steps 20000",
        zhong(0.99366517, 0.17173646, 0.99781845, ("loss", 1.38e-7, logged("loss"))),
    ),
    Published(
        "Zhong et al. 2023, full attention (α = 1)",
        ("zhong2023/model_l8k1hzciux.pt",),
        "--steps 20000",
        zhong(0.3336, 0.8483, 0.9989, ("weight norm", 24.814, norm)),
    ),
    Published(
        "Zhong et al. 2023, two layers, α = 0.0074",
        ("zhong2023/model_4asyr7ht1p.pt",),
        "--steps 20000",
        zhong(0.9955, 0.9078, 0.9655),
    ),
    Published(
        "Chughtai et al. 2023, transformer on A5",
        ("chughtai2023/A5_T_seed1/model.pt",),
        "--steps 250000 --model.act-fn relu",
        (
            ("loss over all pairs", 9.834662831240474e-8, logged("loss")),
            (
                "W_E's share of one 3-dimensional representation",
                0.99786,
                largest("representations", "embedding_shares"),
            ),
            ("and of the other", 0.00117, largest("representations", "embedding_shares", 1)),
            ("Σ similarity²", 0.702808, similarity_squares),
        ),
    ),
    Published(
        "Chughtai et al. 2023, MLP on S5",
        ("chughtai2023/S5_MLP_seed2/model.pt",),
        "--steps 250000 --model.mlp.act-fn relu",
        (
            ("loss over all pairs", 2.3838242884590774e-6, logged("loss")),
            ("sum of squared weights", 5014.39990234375, squares),
            ("similarity, standard", 0.7674336433410645, largest("representations", "logit_similarity")),
            ("similarity, sign", 0.5090430974960327, largest("representations", "logit_similarity", 1)),
            ("logits explained", 0.848082423210144, measured("representations", "logit_variance_explained")),
            ("neurons explained", 0.8888484239578247, neuron_share),
        ),
    ),
    Published(
        "Y-Agent/modular-addition-feature-learning, eight steps",
        tuple(f"y_agent/{step - 1}.pth" for step in _STEPS),
        "--model.mlp.act-fn relu --train-indices FOLDER/y_agent/train_data.pth",
        (
            ("test accuracy at epoch 2200", 0.7068, logged("test_accuracy", 3)),
            ("at epoch 20000", 0.9774, logged("test_accuracy", 6)),
            *(
                (f"{name} at epoch {step - 1}", value, evaluate(step))
                for name, evaluate, values in (
                    ("mean IPR", neuron_ratio, _RATIOS),
                    ("mean |2φ_in − φ_out|", phase_difference, _PHASES),
                )
                for step, value in zip(_STEPS, values, strict=True)
            ),
        ),
    ),
    Published(
        "porth-bot/grokking-transformer, step 11,100",
        ("nanogpt_like/p97_frac0.30_wd1_seed0.pt",),
        "--steps 11100 --model.n-heads 4 --model.act-fn gelu",
        (("loss over all pairs", 0.00689287, logged("loss")), ("weight norm", 25.767276, norm)),
    ),
    Published(
        "porth-bot/grokking-transformer, step 100",
        ("nanogpt_like/p97_frac0.30_wd1_seed0_memorize.pt",),
        "--steps 100 --model.n-heads 4 --model.act-fn gelu",
        (("loss over all pairs", 3.56001, logged("loss")), ("weight norm", 24.066395, norm)),
    ),
)


def result(published: Published, folder: Path, root: Path) -> dict[str, Any]:
    """Import a model by its command; return the row of the table."""
    paths = [str(path) for pattern in published.files for path in folder.glob(pattern)]
    flags = published.flags.replace("FOLDER", str(folder)).split()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        import_([*paths, *flags, "--run", "run", "--root", str(root)])
    (layout,) = [line for line in output.getvalue().splitlines() if line.startswith("The layout is that of ")]
    run = Trajectory.open(root / "run")
    return {
        "model": published.model,
        "files": list(published.files),
        "flags": published.flags,
        "layout": layout.removeprefix("The layout is that of ").removesuffix("."),
        "numbers": [[name, value, evaluate(run)] for name, value, evaluate in published.numbers],
    }


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    lines = ["| published model | layout that was detected | `grokscope import FILE …` with | published | ours |"]
    lines += ["|---|---|---|---|---|"]
    for row in rows:
        names = "<br>".join(f"{name.replace('|', '&#124;')} {value:.6g}" for name, value, _ in row["numbers"])
        ours = "<br>".join(f"{value:.6g}" for _, _, value in row["numbers"])
        lines.append(f"| {row['model']} | {row['layout']} | `{row['flags']}` | {names} | {ours} |")
    return "\n" + "\n".join(lines) + "\n\n"


def main(folder: Path) -> None:
    """Write the results, and their table into the page."""
    rows = []
    for published in MODELS:
        with tempfile.TemporaryDirectory() as root:
            rows.append(result(published, folder, Path(root)))
    RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    start, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    PAGE.write_text(page[:start] + table(rows) + page[end:], encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
