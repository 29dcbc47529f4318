// Moving, zooming, pointing and choosing.

const selection = { hovered: null, pinned: null, x: null };
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
let waiting = false;
let moving = 0;

/** Draw in the next frame, once however often it is asked for. */
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    guarded(() => { document.body.dataset.drawn = paint(); });
  });
}

/** Go to another view, smoothly unless the user wants none of that. */
function glide(from, to) {
  cancelAnimationFrame(moving);
  selection.hovered = null;
  showTip(0, 0);
  if (calm.matches) {
    look(from, to);
    redraw();
    return;
  }
  const begin = { from: view.from, to: view.to };
  const started = performance.now();
  const step = (now) => {
    const part = Math.min(1, (now - started) / 180);
    const eased = 1 - (1 - part) ** 3;
    look(begin.from + (from - begin.from) * eased, begin.to + (to - begin.to) * eased);
    redraw();
    if (part < 1) moving = requestAnimationFrame(step);
  };
  moving = requestAnimationFrame(step);
}

function zoom(factor, x = (GUTTER + layout.width) / 2, smooth = true) {
  const at = toTime(Math.max(x, GUTTER));
  const [from, to] = [at - (at - view.from) * factor, at + (view.to - at) * factor];
  if (smooth) glide(from, to);
  else {
    look(from, to);
    redraw();
  }
}

function pan(part) {
  const by = (view.to - view.from) * part;
  glide(view.from + by, view.to + by);
}

function goToViolation() {
  glide(...aroundViolation());
  if (finding) choose(finding);
}

/** Put an event in the middle without changing the scale, unless nothing could be told there. */
function centre(at) {
  let size = view.to - view.from;
  const [from, to] = aroundViolation();
  if (size > 6 * (to - from)) size = to - from;
  glide(at - size / 2, at + size / 2);
}

function choose(item) {
  selection.pinned = item;
  showPanel(item);
  redraw();
}

/** The next or previous event that is in sight, from the chosen one on. */
function stepBy(direction) {
  const begin = selection.pinned?.place ?? placeOf(events, direction > 0 ? view.from : view.to);
  for (let place = begin + direction; place >= 0 && place < events.length; place += direction) {
    const event = events[place];
    if (event.type === "answer" || (event.type === "message" && !isShown(event))) continue;
    if (event.type === "mark" && !shown.members.has(event.member)) continue;
    choose(event);
    if (event.at < view.from || event.at > view.to) centre(event.at);
    return;
  }
}

function showTip(x, y) {
  const tip = $("tip");
  const item = selection.hovered;
  tip.hidden = !item;
  if (!item) return;
  tip.replaceChildren();
  const head = document.createElement("strong");
  head.textContent = item.type === "message" ? `${item.source} → ${item.target}  ${item.kind}` : headline(item);
  tip.append(head);
  const lines = [];
  if (item.type === "message") {
    lines.push(item.text);
    lines.push(item.arrived_at != null
      ? `${when(item.sent_at)} → ${when(item.arrived_at)} (${howLong(item.arrived_at - item.sent_at)})`
      : `sent at ${when(item.sent_at)}`);
    if (item.fate !== "delivered") lines.push(FATES[item.fate] ?? item.fate);
    if (item.repeated) lines.push("a copy made by the network");
  } else if (item.type === "call") {
    lines.push(`${when(item.at)} → ${item.returned != null ? when(item.returned) : "no answer"}`, `${item.outcome} ${item.result}`);
    if (item.wrong) lines.push("this call shows the violation");
  } else {
    lines.push(item.ends != null ? `${when(item.at)} → ${item.open ? "end" : when(item.ends)}` : when(item.at));
  }
  for (const line of lines.filter(Boolean)) {
    const row = document.createElement("span");
    row.textContent = line.length > 400 ? `${line.slice(0, 400)}…` : line;
    tip.append(row);
  }
  const width = tip.offsetWidth;
  tip.style.left = `${Math.max(4, Math.min(x + 16, layout.width - width - 8))}px`;
  const top = canvas.offsetTop + y + 18;
  tip.style.top = `${y + 18 + tip.offsetHeight > layout.height ? Math.max(0, top - tip.offsetHeight - 34) : top}px`;
}

function listen() {
  const pointers = new Map();
  let moved = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    if (pointers.size === 1) moved = 0;
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      selection.hovered = hit(x, y);
      selection.x = x >= GUTTER ? x : null;
      canvas.style.cursor = selection.hovered ? "pointer" : "";
      showTip(x, y);
      redraw();
      return;
    }
    moved += Math.hypot(x - before[0], y - before[1]);
    if (pointers.size === 2) {
      const [[, other]] = [...pointers].filter(([id]) => id !== event.pointerId);
      const scale = Math.abs(before[0] - other[0]) / Math.max(8, Math.abs(x - other[0]));
      zoom(Math.min(2, Math.max(0.5, scale)), (x + other[0]) / 2, false);
    } else if (moved > 4) {
      const by = toTime(before[0]) - toTime(x);
      look(view.from + by, view.to + by);
      selection.hovered = null;
      showTip(x, y);
      redraw();
    }
    pointers.set(event.pointerId, [x, y]);
  });
  const leave = (event) => {
    if (pointers.delete(event.pointerId) && event.type === "pointerup" && moved <= 4) choose(hit(...place(event)));
  };
  canvas.addEventListener("pointerup", leave);
  canvas.addEventListener("pointercancel", leave);
  canvas.addEventListener("pointerleave", () => {
    selection.hovered = null;
    selection.x = null;
    showTip(0, 0);
    redraw();
  });
  canvas.addEventListener("wheel", (event) => {
    // The page scrolls over a diagram that nobody has touched.
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (!sideways && !event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 16 : 1;
    if (sideways) {
      const by = ((event.deltaX || event.deltaY) * unit * (view.to - view.from)) / layout.width;
      look(view.from + by, view.to + by);
      redraw();
    } else zoom(Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY * unit * 0.0025))), place(event)[0], false);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowLeft: () => pan(-0.25),
      ArrowRight: () => pan(0.25),
      "+": () => zoom(0.6),
      "=": () => zoom(0.6),
      "-": () => zoom(1 / 0.6),
      f: () => glide(bounds.from, bounds.to),
      0: () => glide(bounds.from, bounds.to),
      v: goToViolation,
      n: () => stepBy(1),
      p: () => stepBy(-1),
      h: () => $("group-heartbeat")?.click(),
      Escape: () => choose(null),
    };
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  const jump = (event) => {
    const box = overview.getBoundingClientRect();
    const part = (event.clientX - box.left - GUTTER) / (layout.width - GUTTER);
    const at = bounds.from + part * (bounds.to - bounds.from);
    const size = view.to - view.from;
    look(at - size / 2, at + size / 2);
    redraw();
  };
  overview.addEventListener("pointerdown", (event) => {
    overview.setPointerCapture(event.pointerId);
    jump(event);
  });
  overview.addEventListener("pointermove", (event) => { if (event.buttons) jump(event); });
  $("earlier").addEventListener("click", () => pan(-0.5));
  $("later").addEventListener("click", () => pan(0.5));
  $("in").addEventListener("click", () => zoom(0.5));
  $("out").addEventListener("click", () => zoom(2));
  $("fit").addEventListener("click", () => glide(bounds.from, bounds.to));
  $("goto").addEventListener("click", goToViolation);
  new ResizeObserver(() => {
    if (canvas.parentElement.clientWidth === layout.width) return;
    arrange();
    redraw();
  }).observe(canvas.parentElement);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    showLegend();
    redraw();
  });
}
