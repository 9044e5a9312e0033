"""report.html from the facts, the history, the warnings and the pictures of a run."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from runtime.report import sections
from runtime.report.charts import as_json, charts_of, figures
from runtime.report.families import Family
from runtime.report.history import History
from runtime.report.log_lines import Warnings
from runtime.report.markup import Markup, element, joined
from runtime.report.pictures import Picture

# Whatever a class's or a file's name holds: the page loads nothing and talks to nobody.
POLICY = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
          "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'")


def page(
    folder: Path, facts: Mapping[str, Any], family: Family, history: History, warnings: Warnings,
    pictures: Sequence[Picture],
) -> str:
    """The whole page, which needs no other file."""
    title = f"{facts.get('script') or 'run'}: {folder.absolute().name}"
    charts = charts_of(history, family)
    curves = joined(figures(charts)) or element("p", "No update has been written down yet.")
    body = [
        sections.header(title, folder, facts, family, history),
        _section("Curves", element("p", sections.curves_note(history), class_="note"),
                 element("div", curves, class_="charts")),
        _section("Scores", *sections.scores(family, history)),
        _section("Pictures", *sections.pictures(pictures)),
        _section("Checkpoints", *sections.checkpoints(folder, facts, family, history)),
        _section("Go on from here", *sections.commands(facts)),
        _section("What was run", *sections.what_was_run(folder, facts)),
        _section("What differs from the defaults", *sections.differences(facts)),
        _section("Data", *sections.data(facts)),
        _section("Warnings", *sections.warnings(warnings, history)),
    ]
    links = [element("a", name, href=f"#{_anchor(name)}") for name in (
        "Curves", "Scores", "Pictures", "Checkpoints", "Go on from here", "What was run",
        "What differs from the defaults", "Data", "Warnings")]
    foot = element("footer", f"Written {time.strftime('%Y-%m-%d %H:%M:%S %z')} from the files in "
                   f"{folder.absolute()}. Iterations count updates of the weights.")
    return "<!DOCTYPE html>\n" + element(
        "html",
        element("head", element("meta", charset="utf-8"),
                element("meta", http_equiv="Content-Security-Policy", content=POLICY),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("title", title), element("style", Markup(_asset("page.css")))),
        element("body", body[0], element("nav", *links, aria_label="Parts of this page"),
                element("main", *body[1:]), foot, as_json(charts),
                element("script", Markup(_asset("page.js")))),
        lang="en") + "\n"


def _section(title: str, *content: object) -> Markup:
    return element("section", element("h2", title), *content, id=_anchor(title))


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
