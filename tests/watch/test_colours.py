"""Train and test have one pair of colours: in figures and on the light page, on the dark page and in the terminal."""

import re
from importlib.resources import files

from grokscope.figures import _style
from grokscope.watch import terminal

CSS = (files("grokscope.report") / "assets" / "page.css").read_text(encoding="utf-8")
PAIRS = [pair.split() for pair in re.findall(r"--c0: (#\w+; --c1: #\w+);", CSS)]


def test_colours_of_the_light_page_are_those_of_figures():
    figures = [_style.TRAIN.colour.lower(), _style.TEST.colour.lower()]
    assert re.findall(r"#\w+", " ".join(PAIRS[0])) == figures


def test_colours_of_the_dark_page_are_those_of_the_terminal():
    dark = {tuple(re.findall(r"#\w+", " ".join(pair))) for pair in PAIRS[1:]}
    assert len(PAIRS) == 3 and dark == {terminal.COLOURS}
