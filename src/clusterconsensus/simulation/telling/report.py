"""The page that a failing run leaves behind: a space-time diagram, and all that explains it.

One HTML file that needs nothing else: no network, no server, no library. Members are horizontal
lines, time runs to the right, a message is an arrow that leans by the time it took. The script and
the style are package data in ``page/``; the recording goes in as JSON.

Texts in a recording come from states and clients, and nobody vouches for them. So what could end
the script element is escaped in the JSON, the script writes texts as texts only, and the page
forbids itself by its security policy to run or load anything but what is written here.
"""

from __future__ import annotations

import base64
import hashlib
import html
from importlib import resources

import msgspec

from clusterconsensus.simulation.telling.explanations import explain
from clusterconsensus.simulation.telling.recording import Finding, Recording

SCRIPTS = (
    "model.js",
    "layout.js",
    "ink.js",
    "paint.js",
    "margins.js",
    "diagram.js",
    "lists.js",
    "main.js",
)
"""In the order in which they run: one function around all of them."""

_KINDS = {
    "safety": "the cluster did what it must never do",
    "liveness": "the cluster did not do what it must get done",
    "crash": "the code itself failed",
}


def _part(name: str) -> str:
    return (
        resources.files("clusterconsensus.simulation.telling")
        .joinpath("page", name)
        .read_text("utf-8")
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: object) -> str:
    """JSON that may stand in a script element: ``<`` never appears in it, nor do line ends of
    Unicode that old scripts took for the end of a string."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def moment(at: float, axis: str) -> str:
    """A time as it is said in a sentence: ``at 12.345 s``, ``at step 7``."""
    return f"at step {at:g}" if axis == "steps" else f"at {at:.3f} s"


def verdict(finding: Finding | None, axis: str) -> str:
    """The outcome of a run in one sentence without its end."""
    if finding is None:
        return "No violation was found"
    if finding.kind == "crash":
        return f"A member crashed {moment(finding.at, axis)}: {finding.rule}"
    return f"{finding.rule} violated {moment(finding.at, axis)}"


def render(recording: Recording) -> str:
    """The page for one run, as the text of an HTML file (UTF-8)."""
    script = '"use strict";\n(() => {\n' + "\n".join(_part(name) for name in SCRIPTS) + "\n})();\n"
    style = _part("report.css")
    finding = recording.violation
    explained = None
    if finding is not None:
        rule = "crash" if finding.kind == "crash" else finding.rule
        explained = explain(rule)._asdict()
    data = {
        "recording": recording,
        "verdict": verdict(finding, recording.axis),
        "sort": _KINDS[finding.kind] if finding is not None else "",
        "explanation": explained,
    }
    text = finding.text if finding is not None else ""
    parts = {
        "POLICY": (
            f"default-src 'none'; script-src 'sha256-{_hash(script)}'; "
            f"style-src 'sha256-{_hash(style)}'; base-uri 'none'; form-action 'none'"
        ),
        "TITLE": html.escape(f"{data['verdict']} · {recording.title}".strip(" ·")),
        "PLAIN": html.escape(f"{data['verdict']}. {text} Replay: {recording.command}"),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": _json(data),
    }
    pieces = _part("report.html").split("@@")
    # Every second piece is a name: what is put in is never searched for names itself.
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))
