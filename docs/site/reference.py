"""A page for each public module, an entry for each public name, and links to these from wherever one is written."""

import ast
import importlib
import inspect
from pathlib import Path
import re

from docutils import nodes
from sphinx import addnodes
from sphinx.domains.python import PyObject
from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).parents[2]
MODULES = {
    "sobofem.fem": "Finite elements",
    "sobofem.fem.parameters": "Parameters of problems",
    "sobofem.fem.fields": "Whole fields as responses",
    "sobofem.fem.materials.elasticity": "Elasticity",
    "sobofem.fem.materials.hyperelasticity": "Hyperelasticity",
    "sobofem.fem.materials.plasticity": "Plasticity",
    "sobofem.fem.geometry": "Geometry of moving meshes",
    "sobofem.fem.output": "Files and pictures of solutions",
    "sobofem.fem.influence": "Influence of external functions",
    "sobofem.fem.maxima": "Largest values behind p-norms",
    "sobofem.fem.assembly.forms": "Forms and their members",
    "sobofem.fem.library": "Ready problems",
    "sobofem.surrogate": "Surrogates",
    "sobofem.surrogate.weighting": "Weightings",
    "sobofem.surrogate.networks": "Networks",
    "sobofem.surrogate.families": "Families of surrogates",
    "sobofem.surrogate.training.optimizers": "Optimizers of networks",
    "sobofem.surrogate.samples": "Samples",
    "sobofem.surrogate.reduction": "Reduced outputs and inputs",
    "sobofem.surrogate.operators": "Networks between fields",
    "sobofem.surrogate.consistency": "Derivatives checked by values",
    "sobofem.surrogate.export": "Files for other programs",
    "sobofem.coupling": "Samples of models",
    "sobofem.coupling.contract": "What a model is",
    "sobofem.coupling.design": "Designs",
    "sobofem.coupling.solving.stream": "Streaming",
    "sobofem.coupling.solving.cached_model": "Models that remember",
    "sobofem.coupling.models.torch_bridge": "Models in PyTorch",
    "sobofem.coupling.materials": "Learned laws",
    "sobofem.coupling.scales": "Two scales",
    "sobofem.coupling.library": "Ready problems with learned laws",
    "sobofem.coupling.library.composite_panel": "A panel of a composite, and its cell",
    "sobofem.coupling.optimize": "Optimization",
    "sobofem.coupling.optimize.generators": "Searches as generators",
    "sobofem.coupling.optimize.report": "Pages of optimizations",
    "sobofem.coupling.optimize.front_report": "Pages of fronts",
    "sobofem.coupling.uncertainty": "Uncertainty",
    "sobofem.coupling.calibration": "Calibration",
    "sobofem.coupling.calibration.report": "Pages of calibrations",
    "sobofem.coupling.report": "Reports on surrogates",
    "sobofem.coupling.study": "Studies",
    "sobofem.coupling.study.purposes": "Purposes of studies",
    "sobofem.coupling.commands": "Commands of one's own",
    "sobofem.meshes": "Meshes",
    "sobofem": "Everyday names",
}
"""Public modules and what their pages are called. A name of several has its entry where it comes first."""


def public_names(module):
    """What a module offers: its `__all__`, or functions and classes that it defines and files named like them."""
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return list(found.__all__)
    own = [
        name
        for name, thing in vars(found).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(thing))
        and f"{thing.__module__}.".startswith(f"{module}.")
    ]
    return own + [name for name in _children(found) if _named_as_its_file(module, name)]


def _children(package):
    return sorted(file.stem for place in getattr(package, "__path__", ()) for file in Path(place).glob("[a-z]*.py"))


def _named_as_its_file(module, name):
    return module.endswith(".library") and hasattr(importlib.import_module(f"{module}.{name}"), name)


def thing_of(module, name):
    """The object of a name, and where it may be imported from."""
    if _children(importlib.import_module(module)) and _named_as_its_file(module, name):
        module = f"{module}.{name}"
    found = importlib.import_module(module)
    return module, getattr(found, name)


class Entries:
    """Where each public name has its entry.

    Attributes:
        pages: Names with their paths, by module: those with an entry there.
        others: Names that a module offers whose entry is on another page, with their paths.
        homes: Paths of entries, by every path under which they may be met.
        page_of: The module on whose page an entry is, by its path.
    """

    def __init__(self):
        self.pages, self.others, self.homes, self.page_of = {}, {}, {}, {}
        by_identity = {}
        for module in MODULES:
            self.pages[module], self.others[module] = {}, {}
            for name in public_names(module):
                place, thing = thing_of(module, name)
                path = f"{place}.{name}"
                if inspect.ismodule(thing):
                    continue
                known = by_identity.get(id(thing)) if _has_identity(thing) else None
                if known:
                    self.others[module][name] = known
                else:
                    self.pages[module][name] = by_identity[id(thing)] = path
                    self.page_of[path] = module
                self.homes[path] = known or path
                if _has_identity(thing):
                    self.homes[f"{thing.__module__}.{thing.__qualname__}"] = known or path
        self._by_end = {}
        for path, home in self.homes.items():
            parts = path.split(".")
            for k in range(len(parts)):
                self._by_end.setdefault(".".join(parts[k:]), set()).add(home)

    def of_code(self, text):
        """The path of the entry that code names, such as `Problem`, `surrogate.fit(data)`, `p_norm(...)`; or None."""
        match = re.fullmatch(r"([A-Za-z_][\w.]*)(\(.*\))?", text, re.DOTALL)
        if not match:
            return None
        name, called = match[1], bool(match[2])
        if not ("." in name or called or "_" in name or (name[:1].isupper() and not name.isupper())):
            return None  # a word: `train` is a command as well
        found = self._by_end.get(name, set())
        return next(iter(found)) if len(found) == 1 else None


def _has_identity(thing):
    return inspect.isclass(thing) or inspect.isroutine(thing)


def write(file, text):
    """Write a page, unless it is as it should be: Sphinx reads again what is newer."""
    if not file.is_file() or file.read_text() != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def write_pages(app):
    """A page for each public module, and one of all commands."""
    app.entries = Entries()
    folder = Path(app.srcdir) / "reference"
    for module, title in MODULES.items():
        write(folder / f"{module}.rst", _page(app.entries, module, title))
    write(folder / "commands.rst", _commands())
    write(folder / "index.rst", _overview(app.entries))


def _page(entries, module, title):
    lines = [module, "=" * 100, "", f"*{title}.*", ""]
    lines += [f".. automodule:: {module}", "   :no-members:", "   :no-index:", "", f".. py:module:: {module}", ""]
    if others := entries.others[module]:
        lines += [".. list-table::", "   :class: elsewhere", ""]
        for name, path in sorted(others.items(), key=lambda each: each[0].lower()):
            sentence = _first_sentence(*path.rsplit(".", 1))
            lines += [f"   * - :py:obj:`{name} <{path}>`", f"     - {sentence}"]
        lines += [""]
    for name, path in entries.pages[module].items():
        lines += [*_entry(path, *thing_of(module, name)), ""]
    return "\n".join(lines)


def _entry(path, place, thing):
    if inspect.isclass(thing):
        return [f".. autoclass:: {path}", "   :members:"]
    if inspect.isroutine(thing):
        return [f".. autofunction:: {path}"]
    module, name = path.rsplit(".", 1)
    text = [f"   {line}" for line in _docstring_below(place, name)]
    return [f".. py:data:: {name}", f"   :module: {module}", "", *text]


def _docstring_below(module, name):
    """What stands below a constant, where it is defined."""
    for node in ast.parse(inspect.getsource(importlib.import_module(module))).body:
        if isinstance(node, ast.ImportFrom) and name in {each.name for each in node.names}:
            return _docstring_below(node.module, name)
    analyzer = ModuleAnalyzer.for_module(module)
    return analyzer.find_attr_docs().get(("", name), [""])


def _first_sentence(module, name):
    found = getattr(importlib.import_module(module), name)
    text = inspect.getdoc(found) or " ".join(_docstring_below(module, name))
    return re.split(r"(?<=[.!])\s", " ".join(text.split()))[0].replace("*", r"\*").replace("|", r"\|")


def _overview(entries):
    lines = ["Reference", "=" * 100, ""]
    lines += ["Every public name, by the module that it is imported from.", "", ".. toctree::", "   :hidden:", ""]
    lines += ["   commands", *(f"   {module}" for module in MODULES), ""]
    lines += [".. list-table::", "   :class: elsewhere", ""]
    lines += ["   * - :doc:`sobofem COMMAND <commands>`", "     - The command line."]
    for module, title in MODULES.items():
        lines += [f"   * - :doc:`{module} <{module}>`", f"     - {title}"]
    return "\n".join([*lines, ""])


def _commands():
    from sobofem.coupling.commands import all_commands

    lines = ["Commands", "=" * 100, ""]
    lines += ["``sobofem COMMAND --help`` prints the same.", ""]
    for name, command in all_commands().items():
        program = command.for_typer()
        about, _, example = inspect.cleandoc(program.help or "").partition("Example:")
        lines += [f"sobofem {name}", "-" * 80, "", about.replace("*", r"\*"), ""]
        lines += [".. code-block:: bash", "", *(f"   {line}" for line in example.strip().splitlines()), ""]
        described = [parameter for parameter in program.params if parameter.name != "help"]
        lines += [".. list-table::", "   :class: options", ""] if described else []
        for parameter in described:
            flags = (
                ", ".join([*parameter.opts, *parameter.secondary_opts])
                if parameter.opts[0][0] == "-"
                else (parameter.metavar or parameter.name.upper())
            )
            text = " ".join((getattr(parameter, "help", None) or "").split()).replace("*", r"\*")
            lines += [f"   * - ``{flags}``", f"     - {text or '|'}" if text else "     -"]
        lines += [""]
    return "\n".join(lines)


def link_code(app, doctree):
    """Pieces of code that name something public lead to its entry."""
    for literal in list(doctree.findall(nodes.literal)):
        if _within(literal, (nodes.reference, nodes.title, addnodes.pending_xref, addnodes.desc_signature)):
            continue
        if path := app.entries.of_code(literal.astext()):
            reference = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=path,
                refexplicit=True,
                refwarn=True,
                refdoc=app.env.docname,
            )
            literal.replace_self(reference)
            reference += literal


def _within(node, kinds):
    while node is not None:
        if isinstance(node, kinds):
            return True
        node = node.parent
    return False


def find_home(app, env, node, content):
    """A type that a signature names by the file that defines it."""
    home = app.entries.homes.get(node.get("reftarget", ""))
    if home is None or home == node["reftarget"]:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, content)


def setup(app):
    """Called by Sphinx."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("builder-inited", write_pages)
    app.connect("doctree-read", link_code)
    app.connect("missing-reference", find_home)
    return {"parallel_read_safe": True}
