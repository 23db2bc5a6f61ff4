"""Formulas as MathML, which browsers set by themselves: no script and no network. What can't be converted fails."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml


def _mathml(self, node, *, block):
    try:
        return tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        raise ValueError(f"{self.builder.current_docname}: {error} in the formula {node.astext()}") from error


def _inline(self, node):
    self.body.append(_mathml(self, node, block=False))
    raise nodes.SkipNode


def _display(self, node):
    self.body.append(f'<div class="formula">{_mathml(self, node, block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True}
