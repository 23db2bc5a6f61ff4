"""Options of settings: texts of the command line become values, and values texts, without loss."""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer

from sobofem.coupling import Marginal
from sobofem.coupling.commands import UsageError
from sobofem.coupling.options import check, option, words
from sobofem.coupling.options.plain import PlainCommand
from sobofem.coupling.options.readings import CHOICES, Levels, Names, Texts, Weights, choices, distributions, values
from sobofem.coupling.study.settings import INTERVALS

FLAGS = ("--minimize", "--maximize")
CASES = [
    (values("a=1"), {"a": 1 / 3, "b": -1e-300}),
    (distributions("a=log"), {"a": Marginal("normal", 0.1, 1 / 3), "b": Marginal.of("beta:a=0.1,b=2")}),
    (CHOICES, {"a": (1.0, 0.1), "b": (2.0,)}),
    (INTERVALS, {"a": (-1 / 3, 2.0)}),
    (Names(), ("a", "b*", "stress [MPa]")),
    (Texts("TEXT"), ("stress > 2", "mass > 3")),
    (Weights(), {"mass": 1 / 3, "stress": -2.0}),
    (Weights(), "mass"),
    (Levels(), 3),
    (Levels(), {"a": 3, "b": 1}),
]


@pytest.mark.parametrize(("reading", "value"), CASES)
def test_what_is_written_is_read_back_to_the_last_digit(reading, value):
    assert reading.read(list(reading.write(value, FLAGS))) == value


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=two", "a=nan", "a=inf", "a=1,2"])
def test_what_is_no_pair_says_how_one_is_written(text):
    with pytest.raises(ValueError, match=rf"^'{text}' is no NAME=VALUE; write --fix poisson=0.3$"):
        values("poisson=0.3").read([("--fix", text)])


def test_a_weight_keeps_its_sign_and_a_repeated_name_is_refused():
    assert Weights().read([("--maximize", "mass=-2"), ("--minimize", "stress")]) == {"mass": 2.0, "stress": 1.0}
    assert Weights().read([("--maximize", "mass")]) == {"mass": -1.0}
    with pytest.raises(ValueError, match="minimize 'mass' is given twice"):
        Weights().read([("--minimize", "mass"), ("--minimize", "mass=2")])
    with pytest.raises(ValueError, match="name a response"):
        Weights().read([])


@dataclass(frozen=True)
class Settings:
    share: float = option(0.5, help="A share.", min=0.0, max=1.0, needs="model")
    limits: Mapping[str, float] = option(dict, flags="--at-most", help="Limits.", reading=values("a=1"))
    quick: bool = option(False, help="Quickly.")
    inner: int = 3


def test_defaults_and_what_has_no_effect_are_not_said():
    assert words(Settings()) == words(Settings(share=0.25)) == words(Settings(inner=4)) == []
    said = words(Settings(0.1, {"a": 2.0}, quick=True), ["model"])
    assert said == ["--share", "0.1", "--at-most", "a=2.0", "--quick"]
    check(Settings(share=2.0))
    with pytest.raises(ValueError, match=r"share of Settings is 2.0, expected at most 1"):
        check(Settings(share=2.0), ["model"])
    with pytest.raises(ValueError, match="share of Settings is nan"):
        check(Settings(share=math.nan), ["model"])


def test_ranges_of_numbers_hold_both_ends_and_nothing_beyond():
    assert choices("17..20") == (17.0, 18.0, 19.0, 20.0)
    assert choices("1,4..5") == (1.0, 4.0, 5.0)
    assert choices("0..0.3:0.1") == pytest.approx((0.0, 0.1, 0.2, 0.3)) and max(choices("0..0.3:0.1")) <= 0.3
    assert len(choices("0.0625..6.1875:0.0625")) == 99
    for text in ("3..1", "0..1:-1", "0..1:0", "0..1e9"):
        with pytest.raises(ValueError, match=r"FIRST\.\.LAST:STEP"):
            choices(text)


WORDS = [
    *("8", "-8", "+8", " 8", "0", "007", "10", "1_0", "8.0", "8e0", "²", "8" * 25, "0x8", ""),
    *("0.5", "-0.5", ".5", "5.", "1e-3", "1E3", "1e400", "nan", "inf", "1,5", "1e", "--"),
    *("sobol", "NO", "é", "a b", "~", ".", "there", "there/none", "none.h5", "secret", "\udc80"),
]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The same command twice: read by typer, and plain words by us."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    (tmp_path / "secret").mkdir(mode=0)

    def take(
        whole: int = 3,
        between: Annotated[int, typer.Option(min=0, max=9)] = 1,
        real: float | None = None,
        at_least: Annotated[float, typer.Option(min=0.0)] = 1.0,
        text: str = "x",
        path: Path | None = None,
        existing: Annotated[Path | None, typer.Option(exists=True)] = None,
        paths: list[Path] | None = None,
        texts: list[str] | None = None,
        numbers: list[int] | None = None,
        choice: Literal["sobol", "8"] = "8",
        parsed: Annotated[int | None, typer.Option(parser=lambda word: len(word))] = None,
    ) -> None:
        """Nothing."""

    found = []
    for kind in (None, PlainCommand):
        app = typer.Typer(add_completion=False)
        app.command(cls=kind)(take)
        found.append(typer.main.get_command(app))
    return found


def said(command, line):
    try:
        return command.make_context("take", list(line)).params
    except UsageError as error:
        return str(error)


def test_plain_words_mean_what_typer_makes_of_them(commands):
    names = [each.name for each in commands[0].params]
    assert repr(said(commands[0], ())) == repr(said(commands[1], ()))
    for name in names:
        for word in WORDS:
            line = (f"--{name.replace('_', '-')}={word}",)
            first, second = (said(command, line * (1 + name.endswith("s"))) for command in commands)
            assert repr(first) == repr(second), line
