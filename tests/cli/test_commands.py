"""All commands: help, start-up, and one clear message for every mistake."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import run_program
from support.shared import Command

from grokscope import cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], r"'trian'.*Did you mean 'train'\?"),
        (["list", "runz"], r"'runz'.*Did you mean 'runs'\?"),
        (["train", "quik"], r"'quik'; allowed: nanda2023, .*, quick\..*Did you mean 'quick'\?"),
        (["train", "--n-steps", "5", "quik"], r"'quik'.*Did you mean 'quick'\?"),
        (["train", "none.toml"], r"none\.toml cannot be read: No such file"),
        (["train", "quick", "--task.p", "1"], r"task\.p: 1; allowed: a whole number from 2"),
        (
            ["train", "quick", "--model.n-heads", "3"],
            r"model\.n_heads: 3 does not divide d_model = 128; allowed: 1, 2",
        ),
        (["train", "quick", "--run", "copy", "--root", ".."], r"copy already exists"),
        (["train", "quick", "--run", "a/b"], r"'a/b' is not a valid name for a run"),
        (["train", "quick", "--run", ".a"], r"'\.a' is not a valid name for a run"),
        (["train", "power2022", "--batch-share", "0"], r"batch_share: 0\.0; allowed: a number above 0 and up to 1"),
        (["train", "quick", "--device", "cuda:77"], r"device: 'cuda:77'"),
        (["train", "quick", "--checkpoints", "evry 5"], r"checkpoints: unknown term 'evry 5'"),
        (["resume", "../none"], r"\.\./none is not a run: the folder does not exist"),
        (["resume", "none"], r"checkpoints/none is not a run: the folder does not exist"),
        (["resume", "../copy", "--n-steps", "10"], r"n_steps: 10 would shorten"),
        (["densify", "../none", "--start", "0", "--stop", "5"], r"none is not a run: the folder does not exist"),
        (["densify", "../copy", "--start", "5", "--stop", "70"], r"start 5, stop 70.*<= 60"),
        (["measure", "../here"], r"\.\./here is not a run: it has no config\.json"),
        (["measure", "../copy", "los"], r"'los'.*Did you mean 'loss'\?"),
        (["measure", "../copy", "loss", "--jobs", "0"], r"jobs 0: allowed: a whole number from 1"),
        (["measure", "../copy", "loss", "--thin", "0"], r"--thin 0: allowed: a whole number from 1"),
        (["measure", "../copy", "sharpness", "--set", "seed"], r"--set seed: allowed: an option and its value"),
        (["measure", "../copy", "sharpness", "--set", "sed=1"], r"'sharpness' 'sed'.*Did you mean 'seed'\?"),
        (["measure", "../copy", "sharpness", "--set", "name=1"], r"'sharpness' 'name'; allowed: tolerance, "),
        (["measure", "../copy", "sharpness", "--set", "tolerance=x"], r"tolerance = 'x'; allowed: a finite number"),
        (
            ["measure", "../copy", "loss", "sharpness", "--set", "seed=1"],
            r"'loss' 'seed'; allowed: none\. --set applies to every named measure: loss, sharpness\.",
        ),
        (["report", "../here"], r"\.\./here is not a run"),
        (["report", "../copy", "--cells"], r"--cells needs exactly one sweep"),
        (["verify", "../here"], r"\.\./here is not a run"),
        (["log", "../here"], r"\.\./here is not a run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("run_copy")
def test_mistake_is_one_clear_sentence(arguments: list[str], message: str, grokscope: Command, tmp_path: Path):
    files = sorted(tmp_path.rglob("*"))
    status, _, errors = grokscope(*arguments)
    # The status is 1 if the mistake is in what the disk contains or the machine has, not in the command line.
    of_disk = r"is not a run|cannot be read|already exists|would shorten|start 5, stop 70|cuda:77"
    assert status == (1 if re.search(of_disk, errors) else 2), errors
    assert errors.startswith("grokscope: ") and errors.count("\n") == 1
    assert re.search(message, errors), errors
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command: str, grokscope: Command):
    status, output, _ = grokscope(command, "--help")
    assert status == 0 and f"grokscope {command}" in output
    summary = (cli.command(command).__doc__ or "").partition("\n")[0]
    for overview in (["--help"], ["-h"]):
        assert re.search(rf"^  {command} +{re.escape(summary)}$", grokscope(*overview)[1], re.MULTILINE)


def test_no_command_prints_pipeline_and_three_commands(grokscope: Command):
    status, output, _ = grokscope()
    assert status == 0 and re.search("config.*train.*checkpoints.*measure.*figure", output)
    commands = re.findall(r"^    grokscope (\w+)", output, re.MULTILINE)
    assert len(commands) == 3 and set(commands) <= set(cli.COMMANDS)


def test_help_imports_neither_parser_nor_numpy():
    program = (
        "import sys\n"
        "from grokscope.cli import main\n"
        "main([]); main(['--help']); main(['--version'])\n"
        "print('imported:', *{'numpy', 'tyro', 'jaxtyping', 'rich', 'dataclasses'} & set(sys.modules))\n"
    )
    process = run_program(program)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "imported:"


def test_help_of_train_does_not_import_numpy():
    program = (
        "import sys\n"
        "from grokscope.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: print('imported:', *{'numpy', 'jaxtyping'} & set(sys.modules))\n"
    )
    process = run_program(program)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "imported:"


def test_help_list_log_and_verify_do_not_import_torch(tiny_run: Path):
    program = (
        "import sys\n"
        "from grokscope.cli import main\n"
        "kinds = ('tasks', 'optimizers', 'measures', 'presets')\n"
        "for arguments in (['--help'], ['--version'], *(['list', kind] for kind in kinds),\n"
        "                  ['list', 'runs', '--root', sys.argv[2]], ['log', sys.argv[1]], ['verify', sys.argv[1]]):\n"
        "    main(arguments)\n"
        "print('imported:', *{'torch', 'transformer_lens', 'matplotlib', 'pandas'} & set(sys.modules))\n"
    )
    process = run_program(program, tiny_run, tiny_run.parent)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "imported:"


def test_missing_run_is_refused_before_torch_is_imported(tmp_path: Path):
    program = (
        "import sys\n"
        "from grokscope.cli import main\n"
        "for arguments in (['measure', 'none'], ['report', 'none'], ['report', 'none', 'two'], ['export', 'none'],\n"
        "                  ['figure', 'losses', 'none'], ['fork', 'none', '--step', '3'], ['resume', 'none'],\n"
        "                  ['densify', 'none', '--start', '1', '--stop', '2'], ['wandb', 'none', '--project', 'p'],\n"
        "                  ['watch', 'none'], ['sweep', 'none.toml'], ['train', 'none.toml']):\n"
        "    try:\n"
        "        print(arguments[0], main(arguments))\n"
        "    except SystemExit as error:\n"
        "        print(arguments[0], error.code)\n"
        "print('imported:', *{'torch', 'transformer_lens', 'matplotlib', 'pandas'} & set(sys.modules))\n"
    )
    process = run_program(program)
    *lines, imported = process.stdout.splitlines()
    assert len(lines) == 12 and not [line for line in lines if line.split()[1] not in ("1", "2")], process.stdout
    assert imported == "imported:"


def test_package_runs_as_a_module():
    process = subprocess.run([sys.executable, "-m", "grokscope", "--version"], capture_output=True, text=True)
    assert process.returncode == 0 and process.stdout.startswith("grokscope ")
