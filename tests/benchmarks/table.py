"""The results as Markdown: made of the numbers, never by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import PEERS
from tests.benchmarks.scenarios import SCENARIOS

BEGIN = "% The scoreboard begins. It is written by python -m tests.benchmarks."
END = "% The scoreboard ends."


def write(found: dict[str, Any], page: Path) -> None:
    """Replace what stands between the two markers of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    body = "\n\n".join([BEGIN, render(found), END])
    page.write_text(before + body + after)


def render(found: dict[str, Any]) -> str:
    """Return versions, tables and configurations, as one text."""
    names = list(found["peers"])
    us = [name for name in names if is_ours(name)]
    of_redis = [name for name in names if PEERS[name].on_redis]
    in_database = [name for name in names if name not in (*us, *of_redis)]
    parts = [about(found)]
    for title, group in (
        ("Peers that keep tasks in the database", in_database),
        ("Peers that keep tasks in Redis", of_redis),
    ):
        if group or (us and names == us and group is in_database):
            parts += [f"### {title}", scores(found, [*us, *group])]
    parts += ["### How each was configured", configurations(names), missing(names)]
    return "\n\n".join(part for part in parts if part)


def about(found: dict[str, Any]) -> str:
    """Return when, where and with what it was run."""
    dates = sorted({each["date"] for each in found["cells"]})
    line = (
        f"Run on {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}: "
        f"{found['machine']}, "
        f"PostgreSQL {found['postgresql']}, Redis {found['redis']}. The command:"
        f"\n\n```console\n$ {found['command']}\n```"
    )
    lines = [
        f"* {name}: " + ", ".join(" ".join(each) for each in versions.items())
        for name, versions in found["peers"].items()
    ]
    return line + "\n\n" + "\n".join(lines)


def scores(found: dict[str, Any], peers: Sequence[str]) -> str:
    """Return one table: a row for each scenario, a column for each peer."""
    cells = {(each["peer"], each["scenario"]): each for each in found["cells"]}
    wanted = [
        name for name in SCENARIOS if any((peer, name) in cells for peer in peers)
    ]
    rows = [
        [SCENARIOS[name].title, *(cell(cells.get((peer, name))) for peer in peers)]
        for name in wanted
    ]
    return table(["", *peers], rows)


def cell(found: dict[str, Any] | None) -> str:
    """Return the text of one cell; a failure says in how many runs it was seen."""
    if found is None:
        return "not run"
    if "missing" in found:
        return "not offered"
    runs = found["runs"]
    if unmeasured := [run for run in runs if not run["measured"]]:
        return str(unmeasured[0]["text"])
    failures = [run for run in runs if run["failed"]]
    if not failures:
        return str(runs[0]["text"])
    text = f"**{failures[0]['text']}**"
    return f"{text} ({len(failures)} of {len(runs)} runs)" if len(runs) > 1 else text


def is_ours(peer: str) -> bool:
    return peer == next(iter(PEERS))


def configurations(peers: Sequence[str]) -> str:
    rows = [[name, "; ".join(PEERS[name].configuration)] for name in peers]
    return table(["", "configuration"], rows)


def missing(peers: Sequence[str]) -> str:
    """Return why a cell says that something is not offered."""
    rows = [
        [name, SCENARIOS[scenario].title, reason]
        for name in peers
        for scenario, reason in PEERS[name].missing.items()
    ]
    return table(["", "not offered", "what shows it"], rows) if rows else ""


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(each.replace("|", "\\|") for each in line) + " |"
        for line in lines
    )
