"""Pages and files outside of `docs`: the contributors' page, the changelog, and links to source files.

Links are written for readers of the repository. Here a module leads to the reference of its package, an example to the
gallery.
"""

from pathlib import Path
import re

import gallery
import reference

ROOT = Path(__file__).parents[2]
PAGES = {"project/contributing": "CONTRIBUTING.md", "project/changelog": "CHANGELOG.md"}
PACKAGES = ("fem", "surrogate", "coupling", "meshes")
_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?!https?:|#|mailto:)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def write_stubs(app):
    """Pages whose text is read from the repository."""
    for page in PAGES:
        reference.write(Path(app.srcdir) / f"{page}.md", "")


def take_links_over(app, page, source):
    """The text of a page, with links that lead to pages of the site."""
    folder = ROOT / "docs"
    if page in PAGES:
        source[0], folder = (ROOT / PAGES[page]).read_text(), ROOT
    elif page.startswith(("reference/", "gallery/")):
        return
    here = (ROOT / "docs" / page).parent

    def relocated(match):
        file = (folder / match["target"]).resolve()
        target = _page_of(file.relative_to(ROOT.resolve()).as_posix())
        if target is None:
            return match["text"] if file.exists() else match[0]
        path = (ROOT / "docs" / target).relative_to(here, walk_up=True)
        return f"[{match['text']}]({path}{match['anchor'] or ''})"

    source[0] = _LINK.sub(relocated, source[0])


def _page_of(file):
    """Which page a file of the repository is, relative to `docs`; None if it has none, and the link is left out."""
    for page, name in PAGES.items():
        if file == name:
            return f"{page}.md"
    if file.startswith("examples/"):
        return gallery.page_of(file)
    parts = file.removesuffix(".py").removesuffix("/__init__").split("/")
    if parts[0] in PACKAGES:
        while (module := ".".join(["sobofem", *parts])) not in reference.MODULES:
            parts.pop()
        return f"reference/{module}.rst"
    return file.removeprefix("docs/") if file.startswith("docs/") else None


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", write_stubs)
    app.connect("source-read", take_links_over)
    return {"parallel_read_safe": True}
