"""The course as a static site: the notebooks as committed. Nothing is executed, and a page asks no other host."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.search.zh import SearchChinese

project = html_title = "大模型微调技术及医疗问诊机器人实战"
language = "zh_CN"
extensions = ["myst_nb"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["course.css"]
html_math_renderer = "mathml"
html_use_index = html_show_sphinx = html_show_copyright = html_copy_source = False


class Search(SearchChinese):
    """Find any run of Chinese characters, also terms that no dictionary has, such as 困惑度.

    The browser looks for a word of two characters among the entries of the index, and for a longer one, if no entry
    equals it, inside the entries. So the index gets all pairs of neighbours, and the runs behind a mark.
    """

    language_name = "English"  # of the stemmer, which Sphinx 9.0 calls by this name: sphinx-doc/sphinx#14229

    def split(self, text):
        runs = re.findall(r"[\u4e00-\u9fff]{2,}", text)
        pairs = [run[start : start + 2] for run in runs for start in range(len(run) - 1)]
        return [*pairs, *("_" + run for run in runs), *super().split(text)]


def keep_alternative_text(app, doctree):
    """Replace pictures that lie on another host (the Colab badge) by their text."""
    for image in list(doctree.findall(nodes.image)):
        if image["uri"].startswith("https://"):
            image.replace_self(nodes.Text(image["alt"]))


def one_title(app, doctree):
    """Put the parts of a notebook that has several first-level headings under its first one, the page's title."""
    sections = [node for node in doctree.children if isinstance(node, nodes.section)]
    for part in sections[1:]:
        doctree.remove(part)
        sections[0].append(part)


def inline_math(writer, node):
    """Write a formula as MathML, which browsers draw themselves, so MathJax need not be fetched."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_math(writer, node):
    writer.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(app):
    app.add_search_language(Search)
    app.connect("doctree-read", keep_alternative_text)
    app.connect("doctree-read", one_title, priority=400)  # before Sphinx collects the headings
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
