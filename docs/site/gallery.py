"""The gallery: a page for each example and notebook, with its picture, its text and its source to download."""

import ast
import json
from pathlib import Path
import tomllib

import reference

ROOT = Path(__file__).parents[2]
EXAMPLES = tomllib.loads((ROOT / "examples" / "gallery.toml").read_text())
"""Titles and pictures, by file name; the order is that of the gallery."""


def page_of(file):
    """The page of a file in `examples`, relative to `docs`."""
    name = Path(file).name
    return f"gallery/{Path(name).stem}.md" if name in EXAMPLES else "gallery/index.md"


def write_pages(app):
    """The pages of all examples, and one that shows them side by side."""
    folder = Path(app.srcdir) / "gallery"
    for name, about in EXAMPLES.items():
        reference.write(folder / f"{Path(name).stem}.md", _page(name, about))
    reference.write(folder / "index.md", _overview())


def _page(name, about):
    lines = [f"# {about['title']}", ""]
    lines += [f"![{about['title']}](../pictures/{about['picture']})\n"]
    lines += [f"{{download}}`examples/{name} <../../examples/{name}>`", ""]
    source = (ROOT / "examples" / name).read_text()
    lines += _notebook(source) if name.endswith(".ipynb") else _script(name, source)
    return "\n".join([*lines, ""])


def _script(name, source):
    docstring = ast.get_docstring(ast.parse(source))
    yield from (
        f"```bash\n{part.strip()}\n```\n" if _is_command(part) else f"{part}\n" for part in docstring.split("\n\n")
    )
    yield f":::{{literalinclude}} ../../examples/{name}\n:language: python\n:::"


def _is_command(text):
    return text.strip().startswith(("python ", "sobofem ", "mpiexec "))


def _notebook(source):
    for cell in json.loads(source)["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            yield f"```python\n{text}\n```\n"
        else:
            yield "\n".join(line for line in text.splitlines() if not line.startswith("# ")) + "\n"


def _overview():
    lines = ["# Gallery", "", "Each is a file to copy, and run by the tests.", "", ":::::{container} gallery"]
    for name, about in EXAMPLES.items():
        page, title = f"{Path(name).stem}.md", about["title"]
        picture = f"[![{title}](../pictures/{about['picture']})]({page})\n"
        lines += ["::::{container} example", picture, f"[{title}]({page})", "::::"]
    lines += [":::::", "", "```{toctree}", ":hidden:", "", *(Path(name).stem for name in EXAMPLES), "```"]
    return "\n".join([*lines, ""])


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
