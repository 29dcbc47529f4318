// The recording, made ready: kinds in groups, ends of arrows, one list of everything in order.
// Texts in it are foreign: they are drawn on a canvas or set by textContent, and nothing else.

const data = JSON.parse(document.getElementById("data").textContent);
const run = data.recording;
const inSteps = run.axis === "steps";
const violation = run.violation;

const GROUPS = {
  election: {
    name: "Election",
    kinds: ["probe", "probereply", "prepare", "promise", "promisepull", "promisepart"],
    help: "asking to become master, and the votes",
  },
  replication: {
    name: "Replication",
    kinds: ["accept", "accepted", "reject"],
    help: "the master sends log entries, members acknowledge them",
  },
  heartbeat: {
    name: "Heartbeats",
    kinds: ["heartbeat", "heartbeatreply"],
    help: "the master says that it is alive, and the answers",
  },
  client: {
    name: "Clients",
    kinds: ["submit", "submitreply", "opensession", "sessionopened", "readask", "readtell"],
    help: "calls that a member passes on to the master, and the answers",
  },
  other: { name: "Other", kinds: [], help: "membership, handing over, snapshots, recovery, identity, quarantine" },
};
const GROUP_NAMES = Object.keys(GROUPS);
const groupOf = new Map(
  GROUP_NAMES.flatMap((name) => GROUPS[name].kinds.map((kind) => [kind, name])),
);

const MARKS = {
  start: "starts",
  crash: "crashes",
  pause: "is paused",
  resume: "goes on",
  promise: "promises a ballot",
  candidate: "stands for election",
  master: "becomes master",
  lost_master: "is no longer master",
  persist: "begins to write to its disk",
  durable: "has it on disk",
  commit: "knows as committed",
  apply: "applies",
  cut_log: "cuts off the end of its log",
  adopt: "adopts a better log",
  config: "has a new configuration",
  disk: "has trouble with its disk",
  halt: "stops for good",
  fault: "suffers a fault",
  violation: "violates a rule",
  note: "",
};
const KEY_MARKS = new Set([
  "start", "crash", "pause", "resume", "candidate", "master", "lost_master", "cut_log", "adopt",
  "config", "disk", "halt", "fault", "violation", "note",
]);
const SPANS = {
  down: "down",
  paused: "paused",
  frozen: "frozen: its clock stands too",
  master: "master",
  candidate: "candidate",
  slow_disk: "slow disk",
  hung_disk: "hung disk",
};
const FATES = {
  delivered: "arrived",
  lost: "lost on the way",
  cut: "lost: the link was cut",
  garbled: "arrived damaged, and was thrown away",
  stale: "arrived for an earlier run of its target, and was thrown away",
  "under way": "still under way when the recording ended",
};

function when(at) {
  return inSteps ? `step ${+at.toFixed(2)}` : `${at.toFixed(3)} s`;
}

function howLong(time) {
  if (inSteps) return `${+time.toFixed(2)} steps`;
  return time < 1 ? `${+(time * 1000).toFixed(2)} ms` : `${+time.toFixed(3)} s`;
}

function median(numbers, otherwise) {
  if (!numbers.length) return otherwise;
  return numbers.sort((a, b) => a - b)[numbers.length >> 1];
}

// Bounds of the time that can be looked at: a little more than the run.
const length = Math.max(run.ends - run.begins, inSteps ? 4 : 0.001);
const bounds = { from: run.begins - length * 0.02, to: run.ends + length * 0.04 };

const lineOf = new Map(run.members.map((member, place) => [member, place]));
const colourOf = new Map();
function colourOfBallot(text) {
  if (!colourOf.has(text)) colourOf.set(text, colourOf.size % 6);
  return colourOf.get(text);
}

const messages = run.messages
  .map((message) => ({ fate: "delivered", text: "", ...message, type: "message", at: message.sent_at }))
  .filter((message) => lineOf.has(message.source) && lineOf.has(message.target))
  .sort((a, b) => a.sent_at - b.sent_at);
const typical = median(
  messages
    .filter((message) => message.fate === "delivered" && message.arrived_at != null)
    .slice(-2000)
    .map((message) => message.arrived_at - message.sent_at),
  length / 50,
) || length / 50;

{
  // A recorder that calls heartbeats plain accepts: those without entries, and the answers.
  const rounds = new Set();
  for (const message of messages) {
    const kind = message.kind.toLowerCase().replace(/[^a-z]/g, "");
    message.group = groupOf.get(kind) ?? "other";
    if (kind === "accept") {
      const found = /^Accept (\S+) round (\d+) .*\[\]/.exec(message.text);
      if (found) {
        message.group = "heartbeat";
        rounds.add(`${found[1]} ${found[2]} ${message.target}`);
      }
    } else if (kind === "accepted") {
      const found = /^Accepted (\S+) round (\d+) /.exec(message.text);
      if (found && rounds.has(`${found[1]} ${found[2]} ${message.source}`)) message.group = "heartbeat";
    }
    message.from = lineOf.get(message.source);
    message.to = lineOf.get(message.target);
    message.part = 1;
    if (message.fate === "lost" || message.fate === "cut") {
      message.part = 0.5;
      message.end = message.sent_at + typical / 2;
    } else if (message.arrived_at != null) {
      message.end = message.arrived_at;
    } else {
      message.part = Math.min(0.8, Math.max(0.15, (run.ends - message.sent_at) / typical));
      message.end = message.sent_at + typical * message.part;
    }
    if (message.from === message.to) message.part = 0;
  }
}
// latestEnd[i]: when the last of the messages 0 … i arrives; it never goes down, so the first
// message that can reach into a view is found by halving.
const latestEnd = new Float64Array(messages.length);
messages.forEach((message, place) => {
  latestEnd[place] = Math.max(place ? latestEnd[place - 1] : -Infinity, message.end, message.sent_at);
});

const byTime = (a, b) => a.at - b.at;
const marks = run.marks
  .map((mark) => ({ text: "", ...mark, type: "mark" }))
  .filter((mark) => lineOf.has(mark.member))
  .sort(byTime);
const spans = run.spans
  .map((span) => ({ text: "", ...span, type: "span", at: span.begins, ends: span.ends ?? bounds.to, open: span.ends == null }))
  .filter((span) => lineOf.has(span.member));
for (const span of spans) if (span.kind === "master") colourOfBallot(span.text);
const deeds = run.world.map((deed) => ({ ...deed, type: "deed" })).sort(byTime);
const calls = run.operations
  .map((call) => ({ returned: null, outcome: "waits", result: "", wrong: false, ...call, type: "call", at: call.invoked, end: call.returned ?? bounds.to }))
  .sort(byTime);

// Cuts that begin and end together are one bar.
const cuts = [];
{
  const together = new Map();
  for (const cut of run.cuts) {
    const key = `${cut.begins} ${cut.ends ?? ""}`;
    if (!together.has(key)) {
      const bar = { type: "cut", at: cut.begins, ends: cut.ends ?? bounds.to, open: cut.ends == null, links: [] };
      together.set(key, bar);
      cuts.push(bar);
    }
    together.get(key).links.push(cut);
  }
  for (const bar of cuts) {
    const links = new Set(bar.links.map((cut) => `${cut.source} ${cut.target}`));
    bar.text = bar.links
      .filter((cut) => !links.has(`${cut.target} ${cut.source}`) || cut.source < cut.target)
      .map((cut) => `${cut.source} ${links.has(`${cut.target} ${cut.source}`) ? "⇹" : "↛"} ${cut.target}`)
      .join(", ");
  }
  cuts.sort(byTime);
}

const finding = violation ? { ...violation, type: "finding" } : null;

// Everything, for the list and for stepping through it.
const events = [
  ...messages,
  ...marks,
  ...deeds,
  ...calls,
  ...calls.filter((call) => call.returned != null).map((call) => ({ type: "answer", at: call.returned, call })),
  ...(finding ? [finding] : []),
];
events.forEach((event, place) => { event.place = place; });
events.sort((a, b) => a.at - b.at || a.place - b.place);
events.forEach((event, place) => { event.place = place; });

/** The first place in a sorted array of which `key` is at least `value`. */
function placeOf(array, value, key = (item) => item.at) {
  let low = 0;
  let high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(array[middle]) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function placeOfEnd(value) {
  let low = 0;
  let high = messages.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (latestEnd[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

// What the user chose to see.
const shown = {
  groups: new Set(GROUP_NAMES),
  members: new Set(run.members),
};
const counts = Object.fromEntries(GROUP_NAMES.map((name) => [name, 0]));
for (const message of messages) counts[message.group] += 1;
if (counts.heartbeat > 60 || counts.heartbeat > messages.length * 0.4) shown.groups.delete("heartbeat");

function isShown(message) {
  return shown.groups.has(message.group) && shown.members.has(message.source) && shown.members.has(message.target);
}

function isKey(event) {
  if (event.type === "mark") return KEY_MARKS.has(event.kind);
  if (event.type === "call") return event.wrong;
  if (event.type === "answer") return event.call.wrong;
  return event.type !== "message";
}

/** What an event is, in one line. */
function headline(item) {
  switch (item.type) {
    case "message":
      return `${item.source} → ${item.target}: ${item.text || item.kind}${item.repeated ? " (a copy)" : ""}${item.fate === "delivered" ? "" : ` – ${item.fate}`}`;
    case "mark":
      return `${item.member} ${[MARKS[item.kind] ?? item.kind, item.text].filter(Boolean).join(item.kind === "note" ? "" : ": ")}`;
    case "span":
      return `${item.member}: ${SPANS[item.kind] ?? item.kind} ${item.text}`;
    case "deed":
      return item.text;
    case "cut":
      return `cut: ${item.text}`;
    case "call":
      return `${item.client} calls ${item.member}: ${item.call}`;
    case "answer":
      return `${item.call.client} has the answer to ${item.call.call}: ${[item.call.outcome, item.call.result].filter(Boolean).join(", ")}`;
    default:
      return `${item.rule} violated: ${item.text}`;
  }
}

/** Pairs of a name and a text. */
function details(item) {
  switch (item.type) {
    case "message":
      return [
        ["message", `${item.kind}${item.repeated ? " (a copy made by the network)" : ""}`],
        ["from", `${item.source}, sent at ${when(item.sent_at)}`],
        ["to", `${item.target}${item.arrived_at != null ? `, arrived at ${when(item.arrived_at)}` : ""}`],
        ...(item.arrived_at != null ? [["took", howLong(item.arrived_at - item.sent_at)]] : []),
        ["fate", FATES[item.fate] ?? item.fate],
        ["says", item.text],
      ];
    case "mark":
      return [["member", item.member], ["at", when(item.at)], ["what", MARKS[item.kind] || item.kind], ["text", item.text]];
    case "span":
    case "cut":
      return [
        ...(item.type === "span" ? [["member", item.member], ["state", SPANS[item.kind] ?? item.kind], ["text", item.text]] : [["cut links", item.text]]),
        ["from", when(item.at)],
        ["to", item.open ? "the end of the run" : when(item.ends)],
        ["for", howLong((item.open ? run.ends : item.ends) - item.at)],
      ];
    case "deed":
      return [["at", when(item.at)], ["done", item.text]];
    case "call":
      return [
        ["client", item.client],
        ["at member", item.member],
        ["call", item.call],
        ["called at", when(item.invoked)],
        ["answered", item.returned != null ? `${when(item.returned)}, after ${howLong(item.returned - item.invoked)}` : "never"],
        ["outcome", item.outcome],
        ["result", item.result],
        ...(item.wrong ? [["note", "this call shows the violation"]] : []),
      ];
    case "answer":
      return details(item.call);
    default:
      return [["rule", item.rule], ["at", when(item.at)], ["members", (item.members ?? []).join(", ")], ["text", item.text]];
  }
}

/** Which class of outcome, for a colour. */
function outcomeClass(call) {
  if (call.wrong) return "wrong";
  const outcome = call.outcome.toLowerCase();
  if (call.returned == null || outcome === "waits") return "waits";
  if (outcome === "unknown" || outcome === "maybe" || outcome.includes("time")) return "maybe";
  if (outcome === "ok" || outcome === "applied" || outcome === "done") return "ok";
  return "not";
}
