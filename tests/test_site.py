"""The site has an entry for every public name, leads nowhere into the void, and loads nothing from elsewhere."""

import ast
import importlib
import os
from pathlib import Path
import re
import sys
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
SITE = os.environ.get("SOBOFEM_SITE")
pytestmark = pytest.mark.skipif(not SITE, reason="run by `make docs`, which builds the site first")
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
IMPORT = re.compile(r"^(?:from sobofem[\w.]* import (?:\([^)]*\)|[^\n(]*)|import sobofem[\w.]*)", re.MULTILINE)


@pytest.fixture(scope="module")
def pages():
    """Every page of the site, by its path below the site's folder."""
    found = {path.relative_to(SITE).as_posix(): path.read_text() for path in Path(SITE).rglob("*.html")}
    return {name: text for name, text in found.items() if not name.startswith("_static/")}


@pytest.fixture(scope="module")
def anchors(pages):
    return {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages.items()}


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    yield importlib.import_module("reference")
    sys.path.pop(0)


def test_every_page_of_the_documentation_is_built(pages):
    assert {f"{Path(page).stem}.html" for page in PAGES if page.startswith("docs/")} <= set(pages)
    assert {"project/contributing.html", "project/changelog.html", "reference/commands.html"} <= set(pages)


def test_every_public_name_has_an_entry(anchors, reference):
    entries = reference.Entries()
    assert len(entries.page_of) > 250
    for path, module in entries.page_of.items():
        assert path in anchors[f"reference/{module}.html"], path
    for package in ("sobofem", "sobofem.fem", "sobofem.surrogate", "sobofem.coupling"):
        for name in importlib.import_module(package).__all__:
            path = entries.homes.get(f"{package}.{name}")
            assert path in entries.page_of or f"{package}.{name}" in sys.modules, f"{package}.{name}"


def test_what_pages_and_examples_import_has_an_entry(reference):
    """What is not public is no part of what a reader should copy."""
    homes = reference.Entries().homes
    texts = [(ROOT / page).read_text() for page in PAGES]
    texts += [path.read_text() for path in (ROOT / "examples").glob("*.py")]
    for statement in (match[0] for text in texts for match in IMPORT.finditer(text)):
        for node in ast.parse(statement).body:
            module = getattr(node, "module", None)
            for name in (each.name for each in node.names):
                path = f"{module}.{name}" if module else name
                assert path in homes or path in reference.MODULES or name.isupper(), statement


def test_every_command_has_an_entry(pages):
    from sobofem.coupling.commands import ORDER

    assert all(f"sobofem {name}" in pages["reference/commands.html"] for name in ORDER)


def test_every_link_within_the_site_leads_somewhere(pages, anchors):
    for name, text in pages.items():
        if name.startswith("_modules/"):
            continue  # of source files, whose links Sphinx makes
        for target in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            path = (
                os.path.normpath(os.path.join(os.path.dirname(name), unquote(path.partition("?")[0]))) if path else name
            )
            assert (Path(SITE) / path).exists(), f"{name}: {target}"
            if anchor and path in anchors:
                assert unquote(anchor) in anchors[path], f"{name}: {target}"


def test_nothing_is_loaded_from_elsewhere(pages):
    for name, text in pages.items():
        loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="(https?:[^"]+)"', text)
        assert not loaded, f"{name}: {loaded}"


def test_formulas_are_set_as_such(pages):
    assert pages["derivatives.html"].count("<math") > 20
    assert "$" not in re.sub(r"<(script|pre)\b.*?</\1>", "", pages["derivatives.html"], flags=re.DOTALL)


def test_pages_on_one_subject_lead_to_the_reference(pages):
    """A name that stands in a sentence is a link."""
    assert 'href="reference/sobofem.fem.html#sobofem.fem.Problem"' in pages["problems.html"]
    assert 'href="reference/sobofem.surrogate.weighting.html#' in pages["weighting.html"]
    assert 'href="reference/sobofem.coupling.html#' in pages["data.html"]
