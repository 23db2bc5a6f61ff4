"""A study: model, design, training and purposes in one file, carried out by `sobofem run`, resumed where it stopped.

Each stage calls a command on files in one folder; a study adds the order, and the memory of what was done with what.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import hashlib
import inspect
from pathlib import Path
from typing import Any, Protocol

from sobofem.coupling.contract import Model, describe
from sobofem.coupling.design import Design, Grid, Recipe
from sobofem.coupling.design.points import PointsFile
from sobofem.coupling.models.loading import find, module_name, source_of
from sobofem.coupling.solving.settings import Solving
from sobofem.coupling.study.settings import Sampling, Training


@dataclass(frozen=True)
class Files:
    """Where a study keeps what it makes, and the model that it is about.

    Attributes:
        folder: The folder of everything.
        model: The model as commands know it, `module:name` or `file.py:name`.
        ranks_per_solve: MPI ranks that solve one sample together.
    """

    folder: Path
    model: str
    ranks_per_solve: int = 1

    @property
    def data(self) -> Path:
        """Samples to learn from."""
        return self.folder / "data.h5"

    @property
    def unseen(self) -> Path:
        """Samples to judge by."""
        return self.folder / "unseen.h5"

    @property
    def surrogate(self) -> Path:
        """The surrogate."""
        return self.folder / "surrogate.safetensors"


@dataclass(frozen=True)
class Call:
    """A command and what it is called with.

    Attributes:
        command: A function, or the name of a command of `sobofem`, whose function is called.
        arguments: Its arguments by name; settings among them are dataclasses.
    """

    command: Callable[..., None] | str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """One call of a study.

    Attributes:
        name: What messages call it.
        action: What is called; or the words of a command, without `sobofem`.
        reads: Files whose contents decide what comes out.
        writes: Files or folders that are there when it is done.
        resumes: Whether the command itself finds out what is left to do.
    """

    name: str
    action: Call | tuple[str, ...]
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    resumes: bool = False


class Purpose(Protocol):
    """What a surrogate is made for: a frozen dataclass whose fields are the options of a command."""

    @property
    def name(self) -> str:
        """What its files and messages are called; every purpose of a study has its own."""

    def stage(self, files: Files) -> Stage:
        """The call that serves it."""


@dataclass(frozen=True)
class Study:
    """What is studied, and what for.

    Attributes:
        model: A function without arguments (or with `comm`) that makes the model; or its specification,
            `package.module:name` or `path/file.py:name`.
        design: Where to evaluate it.
        unseen: Where to evaluate it for the report on the surrogate's errors; None for no report.
        training: How the surrogate is trained; None where no purpose needs one.
        purposes: What it is for.
        ranks_per_solve: MPI ranks that solve one sample together.
    """

    model: Callable[..., Model] | str
    design: Recipe
    unseen: Recipe | None = None
    training: Training | None = field(default_factory=Training)
    purposes: Sequence[Purpose] = ()
    ranks_per_solve: int = 1

    def __post_init__(self) -> None:
        """Refuse what could not be carried out, before the first solve."""
        if not (callable(self.model) or (isinstance(self.model, str) and ":" in self.model)):
            raise TypeError(f"model is {self.model!r}; expected a function that makes one, or `file.py:name`")
        for name, recipe in (("design", self.design), ("unseen", self.unseen)):
            if recipe is not None and not isinstance(recipe, Design | Grid | PointsFile):
                raise TypeError(f"{name} is of type {type(recipe).__name__}; expected a Design, a Grid or a PointsFile")
        if self.unseen is not None and self.unseen == self.design:
            raise ValueError("unseen is the design that is learned from; give it another seed")
        if self.training is None and self.unseen is not None:
            raise ValueError("unseen samples judge a surrogate, and training is None; leave them out, or train one")
        names = [purpose.name for purpose in self.purposes]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"purposes of one name would write the same files: {repeated}; give them names")

    def stages(self, files: Files) -> Iterator[Stage]:
        """All calls, in order."""
        yield self._generation("generate", self.design, files, files.data)
        if self.unseen is not None:
            yield self._generation("generate unseen", self.unseen, files, files.unseen)
        if self.training is not None:
            training = {"data": files.data, "out": files.surrogate, "settings": self.training}
            yield Stage("train", Call("train", training), (files.data,), (files.surrogate,))
        if self.unseen is not None:
            report = files.folder / "report"
            judged = {"surrogate": files.surrogate, "data": files.unseen, "out": report}
            yield Stage("report", Call("report", judged), (files.surrogate, files.unseen), (report,))
        for purpose in self.purposes:
            yield purpose.stage(files)

    def _generation(self, name: str, recipe: Recipe, files: Files, out: Path) -> Stage:
        sampling, solving = Sampling.of(recipe), Solving(self.ranks_per_solve)
        arguments = {"model": files.model, "out": out, "where": sampling, "solving": solving}
        return Stage(name, Call("generate", arguments), (), (out,), resumes=True)


def definition(spec: str, file: Path) -> str:
    """What tells a study's model from itself after a change: its own digest where it has one, else that of its source.

    Of the study's own file all counts but the study and its comments. Under MPI all ranks call it at once: importing
    PETSc is collective.

    Args:
        spec: The model's specification.
        file: The study's file.
    """
    found = find(spec)
    source = source_of(found, spec)
    if isinstance(found, Model) and not inspect.isclass(found):
        return describe(found, source=source).digest
    if source is None:
        return ""
    text = source.read_bytes()
    content = _without_study(text) if source.resolve() == file.resolve() else text
    return hashlib.sha256(content).hexdigest()[:16]


def _targets(node: ast.stmt) -> Sequence[ast.expr]:
    """What a statement assigns to."""
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def _without_study(source: bytes) -> bytes:
    """The meaning of a program but for what it calls `study`."""
    tree = ast.parse(source)
    tree.body = [
        node
        for node in tree.body
        if not any(isinstance(target, ast.Name) and target.id == "study" for target in _targets(node))
    ]
    return ast.dump(tree).encode()


def load_study(path: Path) -> tuple[Study, str]:
    """A study from its file, where it is called `study`, and the specification of its model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no `study`, or a model that commands can't find by its name.
        TypeError: If `study` is something else.
    """
    study = find(f"{path}:study")
    if not isinstance(study, Study):
        raise TypeError(f"study in {path} is of type {type(study).__name__}, expected sobofem.coupling.study.Study")
    return study, study.model if isinstance(study.model, str) else _specification(study.model, path)


def _specification(factory: Callable[..., Any], path: Path) -> str:
    """`file.py:name` or `module:name` of a function.

    Raises:
        ValueError: If it can't be found again by that.
    """
    name, module = getattr(factory, "__qualname__", ""), getattr(factory, "__module__", "")
    if not name.isidentifier():
        raise ValueError(f"the model of {path} is {factory!r}, which has no name; define it by `def` in the file")
    return f"{path}:{name}" if module == module_name(path) else f"{module}:{name}"
