"""Where to evaluate, as said on a command line."""

from __future__ import annotations

from pathlib import Path

from coupling.design import Design, Grid, Recipe
from coupling.marginals import Marginal, parse
from coupling.points import PointsFile


def recipe(
    design: str, samples: int | None, seed: int, levels: list[str], points: Path | None, inputs: list[str]
) -> Recipe:
    """What `--design`, `--samples`, `--seed`, `--levels`, `--points` and `--input` say.

    Raises:
        ValueError: If two of them contradict each other, or one can't be read.
    """
    marginals = dict(_marginal(text) for text in inputs)
    if (samples is not None) + bool(levels) + (points is not None) > 1:
        raise ValueError("--samples, --levels and --points each say where to evaluate; give one of them")
    if points is not None:
        if marginals:
            raise ValueError("--input distributes the points of a design; --points says where they are")
        return PointsFile(points)
    if levels:
        return Grid(_levels(levels), marginals)
    return Design(design, samples or 64, seed, marginals)


def _marginal(text: str) -> tuple[str, Marginal]:
    name, equals, how = text.partition("=")
    if not equals:
        raise ValueError(f"--input {text} is no NAME=HOW, such as young=log or load=normal:100,5")
    return name, parse(how)


def _levels(texts: list[str]) -> int | dict[str, int]:
    pairs = [text.rpartition("=") for text in texts]
    if not all(count.isdigit() and int(count) > 0 for _, _, count in pairs):
        raise ValueError(f"--levels {' '.join(texts)}: expected whole numbers K or NAME=K, at least 1")
    if len(pairs) == 1 and not pairs[0][0]:
        return int(pairs[0][2])
    if not all(name for name, _, _ in pairs):
        raise ValueError(f"--levels {' '.join(texts)}: one K for all inputs, or NAME=K for each that varies")
    return {name: int(count) for name, _, count in pairs}
