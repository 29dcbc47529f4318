// Everything beside the diagram: the head of the page, the panel, the lists and the tables.

function $(id) {
  return document.getElementById(id);
}

function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function pairs(list, items) {
  list.replaceChildren();
  for (const [name, text] of items) if (text !== "" && text != null) list.append(make("dt", name), make("dd", String(text)));
}

function showHead() {
  $("title").textContent = run.title;
  $("badge").textContent = violation ? { safety: "Safety", liveness: "Liveness", crash: "Crash" }[violation.kind] : "OK";
  $("badge").className = violation ? "badge bad" : "badge good";
  $("verdict").textContent = data.verdict;
  $("finding").textContent = violation ? violation.text : "All checks held to the end of the run.";
  const explained = $("explained");
  if (data.explanation) {
    const said = [
      ["The promise", data.explanation.promise],
      ["What breaking it means", data.explanation.meaning],
      ["Where to look", data.explanation.place],
    ];
    if (data.sort) explained.append(make("p", `In short: ${data.sort}.`, "short"));
    for (const [name, text] of said) explained.append(make("h2", name), make("p", text));
  } else {
    explained.classList.add("fine");
    explained.append(make("p", "Nothing went wrong in this run; the diagram shows its end."));
  }
  $("command").textContent = run.command;
  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(run.command);
      $("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("command"));
      $("copy").textContent = "Press Ctrl+C";
    }
  });
  pairs($("facts"), [
    ["seed", run.seed],
    ["members", run.members.join(", ")],
    ["time", `${when(run.begins)} to ${when(run.ends)}${inSteps ? "" : " (virtual)"}`],
    ["recorded", `${messages.length.toLocaleString("en")} messages, ${calls.length.toLocaleString("en")} calls of clients`],
  ]);
  for (const fault of run.faults) $("faults").append(make("li", fault));
  $("faults-title").hidden = !run.faults.length;
  const dropped = Object.entries(run.dropped ?? {});
  if (dropped.length) {
    $("dropped").hidden = false;
    $("dropped").textContent = `Earlier ${dropped.map(([name, count]) => `${name} (${count.toLocaleString("en")})`).join(", ")} were dropped from the recording; it is complete from ${when(run.complete_from)} on.`;
  }
  if (violation?.kind === "crash") {
    $("goto").textContent = "Crash";
    $("events-title").textContent = "Events around the crash";
  }
  if (!violation) {
    $("goto").textContent = "End of the run";
    $("goto").title = "Show the end of the run (V)";
    $("events-title").textContent = "Events";
  }
}

function toggle(id, text, colour, on, count, help, change) {
  const label = make("label", "", "chip");
  label.title = help;
  const box = make("input");
  box.type = "checkbox";
  box.id = id;
  box.checked = on;
  box.addEventListener("change", () => {
    change(box.checked);
    showList();
    redraw();
  });
  label.append(box);
  if (colour) {
    const swatch = make("i");
    swatch.style.background = `var(--${colour})`;
    label.append(swatch);
  }
  label.append(make("span", text));
  if (count !== null) label.append(make("small", count.toLocaleString("en")));
  return label;
}

function showFilters() {
  const set = (which, name) => (on) => (on ? which.add(name) : which.delete(name));
  for (const name of GROUP_NAMES) {
    if (counts[name]) $("kinds").append(toggle(`group-${name}`, GROUPS[name].name, name, shown.groups.has(name), counts[name], GROUPS[name].help, set(shown.groups, name)));
  }
  run.members.forEach((member, place) => {
    $("members").append(toggle(`member-${place}`, member, null, true, null, `messages from and to ${member}`, set(shown.members, member)));
  });
}

const LEGEND = [
  ["master", "becomes master"], ["lost_master", "no longer master"], ["candidate", "stands for election"], ["promise", "promises (votes)"],
  ["commit", "committed, with its number"], ["apply", "applied"], ["persist", "writes"], ["durable", "on disk"], ["adopt", "adopts a log"],
  ["cut_log", "cuts its log"], ["config", "new members"], ["start", "starts"], ["crash", "crashes"], ["halt", "stops for good"], ["pause", "paused"],
  ["resume", "goes on"], ["disk", "disk trouble"], ["fault", "fault"], ["violation", "violation"], ["note", "note"],
];

function showLegend() {
  const legend = $("legend");
  legend.replaceChildren(make("p", "Each horizontal line is one member, one computer. Time runs to the right. An arrow is a message: the flatter it is, the longer it was under way. The thick band on a line is the time as master, with its ballot, the number of its term."));
  const list = make("ul");
  const entry = (draw, text) => {
    const item = make("li");
    const small = make("canvas");
    item.append(small, make("span", text));
    list.append(item);
    draw(sheet(small, 26, 22));
  };
  const arrow = (dash, cross, head) => (c) => {
    c.setLineDash(dash);
    stroke(c, colours.replication, 1.5, cross ? [2, 4, 14, 11] : [2, 4, 23, 18]);
    c.setLineDash([]);
    if (cross) stroke(c, colours.bad, 2, [10, 7, 18, 15], [10, 15, 18, 7]);
    if (head) polygon(c, 20, 16, 5, 3, 0.6, colours.replication, colours.replication);
  };
  entry(arrow([], false, true), "message");
  entry(arrow([], true), "lost");
  entry(arrow([5, 4], true), "lost: link cut");
  entry(arrow([2, 3], false, false), "thrown away");
  const used = new Set(marks.map((mark) => mark.kind));
  for (const [kind, text] of LEGEND) if (used.has(kind)) entry((c) => glyph(c, kind, 13, 11), text);
  entry((c) => { c.globalAlpha = 0.35; c.fillStyle = colours.down; c.fillRect(2, 4, 22, 14); c.globalAlpha = 0.8; hatch(c, 2, 4, 22, 14, colours.muted); }, "down");
  if (calls.length) {
    for (const [colour, text] of [["good", "call that succeeded"], ["warn", "outcome unknown"], ["muted", "refused, or no answer"], ["bad", "call that shows the violation"]]) {
      entry((c) => { c.globalAlpha = colour === "bad" ? 0.9 : 0.3; c.fillStyle = colours[colour]; c.fillRect(2, 5, 22, 12); c.globalAlpha = 1; stroke(c, colours[colour], 2, [3, 5, 3, 17], [23, 5, 23, 17]); }, text);
    }
  }
  legend.append(list);
}

function showPanel(item) {
  const panel = $("panel");
  panel.replaceChildren();
  if (!item) {
    panel.append(make("h3", "Nothing selected"), make("p", "Point at an arrow, a sign or a bar to see what it is. Click it to keep it here.", "hint"));
    return;
  }
  const sort = { message: "Message", mark: "Event", span: "State", deed: "Fault", cut: "Cut", call: "Call of a client", answer: "Call of a client", finding: violation?.kind === "crash" ? "The crash" : "The violation" }[item.type];
  const list = make("dl");
  pairs(list, details(item));
  panel.append(make("h3", sort), list);
  if (item.type === "span" || item.type === "cut") return;
  const near = events.slice(Math.max(0, item.place - 60), item.place + 60)
    .filter((event) => event !== item && (event.type !== "message" || isShown(event)) && touches(event, item));
  const before = near.filter((event) => event.place < item.place).slice(-4);
  const after = near.filter((event) => event.place > item.place).slice(0, 4);
  for (const [name, some] of [["Just before, at the same members", before], ["Just after", after]]) {
    if (!some.length) continue;
    panel.append(make("h4", name));
    const rows = make("ul", "", "near");
    for (const event of some) rows.append(row(event));
    panel.append(rows);
  }
}

function membersOf(event) {
  switch (event.type) {
    case "message": return [event.source, event.target];
    case "mark": return [event.member];
    case "call": return [event.member];
    case "answer": return [event.call.member];
    case "finding": return event.members?.length ? event.members : run.members;
    default: return run.members;
  }
}

function touches(event, item) {
  const theirs = membersOf(item);
  return membersOf(event).some((member) => theirs.includes(member));
}

/** An entry of a list that shows its event in the diagram. */
function row(event) {
  const item = make("li");
  const button = make("button", "", `event ${event.type}`);
  button.type = "button";
  const group = make("i");
  const colour = { message: event.group, deed: "warn", call: "client", answer: "client", finding: "bad" }[event.type]
    ?? { crash: "bad", halt: "bad", violation: "bad", cut_log: "bad", master: "accent", candidate: "election", promise: "election", commit: "good", apply: "good", start: "good" }[event.kind] ?? "muted";
  group.style.background = `var(--${colour})`;
  button.append(make("time", when(event.at)), group, make("span", headline(event)));
  if ((event.type === "answer" ? event.call : event).wrong) button.classList.add("wrong");
  button.addEventListener("click", () => {
    choose(event);
    centre(event.at);
  });
  item.append(button);
  return item;
}

const PAGE = 150;
const listed = { found: [], from: 0, to: 0 };

function showList() {
  const key = document.querySelector("input[name=which]:checked").value === "key";
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  listed.found = events.filter((event) => {
    if (event.type === "message" && !isShown(event)) return false;
    if (event.type === "mark" && !shown.members.has(event.member)) return false;
    if (key && !words.length && !isKey(event)) return false;
    if (!words.length) return true;
    const text = `${headline(event)} ${event.kind ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const middle = finding ? listed.found.findIndex((event) => event.place >= finding.place) : -1;
  const end = middle < 0 ? listed.found.length : middle;
  listed.from = Math.max(0, end - PAGE + 30);
  listed.to = Math.min(listed.found.length, end + 30);
  showRows();
}

function showRows() {
  $("list").replaceChildren(...listed.found.slice(listed.from, listed.to).map(row));
  $("list-earlier").hidden = listed.from === 0;
  $("list-later").hidden = listed.to === listed.found.length;
  $("count").textContent = `${(listed.to - listed.from).toLocaleString("en")} of ${listed.found.length.toLocaleString("en")}`;
}

function showCalls() {
  const wrong = calls.filter((call) => call.wrong);
  const some = $("only-wrong").checked ? wrong : calls;
  const near = placeOf(some, focus);
  const from = some.length <= 400 ? 0 : Math.max(0, Math.min(near - 300, some.length - 400));
  const part = some.slice(from, from + 400);
  // Calls that show the violation are never left out, however long ago they were.
  const rows = from ? [...wrong.filter((call) => call.place < (part[0]?.place ?? 0)), ...part] : part;
  $("rows").replaceChildren(...rows.map((call) => {
    const line = make("tr", "", outcomeClass(call));
    line.append(make("td", when(call.invoked)), make("td", call.returned != null ? when(call.returned) : "–"), make("td", call.client), make("td", call.member), make("td", call.call, "code"));
    const last = make("td");
    const pill = make("button", call.outcome, "outcome");
    pill.type = "button";
    pill.title = "show in the diagram";
    pill.addEventListener("click", () => {
      choose(call);
      centre(call.at);
      canvas.scrollIntoView({ block: "nearest" });
    });
    last.append(pill, make("span", call.result, "code"));
    line.append(last);
    return line;
  }));
  $("rows-more").textContent = rows.length < some.length ? `${rows.length} of ${some.length.toLocaleString("en")} calls: those around the violation, and those that show it.` : "";
  document.querySelector(".only").hidden = !wrong.length;
  $("calls").hidden = !calls.length;
}

function showRest() {
  $("deeds").hidden = !deeds.length;
  const near = placeOf(deeds, focus);
  const some = deeds.slice(Math.max(0, near - 400), near + 100);
  $("deed-list").append(...some.map(row));
  $("deeds-more").textContent = some.length < deeds.length ? `The last ${some.length} of ${deeds.length.toLocaleString("en")}.` : "";
  $("log").hidden = !run.log.length;
  $("log").addEventListener("toggle", () => { $("lines").textContent = run.log.join("\n"); }, { once: true });
  $("find").addEventListener("input", showList);
  for (const radio of document.querySelectorAll("input[name=which]")) radio.addEventListener("change", showList);
  $("list-earlier").addEventListener("click", () => {
    listed.from = Math.max(0, listed.from - PAGE);
    showRows();
  });
  $("list-later").addEventListener("click", () => {
    listed.to = Math.min(listed.found.length, listed.to + PAGE);
    showRows();
  });
  $("only-wrong").addEventListener("change", showCalls);
}
