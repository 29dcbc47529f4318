// Around the lines of the members: the calls of clients below, the names, the times, the whole run above.

/** A round distance between grid lines, about `pixels` wide. */
function gridStep(pixels) {
  const wanted = ((view.to - view.from) * pixels) / (layout.width - GUTTER);
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= wanted) ?? wanted;
  return inSteps ? Math.max(1, Math.round(step)) : step;
}

function paintGrid(c) {
  const step = gridStep(110);
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    const x = Math.round(toX(at)) + 0.5;
    c.strokeStyle = colours.faint;
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(x, AXIS - 4);
    c.lineTo(x, layout.height);
    c.stroke();
    write(c, inSteps ? `${Math.round(at)}` : `${at.toFixed(digits)} s`, x, 10, { colour: colours.muted, size: 11, align: "center" });
  }
}

function paintCalls(c) {
  if (!calls.length) return;
  c.fillStyle = colours.faint;
  c.globalAlpha = 0.5;
  c.fillRect(GUTTER, layout.calls - 10, layout.width - GUTTER, 1);
  c.globalAlpha = 1;
  const painted = new Map();
  for (const call of calls) {
    if (call.end < view.from || call.at > view.to) continue;
    const x1 = Math.max(toX(call.at), GUTTER - 4);
    const x2 = Math.min(toX(call.end), layout.width + 4);
    if (!call.wrong && x2 <= (painted.get(call.y) ?? -Infinity) + 0.7) continue;
    painted.set(call.y, x2);
    const sort = outcomeClass(call);
    const colour = { wrong: colours.bad, ok: colours.good, maybe: colours.warn, waits: colours.muted, not: colours.muted }[sort];
    const height = layout.rowHeight - (layout.rowHeight > 10 ? 3 : 1);
    const width = Math.max(x2 - x1, 2);
    c.globalAlpha = sort === "wrong" ? 0.9 : 0.28;
    c.fillStyle = colour;
    c.fillRect(x1, call.y, width, height);
    c.globalAlpha = 1;
    stroke(c, colour, 2, [x1 + 1, call.y, x1 + 1, call.y + height], ...(call.returned != null ? [[x1 + width - 1, call.y, x1 + width - 1, call.y + height]] : []));
    if (layout.rowHeight >= 14) {
      const text = fitted(c, `${call.call}${call.returned != null ? ` → ${call.result || call.outcome}` : ""}`, width - 10, 11, MONO);
      if (text.length > 3) write(c, text, Math.max(x1, GUTTER) + 6, call.y + height / 2 + 0.5, { size: 11, font: MONO, colour: sort === "wrong" ? "#fff" : colours.ink });
    }
  }
}

function paintGutter(c) {
  c.fillStyle = colours.card;
  c.fillRect(0, 0, GUTTER, layout.height);
  stroke(c, colours.line, 1, [GUTTER - 0.5, AXIS, GUTTER - 0.5, layout.height]);
  if (deeds.length) write(c, "faults", GUTTER - 10, layout.world + 9, { colour: colours.muted, size: 11, align: "right" });
  run.members.forEach((member, place) => {
    const y = lineY(place);
    const bad = finding && (finding.members ?? []).includes(member);
    const text = fitted(c, member, GUTTER - 30, 14);
    c.globalAlpha = shown.members.has(member) ? 1 : 0.4;
    c.fillStyle = bad ? colours.bad : colours.muted;
    c.beginPath();
    c.arc(GUTTER - 12, y, 4, 0, 7);
    c.fill();
    write(c, text, GUTTER - 24, y, { size: 14, weight: "600", align: "right", colour: bad ? colours.bad : colours.ink });
    c.globalAlpha = 1;
  });
  for (const lane of layout.lanes) {
    if (lane.rows * layout.rowHeight < 10) continue;
    write(c, fitted(c, lane.client, GUTTER - 16, 11), GUTTER - 10, lane.y + (lane.rows * layout.rowHeight) / 2 - 1, { size: 11, colour: colours.muted, align: "right" });
  }
}

let traffic = null;

/** The whole run as a strip: how many messages when, who led, and the part that is in view. */
function paintOverview() {
  const height = 34;
  const width = layout.width;
  const c = sheet(overview, width, height);
  const room = width - GUTTER;
  const x = (at) => GUTTER + ((at - bounds.from) / (bounds.to - bounds.from)) * room;
  const columns = Math.floor(room / 2);
  if (!traffic || traffic.length !== columns) {
    traffic = new Float64Array(columns);
    for (const message of messages) traffic[Math.max(0, Math.min(columns - 1, Math.floor((x(message.at) - GUTTER) / 2)))] += 1;
  }
  const most = Math.sqrt(Math.max(1, ...traffic));
  c.fillStyle = colours.replication;
  c.globalAlpha = 0.45;
  traffic.forEach((count, column) => {
    const size = (Math.sqrt(count) / most) * (height - 10);
    if (count) c.fillRect(GUTTER + column * 2, height - 2 - size, 1.6, size);
  });
  c.globalAlpha = 1;
  for (const span of spans) {
    if (span.kind !== "master") continue;
    c.fillStyle = colours[`b${colourOfBallot(span.text)}`];
    c.fillRect(x(span.at), 1, Math.max(1, x(span.ends) - x(span.at)), 3);
  }
  c.fillStyle = colours.warn;
  for (const deed of deeds) c.fillRect(x(deed.at), 5, 1, 5);
  if (finding) {
    c.fillStyle = colours.bad;
    c.fillRect(x(finding.at) - 1, 0, 2, height);
  }
  const [left, right] = [x(view.from), Math.max(x(view.to), x(view.from) + 3)];
  c.fillStyle = colours.accent;
  c.globalAlpha = 0.14;
  c.fillRect(left, 0, right - left, height);
  c.globalAlpha = 1;
  c.strokeStyle = colours.accent;
  c.lineWidth = 1.5;
  c.strokeRect(left + 0.75, 0.75, Math.max(right - left - 1.5, 1.5), height - 1.5);
  write(c, "whole run", GUTTER - 10, height / 2, { size: 11, colour: colours.muted, align: "right" });
}
