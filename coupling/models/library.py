"""The library's problems by short names, found without importing FEniCSx."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "fem" / "library"


def library() -> dict[str, str]:
    """Return the name of each problem of the library, and in a sentence what it is."""
    return {path.stem: _sentence(path) for path in sorted(FOLDER.glob("[!_]*.py"))}


def full_name(spec: str) -> str:
    """Return the `module:name` that a specification stands for: a short name is that of a problem of the library."""
    return f"sobofem.fem.library.{spec}:{spec}" if (FOLDER / f"{spec}.py").is_file() and spec.isidentifier() else spec


def _sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
