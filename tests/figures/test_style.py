"""Looks: one colour for train and test everywhere, and like curves that can be told apart."""

import re
from pathlib import Path

import grokscope.figures
from grokscope.figures import _style


def test_train_and_test_have_their_looks_in_every_quantity():
    for quantity in ("loss", "accuracy", "margins"):
        assert _style.LOOKS[f"train_{quantity}"] == _style.TRAIN and _style.LOOKS[f"test_{quantity}"] == _style.TEST


def test_numbered_looks_differ_and_neighbours_differ_twice():
    looks = [_style.numbered(i) for i in range(28)]
    assert len(set(looks)) == 28
    for look, following in zip(looks, looks[1:], strict=False):
        assert look.colour != following.colour and look.linestyle != following.linestyle


def test_only_style_defines_colours():
    for path in Path(grokscope.figures.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        colours = re.findall(r"#[0-9A-Fa-f]{6}|\b(?:BLUE|VERMILLION|GREEN|ORANGE|PURPLE|SKY)\b", text)
        assert not colours or path.stem == "_style"
