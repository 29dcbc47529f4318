"""The page of a failing run: one file, whatever is in the recording; and what is recorded."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clusterconsensus.simulation.telling.explanations import INVARIANTS, explain, explanation
from clusterconsensus.simulation.telling.recording import Finding, Recorder, Recording, Span
from clusterconsensus.simulation.telling.report import render, verdict

from .synthetic import HOSTILE, long_run, lost_write

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


class Page(html.parser.HTMLParser):
    """What a browser makes of a page: its elements, and the text of those that matter."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.elements.append((tag, named))
        self._inside = [named.get("id") or tag]

    def handle_endtag(self, tag: str) -> None:
        self._inside = []

    def handle_data(self, data: str) -> None:
        for name in self._inside:
            self.texts[name] = self.texts.get(name, "") + data


def hostile() -> Recording:
    recorder = Recorder(
        title=HOSTILE,
        command=HOSTILE,
        faults=[HOSTILE],
        members=["a", HOSTILE],
        axis="steps",
    )
    number = recorder.sent(0.0, HOSTILE, "a", HOSTILE, HOSTILE)
    recorder.arrived(number, 1.0)
    recorder.mark(0.5, "a", "note", HOSTILE)
    recorder.span_begins(0.5, "a", "master", HOSTILE)
    recorder.did(0.5, HOSTILE)
    recorder.cut(0.5, "a", HOSTILE)
    recorder.returned(recorder.invoked(0.5, HOSTILE, "a", HOSTILE), 0.8, HOSTILE, HOSTILE)
    recorder.say(HOSTILE)
    recorder.violated(1.0, HOSTILE, "crash", HOSTILE, [HOSTILE])
    return recorder.recording()


RECORDINGS: dict[str, Callable[[], Recording]] = {
    "lost_write": lost_write,
    "hostile": hostile,
    "nothing": lambda: Recorder().recording(),
}


@pytest.fixture(params=sorted(RECORDINGS))
def recording(request: pytest.FixtureRequest) -> Recording:
    name: str = request.param
    return RECORDINGS[name]()


def test_a_page_refers_to_nothing_outside_of_itself(recording: Recording) -> None:
    text = render(recording)
    page = Page(text)
    assert not [
        (tag, name)
        for tag, attributes in page.elements
        for name in attributes
        if name in ("src", "href", "srcset", "action", "style") or name.startswith("on")
    ]
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "img", "iframe", "base", "object"})
    assert "@import" not in page.texts["style"]
    assert "url(" not in page.texts["style"]
    assert not re.search(
        r"https?://|\bfetch\(|XMLHttpRequest|innerHTML|\beval\(", page.texts["script"]
    )


def test_the_policy_allows_this_script_and_style_only(recording: Recording) -> None:
    page = Page(render(recording))
    policy = next(found["content"] for tag, found in page.elements if "http-equiv" in found)
    assert policy is not None
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_hostile_texts_end_no_element(recording: Recording) -> None:
    text = render(recording)
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert text.count("</script>") == 2
    assert "<!--" not in text
    assert "\u2028" not in page.texts["data"]
    assert "<" not in page.texts["data"]


def test_the_data_of_a_page_is_the_recording(recording: Recording) -> None:
    found = json.loads(Page(render(recording)).texts["data"])
    assert msgspec.convert(found["recording"], Recording) == recording
    assert found["verdict"] == verdict(recording.violation, recording.axis)
    if recording.violation is None:
        assert found["explanation"] is None
    else:
        assert set(found["explanation"]) == {"promise", "meaning", "place"}


def test_a_recording_survives_json(recording: Recording) -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(recording), type=Recording)
    assert decoded == recording


def test_the_same_recording_gives_the_same_page() -> None:
    assert render(lost_write()) == render(lost_write())


def test_verdicts() -> None:
    safety = Finding(rule="I-4", kind="safety", text="", at=12.3451, members=[])
    crash = Finding(rule="KeyError", kind="crash", text="", at=7, members=[])
    assert verdict(safety, "seconds") == "I-4 violated at 12.345 s"
    assert verdict(crash, "steps") == "A member crashed at step 7: KeyError"
    assert verdict(None, "seconds") == "No violation was found"
    assert "<title>I-4 violated at 2.360 s · seed 4711" in render(lost_write())


# -- the recorder


def test_the_latest_messages_are_kept_and_the_others_counted() -> None:
    recorder = Recorder(max_messages=10, max_others=3)
    for step in range(35):
        number = recorder.sent(step, "accept", "a", "b", f"text {step}")
        assert number == step
        recorder.arrived(number, step + 0.5)
        recorder.mark(step, "a", "commit", str(step))
        recorder.say(f"line {step}")
        assert len(recorder._messages.items) <= 20
    recording = recorder.recording()
    assert [message.text for message in recording.messages] == [f"text {n}" for n in range(25, 35)]
    assert [message.id for message in recording.messages] == list(range(25, 35))
    assert [mark.text for mark in recording.marks] == ["32", "33", "34"]
    assert recording.log == ["line 32", "line 33", "line 34"]
    assert recording.dropped == {"messages": 25, "marks": 32, "log": 32}
    assert recording.complete_from == 31
    assert recording.begins == 0


def test_a_message_that_was_dropped_may_still_arrive() -> None:
    recorder = Recorder(max_messages=2)
    numbers = [recorder.sent(step, "accept", "a", "b", str(step)) for step in range(9)]
    before = recorder.recording().messages
    recorder.arrived(numbers[0], 10.0)
    recorder.arrived(numbers[8], 11.0, "garbled")
    first, last = recorder.recording().messages
    assert (first.text, first.fate, first.arrived_at) == ("7", "under way", None)
    assert (last.text, last.fate, last.arrived_at) == ("8", "garbled", 11.0)
    assert [message.fate for message in before] == ["under way", "under way"]


@pytest.mark.parametrize("fate", ["lost", "cut"])
def test_what_is_lost_has_no_time_of_arrival(fate: str) -> None:
    recorder = Recorder()
    recorder.arrived(recorder.sent(1.0, "accept", "a", "b"), 1.0, fate)  # type: ignore[arg-type]  # two of the fates
    (message,) = recorder.recording().messages
    assert (message.fate, message.arrived_at) == (fate, None)


def test_texts_are_made_only_for_what_is_kept() -> None:
    made: list[int] = []

    def text_of(step: int) -> str:
        made.append(step)
        return f"text {step}"

    recorder = Recorder(max_messages=2, max_others=2)
    for step in range(8):
        recorder.sent(step, "accept", "a", "b", lambda step=step: text_of(step))  # type: ignore[misc]  # a default binds it
    assert made == []
    assert [message.text for message in recorder.recording().messages] == ["text 6", "text 7"]
    assert made == [6, 7]


def test_spans_and_cuts_end_where_they_are_ended() -> None:
    recorder = Recorder(members=["b"])
    recorder.span_begins(1.0, "a", "master", "1:a")
    recorder.span_begins(2.0, "a", "master", "2:a")
    recorder.span_ends(2.5, "a", "down")
    recorder.cut(1.0, "a", "b")
    recorder.cut(2.0, "a", "b")
    recorder.healed(3.0, "a", "b")
    recorder.healed(4.0, "b", "a")
    recording = recorder.recording(9.0)
    assert recording.spans == [
        Span(member="a", kind="master", begins=1.0, ends=2.0, text="1:a"),
        Span(member="a", kind="master", begins=2.0, ends=None, text="2:a"),
    ]
    assert [(cut.begins, cut.ends) for cut in recording.cuts] == [(1.0, 3.0)]
    assert recording.members == ["b", "a"]
    assert (recording.begins, recording.ends) == (1.0, 9.0)


def test_the_first_finding_stays() -> None:
    recorder = Recorder()
    recorder.violated(1.0, "I-4", "safety", "lost", ["a"])
    recorder.violated(2.0, "I-1", "safety", "so they differ", ["a"])
    assert recorder.recording().violation == Finding(
        rule="I-4", kind="safety", text="lost", at=1.0, members=["a"]
    )


def test_calls_are_open_until_they_return() -> None:
    recorder = Recorder()
    first = recorder.invoked(1.0, "c1", "a", "put x=1")
    second = recorder.invoked(2.0, "c2", "a", "get x")
    recorder.returned(second, 3.0, "ok", "0")
    recorder.is_wrong(second)
    recording = recorder.recording()
    assert [
        (shown.number, shown.returned, shown.outcome, shown.result, shown.wrong)
        for shown in recording.operations
    ] == [(first, None, "waits", "", False), (second, 3.0, "ok", "0", True)]
    assert recording.clients == ["c1", "c2"]


@pytest.mark.parametrize("limits", [{"max_messages": 0}, {"max_others": 0}])
def test_a_recorder_keeps_something(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Recorder(**limits)  # type: ignore[arg-type]  # the names are in the dict


# -- explanations


def test_every_invariant_of_the_protocol_is_explained() -> None:
    named = re.findall(r"^\| I-(\d+) \|", PROTOCOL.read_text("utf-8"), re.MULTILINE)
    assert len(named) >= 22
    assert sorted(INVARIANTS) == [int(number) for number in named]


def test_rules_without_an_explanation_get_one_of_their_section() -> None:
    assert "electing a master" in explain("E5").promise
    assert "E5" in explain("E5").place
    assert "“I-99” is checked" in explain("I-99").promise
    assert explanation("I-4").count("\n\n") == 2
    assert "not applied" in explanation("X4")
    for rule in ("D1", "D4", "I-16", "X1", "W3", "crash", "liveness", ""):
        assert all(explain(rule)), rule


# -- in a browser


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(chromium() is None, reason="there is no chromium")
@pytest.mark.parametrize("name", ["lost_write", "hostile", "nothing", "long"])
def test_the_script_draws_in_a_browser(name: str, tmp_path: Path) -> None:
    recording = long_run(20_000) if name == "long" else RECORDINGS[name]()
    path = tmp_path / "report.html"
    path.write_text(render(recording), "utf-8")
    page = Page(in_browser(path, tmp_path))
    body = next(attributes for tag, attributes in page.elements if tag == "body")
    assert "data-error" not in body
    assert "hidden" in next(found for _, found in page.elements if found.get("id") == "error")
    assert int(body["data-messages"] or "") == len(recording.messages)
    drawn = int(body["data-drawn"] or "")
    assert (drawn > 0) == bool(recording.messages)
    if name == "long":
        assert drawn < 100, "the page begins at the violation"
    assert page.texts["verdict"] == verdict(recording.violation, recording.axis)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in {tag for tag, _ in page.elements}


def in_browser(path: Path, directory: Path) -> str:
    """The document as it is after its script has run."""
    command = [
        str(chromium()),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={directory / 'profile'}",
        "--dump-dom",
        path.as_uri(),
    ]
    # In a session of its own, so that what it starts ends with it.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as browser:
        try:
            text, _ = browser.communicate(timeout=50)
        finally:
            if browser.poll() is None:
                os.killpg(browser.pid, signal.SIGKILL)
    return text.decode()
