// Draws what the view shows, and no more than the eye can tell apart.

const DENSE = 2500; // from here on arrows that fall together are drawn once

function paint() {
  const c = sheet(canvas, layout.width, layout.height);
  c.save();
  c.beginPath();
  c.rect(GUTTER, 0, layout.width - GUTTER, layout.height);
  c.clip();
  paintGrid(c);
  paintDeeds(c);
  // Many messages are a background; a few are drawn over the lines.
  const dense = placeOf(messages, view.to) - placeOfEnd(view.from) > DENSE;
  if (!dense) paintLines(c);
  const drawn = paintMessages(c, dense);
  if (dense) paintLines(c);
  paintMarks(c);
  paintCalls(c);
  paintUnknown(c);
  paintSpanLabels(c);
  paintFinding(c);
  paintSelected(c);
  c.restore();
  paintGutter(c);
  paintOverview();
  return drawn;
}

function paintDeeds(c) {
  let free = -Infinity;
  deeds.forEach((deed, place) => {
    if (deed.at < view.from || deed.at > view.to) return;
    const x = Math.round(toX(deed.at)) + 0.5;
    c.strokeStyle = colours.warn;
    c.globalAlpha = 0.55;
    c.setLineDash([2, 4]);
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(x, layout.world + 10);
    c.lineTo(x, layout.calls - 24);
    c.stroke();
    c.setLineDash([]);
    c.globalAlpha = 1;
    bolt(c, x, layout.world + 9, 6);
    const next = deeds[place + 1];
    const room = (next ? toX(next.at) : layout.width + 200) - x - 16;
    if (x > free && room > 40) {
      const text = fitted(c, deed.text, Math.min(room, 260), 11);
      write(c, text, x + 8, layout.world + 9, { colour: colours.warn, size: 11, halo: true });
      free = x + 8 + c.measureText(text).width;
    }
  });
  for (const cut of cuts) {
    if (cut.ends < view.from || cut.at > view.to) continue;
    const [x1, x2] = [Math.max(toX(cut.at), GUTTER - 4), Math.min(toX(cut.ends), layout.width + 4)];
    const y = layout.cuts + cut.row * 16;
    c.globalAlpha = 0.16;
    c.fillStyle = colours.warn;
    c.fillRect(x1, y, Math.max(x2 - x1, 2), 13);
    c.globalAlpha = 1;
    c.fillStyle = colours.warn;
    c.fillRect(x1, y, 2, 13);
    const text = fitted(c, `cut ${cut.text}`, x2 - x1 - 10, 10.5);
    if (text) write(c, text, x1 + 6, y + 7, { size: 10.5, colour: colours.ink });
  }
}

function paintLines(c) {
  run.members.forEach((member, place) => {
    const y = lineY(place);
    c.strokeStyle = colours.line;
    c.lineWidth = 1.5;
    c.beginPath();
    c.moveTo(GUTTER, y);
    c.lineTo(layout.width, y);
    c.stroke();
  });
  const order = ["down", "candidate", "master", "paused", "frozen", "slow_disk", "hung_disk"];
  for (const kind of order) {
    for (const span of spans) {
      if (span.kind !== kind || span.ends < view.from || span.at > view.to) continue;
      const y = lineY(lineOf.get(span.member));
      const x1 = Math.max(toX(span.at), GUTTER - 8);
      const width = Math.max(Math.min(toX(span.ends), layout.width + 8) - x1, 1.5);
      paintSpan(c, span, x1, y, width);
    }
  }
}

let spanLabels = [];

/** What the bands are, over the arrows. */
function paintSpanLabels(c) {
  for (const [text, colour, from, to, y] of spanLabels) {
    const fit = fitted(c, text, to - from - 16, 11.5);
    if (!fit) continue;
    const width = c.measureText(fit).width;
    c.fillStyle = colours.card;
    c.globalAlpha = 0.88;
    c.beginPath();
    c.roundRect(from + 3, y - 9, width + 12, 18, 4);
    c.fill();
    c.globalAlpha = 1;
    c.fillStyle = colour;
    c.fillRect(from + 3, y - 7, 2, 14);
    write(c, fit, from + 9, y + 0.5, { colour, size: 11.5, weight: "600" });
  }
  spanLabels = [];
}

function paintSpan(c, span, x, y, width) {
  const label = (text, colour) => spanLabels.push([text.trim(), colour, Math.max(x, GUTTER), x + width, y - 31]);
  switch (span.kind) {
    case "down":
      c.fillStyle = colours.card;
      c.fillRect(x, y - 8, width, 16);
      c.globalAlpha = 0.35;
      c.fillStyle = colours.down;
      c.fillRect(x, y - 8, width, 16);
      c.globalAlpha = 0.7;
      hatch(c, x, y - 8, width, 16, colours.muted);
      c.globalAlpha = 1;
      label(`down ${span.text}`, colours.muted);
      break;
    case "master": {
      const colour = colours[`b${colourOfBallot(span.text)}`];
      c.globalAlpha = 0.3;
      c.fillStyle = colour;
      c.fillRect(x, y - 8, width, 16);
      c.globalAlpha = 1;
      c.fillStyle = colour;
      c.fillRect(x, y - 1.5, width, 3);
      label(`master ${span.text}`, colour);
      break;
    }
    case "candidate":
      c.globalAlpha = 0.75;
      hatch(c, x, y - 8, width, 16, colours.election, 5);
      c.globalAlpha = 1;
      label(`candidate ${span.text}`, colours.election);
      break;
    case "paused":
    case "frozen":
      c.globalAlpha = 0.3;
      c.fillStyle = colours.warn;
      c.fillRect(x, y - 8, width, 16);
      c.globalAlpha = 1;
      label(`${span.kind} ${span.text}`, colours.warn);
      break;
    default:
      c.fillStyle = span.kind === "hung_disk" ? colours.bad : colours.warn;
      c.fillRect(x, y + 11, width, 4);
      if (width > 70) write(c, SPANS[span.kind], Math.max(x, GUTTER) + 4, y + 22, { size: 10, colour: c.fillStyle, halo: true });
  }
}

function paintMessages(c, dense) {
  const first = placeOfEnd(view.from);
  const last = placeOf(messages, view.to);
  const seen = new Set();
  const batches = new Map();
  const uprights = new Map();
  const labels = [];
  let drawn = 0;
  for (let place = first; place < last; place += 1) {
    const message = messages[place];
    if (message.end < view.from || !isShown(message)) continue;
    const [x1, y1, x2, y2] = ends(message);
    if (dense) {
      const key = ((Math.round(x1 / 2) * 64 + message.from) * 64 + message.to) * 8 + GROUP_NAMES.indexOf(message.group);
      if (seen.has(key)) continue;
      seen.add(key);
      drawn += 1;
      if (x2 - x1 < 2) {
        // An upright line; where many are, it gets darker.
        if (!uprights.has(message.group)) uprights.set(message.group, []);
        uprights.get(message.group).push([x1, Math.min(y1, y2), Math.abs(y2 - y1)]);
        continue;
      }
    } else drawn += 1;
    const dash = message.fate === "cut" ? "cut" : message.fate === "stale" || message.fate === "garbled" ? "odd" : "";
    const key = `${message.group} ${dash}`;
    if (!batches.has(key)) batches.set(key, { group: message.group, dash, lines: new Path2D(), heads: new Path2D(), ends: new Path2D() });
    const batch = batches.get(key);
    batch.lines.moveTo(x1, y1);
    if (message.from === message.to) batch.lines.quadraticCurveTo((x1 + x2) / 2, y1 - 26, x2, y1);
    else batch.lines.lineTo(x2, y2);
    if (!dense) {
      endOf(batch, message, x1, y1, x2, y2);
      labels.push([message, x1, y1, x2, y2]);
    }
  }
  c.globalAlpha = 0.12;
  for (const [group, columns] of uprights) {
    c.fillStyle = colours[group];
    for (const [x, y, height] of columns) c.fillRect(x, y, 1, height);
  }
  const crowded = drawn > 400;
  for (const { group, dash, lines, heads, ends: crosses } of batches.values()) {
    c.strokeStyle = colours[group];
    c.fillStyle = colours[group];
    c.globalAlpha = dense ? 0.25 : crowded ? 0.65 : group === "heartbeat" ? 0.7 : 0.95;
    c.lineWidth = dense || crowded ? 1 : group === "heartbeat" ? 1 : 1.5;
    c.setLineDash(dash === "cut" ? [5, 4] : dash === "odd" ? [2, 3] : []);
    c.stroke(lines);
    c.setLineDash([]);
    c.fill(heads);
    c.globalAlpha = 1;
    c.lineWidth = 2;
    c.strokeStyle = colours.bad;
    c.stroke(crosses);
  }
  if (labels.length <= 90) paintLabels(c, labels);
  return drawn;
}

function endOf(batch, message, x1, y1, x2, y2) {
  const angle = message.from === message.to ? Math.PI / 3 : Math.atan2(y2 - y1, x2 - x1);
  if (message.fate === "lost" || message.fate === "cut" || message.fate === "garbled") {
    const size = 4.5;
    batch.ends.moveTo(x2 - size, y2 - size);
    batch.ends.lineTo(x2 + size, y2 + size);
    batch.ends.moveTo(x2 - size, y2 + size);
    batch.ends.lineTo(x2 + size, y2 - size);
    return;
  }
  if (message.fate === "under way") {
    batch.heads.moveTo(x2 + 2.5, y2);
    batch.heads.arc(x2, y2, 2.5, 0, 7);
    return;
  }
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const path = message.fate === "stale" ? batch.ends : batch.heads;
  path.moveTo(x2, y2);
  path.lineTo(x2 - 9 * cos + 3.6 * sin, y2 - 9 * sin - 3.6 * cos);
  path.lineTo(x2 - 9 * cos - 3.6 * sin, y2 - 9 * sin + 3.6 * cos);
  path.closePath();
}

/** The names of messages along their arrows, where there is room. */
function paintLabels(c, labels) {
  const taken = [];
  c.font = `11px ${FONT}`;
  for (const [message, x1, y1, x2, y2] of labels) {
    const size = Math.hypot(x2 - x1, y2 - y1);
    const text = message.group === "heartbeat" && message.kind.startsWith("accept") ? "heartbeat" : message.kind;
    const width = c.measureText(text).width;
    if (message.from === message.to || size < width + 44) continue;
    for (const along of [0.5, 0.3, 0.7]) {
      const [x, y] = [x1 + (x2 - x1) * along, y1 + (y2 - y1) * along];
      let angle = Math.atan2(y2 - y1, x2 - x1);
      if (Math.abs(angle) > Math.PI / 2) angle += Math.PI;
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      // A label takes the place of some small discs along its line.
      const discs = [-0.4, -0.2, 0, 0.2, 0.4].map((part) => [x + cos * width * part, y + sin * width * part]);
      if (taken.some(([a, b]) => discs.some(([d, e]) => Math.hypot(a - d, b - e) < 13))) continue;
      taken.push(...discs);
      c.save();
      c.translate(x, y);
      c.rotate(angle);
      write(c, text, 0, -7, { size: 11, colour: colours[message.group], align: "center", halo: true });
      c.restore();
      break;
    }
  }
}

const ABOVE = new Set(["commit", "apply"]);
const BELOW = new Set(["persist", "durable"]);

function paintMarks(c) {
  for (const mark of marks) mark.drawn = false;
  const taken = new Map();
  const first = placeOf(marks, view.from - (view.to - view.from) * 0.02);
  const labelled = new Map();
  // Important ones last, on top of the others.
  for (const pass of [0, 1]) {
    for (let place = first; place < marks.length && marks[place].at <= view.to; place += 1) {
      const mark = marks[place];
      const major = KEY_MARKS.has(mark.kind);
      if (major !== (pass === 1) || !shown.members.has(mark.member)) continue;
      const x = toX(mark.at);
      const row = `${mark.member} ${mark.kind}`;
      if (x - (taken.get(row) ?? -Infinity) < (major ? 4 : 5)) continue;
      taken.set(row, x);
      mark.drawn = true;
      mark.dy = ABOVE.has(mark.kind) ? -9 : BELOW.has(mark.kind) ? 12 : 0;
      const y = lineY(lineOf.get(mark.member)) + mark.dy;
      glyph(c, mark.kind, x, y);
      const seq = mark.kind === "commit" ? /^\d+/.exec(mark.text)?.[0] : null;
      if (seq && x - (labelled.get(mark.member) ?? -Infinity) > 16 + 6 * seq.length) {
        write(c, seq, x, y - 11, { size: 10, font: MONO, align: "center", colour: colours.good, halo: true });
        labelled.set(mark.member, x);
      }
    }
  }
}

/** Nothing is known of what comes after the run, and not all of what was forgotten. */
function paintUnknown(c) {
  const parts = [[Math.max(run.ends, latestEnd.at(-1) ?? run.ends), bounds.to, "end of the run"]];
  if (run.complete_from != null) parts.push([bounds.from, run.complete_from, "not all is recorded before here"]);
  for (const [from, to, text] of parts) {
    const [x1, x2] = [Math.max(toX(from), GUTTER), Math.min(toX(to), layout.width)];
    if (x2 <= x1) continue;
    c.globalAlpha = 0.6;
    c.fillStyle = colours.bg;
    c.fillRect(x1, AXIS, x2 - x1, layout.height);
    c.globalAlpha = 1;
    const fit = fitted(c, text, x2 - x1 - 12, 11);
    if (fit) write(c, fit, x1 + 8, layout.calls - 22, { colour: colours.muted, size: 11, halo: true });
  }
}

function paintFinding(c) {
  if (!finding || finding.at < view.from || finding.at > view.to) return;
  const x = Math.round(toX(finding.at));
  const reach = c.createLinearGradient(x - 60, 0, x, 0);
  reach.addColorStop(0, "transparent");
  reach.addColorStop(1, colours.bad);
  c.globalAlpha = 0.13;
  c.fillStyle = reach;
  c.fillRect(x - 60, AXIS, 60, layout.height);
  c.globalAlpha = 1;
  stroke(c, colours.bad, 2, [x, AXIS, x, layout.height]);
  for (const member of finding.members ?? []) {
    if (!lineOf.has(member)) continue;
    c.strokeStyle = colours.bad;
    c.lineWidth = 2.5;
    c.beginPath();
    c.arc(x, lineY(lineOf.get(member)), 13, 0, 7);
    c.stroke();
  }
  const text = data.verdict.startsWith("A member crashed") ? "crash" : `${finding.rule} violated`;
  c.font = `700 12px ${FONT}`;
  const width = c.measureText(text).width + 16;
  const left = Math.max(GUTTER, Math.min(x - width / 2, layout.width - width));
  const y = layout.first - 66;
  c.fillStyle = colours.bad;
  c.beginPath();
  c.roundRect(left, y, width, 20, 5);
  c.fill();
  write(c, text, left + width / 2, y + 10.5, { colour: "#fff", weight: "700", align: "center" });
}

/** What the pointer is on, and what was chosen. */
function paintSelected(c) {
  for (const [item, strong] of [[selection.hovered, false], [selection.pinned, true]]) {
    const at = item?.type === "answer" ? item.call : item;
    if (!at) continue;
    const colour = strong ? colours.accent : colours.ink;
    if (at.type === "message") {
      const [x1, y1, x2, y2] = ends(at);
      for (const [style, size] of [[colours.card, 7], [colour, 3]]) stroke(c, style, size, [x1, y1, x2, y2]);
      c.fillStyle = colour;
      for (const [x, y] of [[x1, y1], [x2, y2]]) {
        c.beginPath();
        c.arc(x, y, 4.5, 0, 7);
        c.fill();
      }
    } else if (at.type === "mark") {
      c.strokeStyle = colour;
      c.lineWidth = 2;
      c.beginPath();
      c.arc(toX(at.at), lineY(lineOf.get(at.member)) + (at.dy ?? 0), 12, 0, 7);
      c.stroke();
    } else if (at.type === "call") {
      c.strokeStyle = colour;
      c.lineWidth = 2;
      c.strokeRect(toX(at.at) - 1, at.y - 1, Math.max(toX(at.end) - toX(at.at), 3) + 2, layout.rowHeight - 1);
    } else if (at.type === "deed") {
      stroke(c, colour, 1.5, [toX(at.at), layout.world, toX(at.at), layout.calls - 24]);
    }
  }
  if (selection.x !== null) {
    const text = when(toTime(selection.x));
    c.globalAlpha = 0.4;
    stroke(c, colours.muted, 1, [selection.x + 0.5, AXIS, selection.x + 0.5, layout.height]);
    c.globalAlpha = 1;
    c.font = `11px ${FONT}`;
    const width = c.measureText(text).width + 10;
    c.fillStyle = colours.ink;
    c.beginPath();
    c.roundRect(Math.min(Math.max(selection.x - width / 2, GUTTER), layout.width - width), 2, width, 17, 4);
    c.fill();
    write(c, text, Math.min(Math.max(selection.x, GUTTER + width / 2), layout.width - width / 2), 11, { colour: colours.card, size: 11, align: "center" });
  }
}
