"""Made-up recordings for the tests of the page: no cluster was run for them."""

from __future__ import annotations

import random

from clusterconsensus.simulation.telling.recording import Recorder, Recording

HOSTILE = (
    "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & \"' \u2028 @@DATA@@ ü"
)


class Play:
    """A recorder, and a network of which every message takes about 8 ms."""

    def __init__(self, recorder: Recorder, seed: int = 7) -> None:
        self.recorder = recorder
        self.chance = random.Random(seed)
        self.todo: list[tuple[float, int, str]] = []
        self.cut: set[tuple[str, str]] = set()
        self.down: set[str] = set()

    def send(self, at: float, kind: str, source: str, target: str, text: str = "") -> float:
        """Send it now, and say when it arrives."""
        self.settle(at)
        number = self.recorder.sent(at, kind, source, target, text)
        arrives = at + 0.005 + self.chance.random() * 0.006
        if (source, target) in self.cut:
            self.recorder.arrived(number, at, "cut")
        elif target in self.down or self.chance.random() < 0.02:
            self.recorder.arrived(number, at, "lost")
        else:
            self.todo.append((arrives, number, "delivered"))
        return arrives

    def settle(self, at: float) -> None:
        for arrives, number, _ in sorted(self.todo):
            if arrives <= at:
                self.recorder.arrived(number, arrives)
        self.todo = [item for item in self.todo if item[0] > at]


def lost_write() -> Recording:
    """Three members; the master crashes and its successor lacks an acknowledged write."""
    recorder = Recorder(
        title="seed 4711: three members, bank of five accounts",
        command="python -m clusterconsensus.simulation --seed 4711 --mutant no-adoption",
        seed=4711,
        faults=["crash", "message loss", "one-way cuts", "slow disk"],
        members=["m1", "m2", "m3"],
    )
    play = Play(recorder)
    for member in ("m1", "m2", "m3"):
        recorder.mark(0.0, member, "start", "0 entries, promised 0:")
    elect(play, 1.1, "m2", "2:m2", ["m1", "m3"])
    recorder.span_begins(1.142, "m2", "master", "2:m2")
    seq = 2
    beat = 1.2
    for at in (1.3, 1.41, 1.46, 1.53, 1.66, 1.74, 1.81, 1.9, 1.98):
        while beat < at:
            heartbeat(play, beat, "m2", "2:m2", ["m1", "m3"], seq)
            beat += 0.1
        seq += 1
        write(
            play,
            at,
            "c1" if seq % 2 else "c2",
            "m2",
            "2:m2",
            ["m1", "m3"],
            seq,
            f"put x{seq}={seq}",
        )
    recorder.did(2.02, "cut m1 from m2 and m3")
    for pair in (("m1", "m2"), ("m2", "m1"), ("m1", "m3"), ("m3", "m1")):
        recorder.cut(2.02, *pair)
        play.cut.add(pair)
    seq += 1
    write(play, 2.05, "c1", "m2", "2:m2", ["m1", "m3"], seq, "transfer 30 from A to B", wrong=True)
    heartbeat(play, 2.1, "m2", "2:m2", ["m1", "m3"], seq)
    recorder.did(2.13, "crash m2 after its 14th sync; unsynced writes are lost")
    recorder.mark(2.13, "m2", "crash", "3 unsynced writes lost")
    recorder.span_ends(2.13, "m2", "master")
    recorder.span_begins(2.13, "m2", "down", "for 0.6 s")
    play.down.add("m2")
    recorder.span_begins(2.15, "m3", "slow_disk", "20 ms per sync")
    recorder.did(2.2, "heal all cuts")
    for pair in (("m1", "m2"), ("m2", "m1"), ("m1", "m3"), ("m3", "m1")):
        recorder.healed(2.2, *pair)
    play.cut.clear()
    waiting = recorder.invoked(2.21, "c2", "m3", "put y=1")
    recorder.span_begins(2.3, "m1", "candidate", "3:m1")
    elect(play, 2.3, "m1", "3:m1", ["m2", "m3"])
    recorder.span_ends(2.345, "m1", "candidate")
    recorder.span_begins(2.345, "m1", "master", "3:m1")
    number = recorder.sent(
        2.35, "accept", "m1", "m3", "Accept 3:m1 round 1 behind 11@2:m2 [12@3:m1 noop] commit 11"
    )
    recorder.arrived(number, 2.358)
    recorder.mark(2.36, "m3", "cut_log", "cuts 12@2:m2 transfer 30 from A to B")
    recorder.is_wrong(waiting)
    recorder.sent(2.361, "accepted", "m3", "m1", "Accepted 3:m1 round 1 match 12 applied 11")
    recorder.violated(
        2.36,
        "I-4",
        "safety",
        "m1 leads in 3:m1 without 12@2:m2, which m2 and m3 had committed; "
        "c1 was told that “transfer 30 from A to B” is done",
        ["m1", "m3"],
    )
    for line in range(200):
        recorder.say(f"{line / 80:9.4f}  m{line % 3 + 1}  turn {line}")
    return recorder.recording(2.365)


def elect(play: Play, at: float, who: str, ballot: str, others: list[str]) -> None:
    recorder = play.recorder
    recorder.mark(at, who, "candidate", ballot)
    for ask, reply, after in (("probe", "probereply", 0.0), ("prepare", "promise", 0.022)):
        begin = at + after
        arrivals = [
            (play.send(begin, ask, who, other, f"{ask.title()} {ballot}"), other)
            for other in others
        ]
        for arrives, other in sorted(arrivals):
            if other in play.down:
                continue
            if reply == "promise":
                recorder.mark(arrives, other, "promise", ballot)
            play.send(arrives + 0.001, reply, other, who, f"{reply.title()} {ballot} yes")
    recorder.mark(at + 0.045, who, "master", ballot)


def heartbeat(play: Play, at: float, who: str, ballot: str, others: list[str], seq: int) -> None:
    arrivals = [
        (play.send(at, "heartbeat", who, other, f"Accept {ballot} [] commit {seq}"), other)
        for other in others
    ]
    for arrives, other in sorted(arrivals):
        if (who, other) not in play.cut and other not in play.down:
            play.send(arrives, "heartbeat_reply", other, who, f"Accepted {ballot} match {seq}")


def write(
    play: Play,
    at: float,
    client: str,
    who: str,
    ballot: str,
    others: list[str],
    seq: int,
    call: str,
    wrong: bool = False,
) -> None:
    recorder = play.recorder
    number = recorder.invoked(at, client, who, call)
    recorder.mark(at + 0.001, who, "persist", f"{seq}")
    before = seq - 1
    text = (
        f"Accept {ballot} round {seq} behind {before}@{ballot} "
        f"[{seq}@{ballot} {call}] commit {before}"
    )
    arrivals = [(play.send(at + 0.001, "accept", who, other, text), other) for other in others]
    recorder.mark(at + 0.006, who, "durable", f"{seq}")
    done = at + 0.03
    for arrives, other in sorted(arrivals):
        if (who, other) in play.cut:
            continue
        recorder.mark(arrives + 0.003, other, "durable", f"{seq}")
        done = play.send(
            arrives + 0.003, "accepted", other, who, f"Accepted {ballot} round {seq} match {seq}"
        )
        recorder.mark(arrives + 0.02, other, "commit", f"{seq}@{ballot}")
    recorder.mark(done, who, "commit", f"{seq}@{ballot} {call}")
    recorder.mark(done, who, "apply", f"{seq} {call}")
    recorder.returned(number, done + 0.001, "ok", "done")
    if wrong:
        recorder.is_wrong(number)


def long_run(messages: int = 50_000, members: int = 5) -> Recording:
    """Many messages between five members, with faults all along and no progress at the end."""
    names = [f"node-{place}" for place in range(1, members + 1)]
    recorder = Recorder(
        title="seed 9: five members, all faults",
        command="python -m clusterconsensus.simulation --seed 9",
        seed=9,
        faults=["crash", "pause", "message loss", "repetition", "reordering", "cuts", "hung disk"],
        members=names,
        max_messages=messages,
    )
    chance = random.Random(9)
    at = 0.0
    master = names[0]
    instance = 1
    seq = 0
    recorder.span_begins(at, master, "master", f"{instance}:{master}")
    fates = ["delivered"] * 20 + ["lost", "cut", "garbled", "stale"]
    kinds = (
        ["heartbeat", "heartbeat_reply"] * 4
        + ["accept", "accepted"] * 6
        + ["submit", "submitreply"]
    )
    for place in range(messages + messages // 10):
        at += chance.random() * 0.004
        source, target = chance.sample(names, 2)
        number = recorder.sent(at, chance.choice(kinds), source, target, f"number {place}")
        fate = chance.choice(fates)
        recorder.arrived(number, at + 0.002 + chance.random() * 0.02, fate)  # type: ignore[arg-type]  # one of the fates above
        if place % 20 == 0:
            seq += 1
            for name in names:
                recorder.mark(at, name, "commit", str(seq))
            call = recorder.invoked(at, f"client-{place // 20 % 6 + 1}", source, f"put {seq}")
            recorder.returned(
                call, at + 0.02 + 0.1 * chance.random(), chance.choice(["ok", "ok", "unknown"])
            )
        if place % 2500 == 2499:
            recorder.span_ends(at, master, "master")
            recorder.mark(at, master, "crash")
            recorder.did(at, f"crash {master}")
            recorder.span_begins(at, master, "down")
            down, master = master, chance.choice([name for name in names if name != master])
            instance += 1
            recorder.mark(at + 0.05, master, "master", f"{instance}:{master}")
            recorder.span_begins(at + 0.05, master, "master", f"{instance}:{master}")
            recorder.span_ends(at + 0.8, down, "down")
            recorder.mark(at + 0.8, down, "start")
    recorder.violated(at, "I-22", "liveness", "no submit succeeded within 5 E after healing", names)
    return recorder.recording(at)
