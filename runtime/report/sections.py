"""The parts of the page, one function each; each returns the content below its heading."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.report.checkpoints import checkpoint_rows
from runtime.report.commands import command_lines
from runtime.report.families import Family, unit_of
from runtime.report.history import History, number
from runtime.report.log_lines import Warnings
from runtime.report.markup import Markup, duration, element, joined, shown, size, table
from runtime.report.pictures import Picture

MOST_CLASSES = 2000  # rows of a table by class
MOST_EVALS = 30  # rows of the table of evaluations
MOST_KEYS = 300  # rows of a table of config keys
ENDINGS = {"running": "running", "done": "finished", "stopped": "stopped"}


def header(
    title: str, folder: Path, facts: Mapping[str, Any], family: Family, history: History
) -> Markup:
    """The title, how the run stands, and its main numbers."""
    last = _sessions(facts)[-1:] or [{}]
    status = last[0].get("status")
    badge = element("span", ENDINGS.get(str(status), "unknown"),
                    class_=f"badge {status if status in ENDINGS else ''}")
    tiles = []
    if history.best and family.leading in history.best["metrics"]:
        value, unit = history.best["metrics"][family.leading], unit_of(family.leading)
        tiles.append((f"best {family.leading}",
                      shown(value) + (" %" if unit == "%" else ""),
                      f"at iteration {shown(history.best['iteration'])}"))
    tiles.append(("updates", shown(history.updates), _plural(history.num_evals, "evaluation")))
    if number(history.now("loss")) == number(history.now("loss")):
        tiles.append(("last loss", shown(history.now("loss")), "of the last update written down"))
    seconds = [session.get("seconds") for session in _sessions(facts)]
    tiles.append(("time", duration(sum(number(each) for each in seconds if each is not None)),
                  f"in {_plural(len(seconds), 'session')}"))
    tiles.append(("device", _counted(facts.get("devices")), str(facts.get("script") or "")))
    reason = last[0].get("reason")
    return element(
        "header", element("h1", title, " ", badge),
        element("p", f"It ended early: {reason}", class_="reason") if reason else None,
        element("dl", *(element("div", element("dt", name), element("dd", value),
                                element("dd", note, class_="note"))
                        for name, value, note in tiles), class_="tiles"))


def curves_note(history: History) -> str:
    """How the charts are read."""
    text = ("Point at a chart, or select it and use the arrow keys, to read its values; a name "
            "below it hides its curve and shows it again.")
    if history.is_sampled:
        text += " This run is long: of its updates before the last start, only some were read."
    resumed = [event["iteration"] for event in history.events if event["event"] == "resume"]
    if resumed:
        text += f" Resumed at iteration {', '.join(map(shown, resumed[-20:]))}."
    return text


def scores(family: Family, history: History) -> Iterable[Markup]:
    """The evaluations, and the scores of each class."""
    if history.last is None:
        yield element("p", "Nothing has been evaluated yet.")
        return
    best = history.best or history.last
    names = list(dict.fromkeys([*family.scores, *history.last["metrics"]]))
    names = [name for name in names if name in history.last["metrics"]][:40]
    shown_evals = list(history.evals)[-MOST_EVALS:]
    if best["iteration"] not in [event["iteration"] for event in shown_evals]:
        shown_evals.insert(0, best)
    rows = [[_starred(event, best, history), event.get("epoch"),
             *(_plain(event["metrics"].get(name)) for name in names)]
            for event in reversed(shown_evals)]
    count = history.num_evals
    caption = (f"The last {len(rows)} of {shown(count)} evaluations" if count > len(rows)
               else "All evaluations") + ", the newest first; ★ is the best"
    yield table(["iteration", "epoch", *names], rows, caption, sorts=True)
    with_classes = next((event for event in (history.best, history.last)
                         if event and isinstance(event.get("classes"), dict)), None)
    if with_classes:
        which = "the best" if with_classes is history.best else "the last"
        yield class_table(with_classes, which)


def class_table(event: Mapping[str, Any], which: str) -> Markup:
    """The scores of each class in an evaluation."""
    classes = {name: scores for name, scores in event["classes"].items()
               if isinstance(scores, dict)}
    keys = list(dict.fromkeys(key for scores in classes.values() for key in scores))[:20]
    rows = [[name, *(_plain(scores.get(key)) for key in keys)]
            for name, scores in list(classes.items())[:MOST_CLASSES]]
    more = len(classes) - len(rows)
    caption = f"By class, {which} evaluation (iteration {shown(event['iteration'])})"
    if more > 0:
        caption += f"; {shown(more)} further classes are in metrics.jsonl"
    return table(["class", *keys], rows, caption, sorts=True)


def pictures(found: Sequence[Picture]) -> Iterable[Markup]:
    """Each picture with its title; a click enlarges it."""
    if not found:
        yield element("p", "No picture has been drawn yet.")
    for picture in found:
        caption = element("figcaption", picture.title, " ",
                          element("span", picture.name, class_="note"))
        if picture.uri:
            image = element("img", src=Markup(picture.uri), alt=f"{picture.title} ({picture.name})",
                            width=picture.width, height=picture.height, loading="lazy")
            content = element("button", image, type="button", class_="zoom",
                              title="enlarge or shrink")
        else:
            content = element("p", f"too large for this page, or no picture: see {picture.name}")
        yield element("figure", caption, content, class_="picture")


def checkpoints(
    folder: Path, facts: Mapping[str, Any], family: Family, history: History
) -> Iterable[Markup]:
    """The files that hold weights."""
    rows, more = checkpoint_rows(facts, folder, family, history)
    if not rows:
        yield element("p", "No checkpoint has been saved yet.")
        return
    yield table(["file", "iteration", family.leading or "score", "written", "size"],
                [[row.name, row.iteration, row.score, row.written, size(row.size)]
                 for row in rows],
                "The best and the final weights first, then the newest; a score is shown where "
                "that iteration was evaluated")
    if more:
        yield element("p", f"... and {shown(more)} older ones.")


def commands(facts: Mapping[str, Any]) -> Iterable[Markup]:
    """Lines to copy."""
    sessions = _sessions(facts)
    is_done = bool(sessions) and sessions[-1].get("status") == "done"
    lines = command_lines(_words(facts.get("command")), _words(facts.get("starter")), is_done)
    if not lines:
        yield element("p", "The command line of this run is not known.")
        return
    yield element("p", "Run them in ", element("code", facts.get("cwd") or "the project's folder"),
                  ". Without --resume FILE the best checkpoint is taken, else the newest.")
    for purpose, text in lines:
        yield copied(purpose, text)


def copied(purpose: str, text: str) -> Markup:
    """A line with a button that copies it."""
    # a line may wrap between words, not at the hyphens of a flag
    words = [element("span", word) for word in text.split(" ")]
    code = joined(part for word in words for part in (word, " "))
    return element("div", element("span", purpose, class_="note"),
                   element("pre", element("code", Markup(code[:-1])), tabindex=0),
                   element("button", "Copy", type="button", class_="copy",
                           aria_label=f"Copy: {purpose}"), class_="command")


def what_was_run(folder: Path, facts: Mapping[str, Any]) -> Iterable[Markup]:
    """The command, the machine, the versions and the sessions."""
    command = _words(facts.get("command"))
    starter = _words(facts.get("starter")) or ["python"]
    if command:
        yield copied("The command of the last session", shlex.join([*starter, *command]))
    versions = facts.get("versions")
    rows = [
        ("script", facts.get("script")), ("config", facts.get("config")),
        ("run folder", str(folder.absolute())), ("in folder", facts.get("cwd")),
        ("devices", _counted(facts.get("devices"))),
        ("processes", facts.get("world_size")), ("launcher", facts.get("launcher")),
        ("platform", facts.get("platform")), ("python", facts.get("python")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())
         if isinstance(versions, dict) else None),
        ("CUDA", facts.get("cuda")), ("cuDNN", facts.get("cudnn")),
        ("threads", facts.get("threads")),
    ]
    yield table(["what", "value"], [[name, shown(value)] for name, value in rows
                                    if value is not None], "Where it ran")
    sessions = _sessions(facts)
    rows_of = [[session.get("time") or "", session.get("start"), duration(session.get("seconds")),
                _ending(session, is_last=i == len(sessions) - 1)]
               for i, session in enumerate(sessions)]
    yield table(["began", "from iteration", "time", "how it ended"], rows_of[::-1][:40],
                "Sessions, the newest first")


def differences(facts: Mapping[str, Any]) -> Iterable[Markup]:
    """The config's values beside the recipe's and the schema's."""
    recipe, schema = facts.get("differs_from_recipe"), facts.get("differs_from_defaults")
    name = facts.get("config")
    if isinstance(recipe, dict) and name:
        yield _difference_table(recipe, f"Other than in {name}", f"{name} has")
    if isinstance(schema, dict):
        found = _difference_table(schema, "Other than the script's defaults", "default")
        yield found if not recipe else element(
            "details", element("summary", f"Other than the script's defaults: {len(schema)}"),
            found)
    if not isinstance(recipe, dict) and not isinstance(schema, dict):
        yield element("p", "Not known; config.yaml has all values.")


def data(facts: Mapping[str, Any]) -> Iterable[Markup]:
    """Images and classes of the parts of the data set."""
    parts = facts.get("data")
    parts = {name: part for name, part in parts.items() if isinstance(part, dict)
             } if isinstance(parts, dict) else {}
    if not parts:
        yield element("p", "Not known.")
        return
    yield table(["part", "images", "objects", "classes", "from"], [
        [name, part.get("images"), part.get("objects"), part.get("num_classes"),
         part.get("source")] for name, part in parts.items()], "Parts")
    counted = {name: part["classes"] for name, part in parts.items()
               if isinstance(part.get("classes"), dict)}
    names = list(dict.fromkeys(name for counts in counted.values() for name in counts))
    network = facts.get("network")
    trained = _words(network.get("classes")) if isinstance(network, dict) else []
    if trained and not names:
        yield element("p", f"Classes ({shown(len(trained))}): ", ", ".join(trained))
    if names:
        unit = next((part.get("unit") for part in parts.values() if part.get("unit")), "")
        rows = [[name, *(counts.get(name) for counts in counted.values())]
                for name in names[:MOST_CLASSES]]
        yield element(
            "details", element("summary", f"Classes: {shown(len(names))}"),
            table(["class", *(f"{unit} in {part}" for part in counted)], rows,
                  "Classes, with how much there is of each", sorts=True),
            open=len(names) <= 20)


def warnings(found: Warnings, history: History) -> Iterable[Markup]:
    """The log's warnings, each once."""
    if history.skips:
        yield element("p", f"{shown(history.skips)} updates were left out because of a loss or "
                      "gradient that was not finite.")
    if not found.counts:
        yield element("p", "None.")
        return
    yield table(["warning", "times"], list(found.counts.items()),
                "Warnings in log.txt, in the order of their first time")
    if found.left_out:
        yield element("p", f"... and {shown(found.left_out)} further ones.")


def _difference_table(changes: Mapping[str, Any], caption: str, other: str) -> Markup:
    rows = [[key, *(element("code", shown(value)) for value in pair)]
            for key, pair in list(changes.items())[:MOST_KEYS]
            if isinstance(pair, list | tuple) and len(pair) == 2]
    if not rows:
        return element("p", f"{caption}: nothing.")
    if len(changes) > len(rows):
        caption += f" (the first {len(rows)} of {len(changes)})"
    return table(["key", "this run", other], rows, caption)


def _plural(count: int, word: str) -> str:
    return f"{shown(count)} {word}{'s' * (count != 1)}"


def _starred(event: Mapping[str, Any], best: Mapping[str, Any], history: History) -> Markup:
    star = "★ " if event["iteration"] == best["iteration"] and history.best else ""
    return joined([star, shown(event["iteration"])])


def _plain(value: object) -> object:
    """A score as it is, None for what is no number; texts stay."""
    if value is None or isinstance(value, str):
        return value
    return value if isinstance(value, int | float) else shown(value)


def _sessions(facts: Mapping[str, Any]) -> list[dict]:
    found = facts.get("sessions")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _ending(session: Mapping[str, Any], is_last: bool) -> str:
    status = session.get("status")
    if status == "running" and not is_last:
        return "broken off without a word"
    reason = session.get("reason")
    return ENDINGS.get(str(status), "") + (f": {reason}" if reason else "")


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list | tuple) else []


def _counted(devices: object) -> str:
    """Devices by name, those that are there twice once: "4 x NVIDIA H200"."""
    names = _words(devices)
    counts = {name: names.count(name) for name in names}
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())
