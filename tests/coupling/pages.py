"""Read a page as a browser does, and check what every page must keep."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
import json

VOID = {"br", "hr", "img", "input", "link", "meta", "circle", "path", "rect", "use", "image"}
LARGEST = 3_000_000


@dataclass
class Page(HTMLParser):
    """What is on a page: its text, its tables' numbers with their full values, and what it refers to."""

    open_tags: list = field(default_factory=list)
    text: str = ""
    numbers: list = field(default_factory=list)
    references: list = field(default_factory=list)
    code: list = field(default_factory=list)
    ids: list = field(default_factory=list)
    tags: list = field(default_factory=list)
    values: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attributes):
        about = dict(attributes)
        self.tags.append((tag, about))
        self.references += [about[name] for name in ("src", "href", "xlink:href", "data", "srcset") if name in about]
        self.ids += [about["id"]] if "id" in about else []
        if tag == "code":
            self.code.append("")
        if tag == "data":
            self.values.append(about["value"])
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open_tags.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open_tags, f"</{tag}> ends nothing"
            assert self.open_tags.pop() == tag

    def handle_data(self, data):
        if "style" in self.open_tags:
            assert "http" not in data and "@import" not in data
            return
        self.text += data
        if "code" in self.open_tags:
            self.code[-1] += data
        if self.open_tags and self.open_tags[-1] == "data":
            self.numbers.append((self.values[-1], data))


def read(path):
    """A page, of which all that holds for every page was checked."""
    source, page = path.read_text(encoding="utf-8"), Page()
    assert len(source) < LARGEST
    page.feed(source)
    page.close()
    assert not page.open_tags and "<script" not in source
    for reference in page.references:  # nothing is loaded: data, places in the page, files beside it by a click
        assert reference.startswith(("data:", "#")) or "/" not in reference, reference
        assert not reference.startswith("#") or reference[1:] in page.ids, reference
    assert len(page.ids) == len(set(page.ids))
    for tag, about in page.tags:
        if tag == "img":
            assert about["alt"]
        if tag == "svg":
            assert about["role"] == "img" and about["aria-label"]
        if tag == "th":
            assert about["scope"] in ("row", "col")
    return page


def check(path, record):
    """Check a page, and that each number in its tables is one of the record's, written to all digits that it shows."""
    page, known = read(path), set(_numbers(json.loads(record.read_text())))
    assert page.numbers
    for value, text in page.numbers:
        assert float(value) in known, (value, text)
        mantissa, _, power = text.partition(" ± ")[0].rstrip("*%").partition("e")
        if mantissa.startswith("("):  # with an error bar of the same power
            mantissa, power = mantissa[1:], text.partition(")e")[2]
        unit = 10.0 ** int(power or 0) / (100 if text.endswith("%") else 1)
        last = unit * 10.0 ** -len(mantissa.partition(".")[2])
        assert abs(float(mantissa) * unit - float(value)) <= 0.501 * last, (value, text)
    return page


def _numbers(record):
    if isinstance(record, dict):
        for part in record.values():
            yield from _numbers(part)
    elif isinstance(record, list):
        yield float(len(record))  # how many there are
        for part in record:
            yield from _numbers(part)
    elif isinstance(record, int | float) and not isinstance(record, bool):
        yield float(record)
