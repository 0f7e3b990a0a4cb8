"""Looks: one colour for train and test everywhere, and like curves that can be told apart."""

import re
from pathlib import Path
from typing import Any

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


def test_settings_of_the_user_replace_sizes_and_palette():
    import matplotlib
    from cycler import cycler

    def drawn():
        ax = _style.new_figure(3, 2).subplots()
        ax.plot([0, 1], label="curve")
        ax.set_xlabel("step")
        _style.finish_axes(ax)
        legend = ax.get_legend()
        assert legend is not None
        texts = (ax.xaxis.label, ax.get_xticklabels()[0], legend.get_texts()[0])
        return tuple(text.get_fontsize() for text in texts)

    assert drawn() == (_style.FONT_SIZE,) * 3 and _style.numbered(1).colour == _style.PALETTE[1]
    with matplotlib.rc_context({"font.size": 13}):
        assert drawn() == (13, 13, 13)
    settings: dict[Any, Any] = {"axes.labelsize": 11, "xtick.labelsize": 9, "legend.fontsize": 5}
    with matplotlib.rc_context({**settings, "axes.prop_cycle": cycler(color=["red", "lime"])}):
        assert drawn() == (11, 9, 5)
        assert [_style.numbered(i).colour for i in range(3)] == ["red", "lime", "red"]
