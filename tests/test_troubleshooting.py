"""The page on errors quotes messages that the code has."""

import ast
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"\*\*`([^`]+)`\*\*", PAGE)
GAP = "…"


@pytest.fixture(scope="module")
def messages():
    """All texts in the code, with gaps where something is filled in."""
    files = [path for each in ("fem", "surrogate", "coupling") for path in (ROOT / each).rglob("*.py")]
    return [" ".join(text.split()) for path in files for text in texts(ast.parse(path.read_text()))]


def texts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.slow
@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_one_of_the_code(message, messages):
    assert any(holds(text, [part.strip() for part in message.split(GAP)]) for text in messages), message


def holds(text, parts):
    """Whether a text has some parts, one after the other."""
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_every_message_has_a_cause_or_a_remedy():
    entries = re.split(r"\n(?=\*\*`)", PAGE)[1:]
    assert len(QUOTED) > 40
    assert all("*Cause:*" in entry or "*Remedy:*" in entry for entry in entries)
