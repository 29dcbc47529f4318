// Where things are: times to x, members and calls to y. All lengths are CSS pixels.

const GUTTER = 96;
const AXIS = 24;
const canvas = document.getElementById("diagram");
const overview = document.getElementById("overview");
const view = { from: bounds.from, to: bounds.to };
const layout = { width: 800, height: 400 };

/** Give each bar the first row in which it fits; bars are sorted by `at`. */
function intoRows(bars, most, endOf, breadth = 0) {
  const ends = [];
  for (const bar of bars) {
    let row = ends.findIndex((end) => end <= bar.at);
    if (row < 0) row = ends.length < most ? ends.length : ends.indexOf(Math.min(...ends));
    ends[row] = Math.max(endOf(bar), bar.at + breadth);
    bar.row = row;
  }
  return ends.length;
}

function arrange() {
  const count = Math.max(run.members.length, 1);
  const space = Math.round(Math.min(132, Math.max(82, 470 / count)));
  layout.width = Math.max(canvas.parentElement.clientWidth, 320);
  const cutRows = intoRows(cuts, 3, (cut) => cut.ends);
  layout.world = AXIS;
  layout.cuts = layout.world + (deeds.length ? 20 : 0);
  layout.first = layout.cuts + cutRows * 16 + 68;
  layout.space = space;
  layout.lanes = [];
  const last = layout.first + (count - 1) * space;
  layout.calls = last + 46;
  let y = layout.calls;
  const clients = [...new Set([...run.clients, ...calls.map((call) => call.client)])];
  const byClient = new Map(clients.map((client) => [client, []]));
  for (const call of calls) byClient.get(call.client).push(call);
  const rows = clients.map((client) => intoRows(byClient.get(client), 4, (call) => call.end));
  const total = rows.reduce((sum, number) => sum + Math.max(number, 1), 0);
  layout.rowHeight = total <= 14 ? 18 : Math.max(6, Math.floor(260 / total));
  if (calls.length) {
    clients.forEach((client, place) => {
      layout.lanes.push({ client, y, rows: Math.max(rows[place], 1) });
      for (const call of byClient.get(client)) call.y = y + call.row * layout.rowHeight;
      y += Math.max(rows[place], 1) * layout.rowHeight + 6;
    });
  }
  layout.height = y + 12;
}

const lineY = (place) => layout.first + place * layout.space;
const toX = (at) => GUTTER + ((at - view.from) / (view.to - view.from)) * (layout.width - GUTTER);
const toTime = (x) => view.from + ((x - GUTTER) / (layout.width - GUTTER)) * (view.to - view.from);

/** Change the view, within bounds: neither beyond the run nor closer than anybody can want. */
function look(from, to) {
  const most = bounds.to - bounds.from;
  const least = inSteps ? 2 : Math.max(most * 1e-7, 1e-5);
  const size = Math.min(most, Math.max(least, to - from));
  const centre = (from + to) / 2;
  view.from = Math.min(Math.max(centre - size / 2, bounds.from), bounds.to - size);
  view.to = view.from + size;
}

/** The time of interest: the violation, or the end. */
const focus = violation ? violation.at : run.ends;

/** The last messages before the violation, and the election before them if it is near. */
function aroundViolation() {
  const before = [];
  for (let place = placeOf(messages, focus + length * 1e-9) - 1; place >= 0 && before.length < 40; place -= 1) {
    if (isShown(messages[place])) before.push(messages[place].at);
  }
  let from = before.length ? before[before.length - 1] : bounds.from;
  const elected = marks.filter((mark) => mark.kind === "master" && mark.at <= focus).pop();
  if (elected && elected.at < from && focus - elected.at < 2.5 * (focus - from)) from = elected.at - 4 * typical;
  const size = Math.max(focus - from, inSteps ? 6 : 4 * typical);
  return [focus - size * 1.04, focus + size * 0.14];
}

function nearX(a, b, distance) {
  return Math.abs(a - b) <= distance;
}

/** What stands at a point of the canvas, or null. */
function hit(x, y) {
  if (x < GUTTER) return null;
  const at = toTime(x);
  const reach = toTime(x + 9) - at;
  if (finding && nearX(toX(finding.at), x, 4) && y < layout.first - 44) return finding;
  let best = null;
  let distance = 10;
  for (let place = placeOf(marks, at - reach); place < marks.length && marks[place].at <= at + reach; place += 1) {
    const mark = marks[place];
    if (!mark.drawn) continue;
    const away = Math.hypot(toX(mark.at) - x, lineY(lineOf.get(mark.member)) + (mark.dy ?? 0) - y);
    if (away < distance) [best, distance] = [mark, away];
  }
  if (best) return best;
  distance = 7;
  for (let place = placeOfEnd(at - reach); place < messages.length && messages[place].at <= at + reach; place += 1) {
    const message = messages[place];
    if (!isShown(message)) continue;
    const away = distanceTo(message, x, y);
    if (away < distance) [best, distance] = [message, away];
  }
  if (best) return best;
  for (const call of calls) {
    if (y >= call.y && y < call.y + layout.rowHeight && toX(call.at) - 2 <= x && x <= Math.max(toX(call.end), toX(call.at) + 4)) return call;
  }
  if (y >= layout.world && y < layout.cuts) {
    for (const deed of deeds) if (nearX(toX(deed.at), x, 7)) return deed;
  }
  for (const cut of cuts) {
    const top = layout.cuts + cut.row * 16;
    if (y >= top && y < top + 15 && cut.at <= at && at <= cut.ends) return cut;
  }
  for (const span of spans) {
    const middle = lineY(lineOf.get(span.member)) + (span.kind.endsWith("disk") ? 13 : 0);
    if (Math.abs(y - middle) <= (span.kind.endsWith("disk") ? 4 : 9) && span.at <= at && at <= span.ends) return span;
  }
  return null;
}

function ends(message) {
  const y1 = lineY(message.from);
  return [toX(message.sent_at), y1, toX(message.end), y1 + (lineY(message.to) - y1) * message.part];
}

function distanceTo(message, x, y) {
  const [x1, y1, x2, y2] = ends(message);
  const [dx, dy] = [x2 - x1, y2 - y1];
  const along = Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
}
