// Pens and signs: how one thing is drawn, wherever it stands.

const colours = {};
const COLOUR_NAMES = [
  "bg", "card", "ink", "muted", "faint", "line", "bad", "warn", "good", "down", "accent",
  ...GROUP_NAMES, "b0", "b1", "b2", "b3", "b4", "b5",
];
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace";

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of COLOUR_NAMES) colours[name] = style.getPropertyValue(`--${name}`).trim();
}

/** A context scaled to CSS pixels. */
function sheet(element, width, height) {
  const scale = window.devicePixelRatio || 1;
  if (element.width !== Math.round(width * scale) || element.height !== Math.round(height * scale)) {
    element.width = Math.round(width * scale);
    element.height = Math.round(height * scale);
    element.style.width = `${width}px`;
    element.style.height = `${height}px`;
  }
  const c = element.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, height);
  return c;
}

function write(c, text, x, y, { colour = colours.ink, size = 12, font = FONT, weight = "", align = "left", halo = false } = {}) {
  c.font = `${weight} ${size}px ${font}`;
  c.textAlign = align;
  c.textBaseline = "middle";
  if (halo) {
    c.strokeStyle = colours.card;
    c.lineWidth = 3.5;
    c.lineJoin = "round";
    c.strokeText(text, x, y);
  }
  c.fillStyle = colour;
  c.fillText(text, x, y);
}

function fitted(c, text, width, size, font = FONT) {
  c.font = `${size}px ${font}`;
  if (c.measureText(text).width <= width) return text;
  let kept = text.slice(0, Math.max(1, Math.floor(width / (size * 0.45))));
  while (kept.length > 1 && c.measureText(`${kept}…`).width > width) kept = kept.slice(0, -1);
  return kept.length > 1 ? `${kept}…` : "";
}

function hatch(c, x, y, width, height, colour, gap = 6) {
  c.save();
  c.beginPath();
  c.rect(x, y, width, height);
  c.clip();
  c.strokeStyle = colour;
  c.lineWidth = 1;
  c.beginPath();
  const begin = Math.floor((x - height) / gap) * gap;
  for (let at = begin; at < x + width; at += gap) {
    c.moveTo(at, y + height);
    c.lineTo(at + height, y);
  }
  c.stroke();
  c.restore();
}

function bolt(c, x, y, size) {
  c.fillStyle = colours.warn;
  c.beginPath();
  for (const [dx, dy] of [[0.3, -1], [-0.6, 0.15], [-0.05, 0.15], [-0.3, 1], [0.6, -0.2], [0.05, -0.2]]) c.lineTo(x + dx * size, y + dy * size);
  c.closePath();
  c.fill();
}

function polygon(c, x, y, size, corners, turn, fill, stroke) {
  c.beginPath();
  for (let corner = 0; corner < corners; corner += 1) {
    const angle = turn + (corner * 2 * Math.PI) / corners;
    c.lineTo(x + size * Math.cos(angle), y + size * Math.sin(angle));
  }
  c.closePath();
  if (fill) {
    c.fillStyle = fill;
    c.fill();
  }
  c.strokeStyle = stroke;
  c.lineWidth = 1.5;
  c.stroke();
}

function star(c, x, y, size, fill, stroke) {
  c.beginPath();
  for (let corner = 0; corner < 10; corner += 1) {
    const far = corner % 2 ? size * 0.45 : size;
    const angle = -Math.PI / 2 + (corner * Math.PI) / 5;
    c.lineTo(x + far * Math.cos(angle), y + far * Math.sin(angle));
  }
  c.closePath();
  c.fillStyle = fill;
  c.fill();
  c.strokeStyle = stroke;
  c.lineWidth = 1.2;
  c.stroke();
}

function stroke(c, colour, width, ...lines) {
  c.strokeStyle = colour;
  c.lineWidth = width;
  c.beginPath();
  for (const [x1, y1, x2, y2] of lines) {
    c.moveTo(x1, y1);
    c.lineTo(x2, y2);
  }
  c.stroke();
}

/** The sign of a mark; the legend draws them too. */
function glyph(c, kind, x, y) {
  const up = -Math.PI / 2;
  switch (kind) {
    case "start": polygon(c, x + 2, y, 7, 3, 0, colours.good, colours.card); break;
    case "crash":
      polygon(c, x, y, 9, 8, Math.PI / 8, colours.bad, colours.card);
      stroke(c, "#fff", 2, [x - 3.2, y - 3.2, x + 3.2, y + 3.2], [x - 3.2, y + 3.2, x + 3.2, y - 3.2]);
      break;
    case "halt":
      polygon(c, x, y, 9, 8, Math.PI / 8, colours.bad, colours.card);
      stroke(c, "#fff", 2.5, [x - 4, y, x + 4, y]);
      break;
    case "pause": stroke(c, colours.warn, 3, [x - 2.5, y - 6, x - 2.5, y + 6], [x + 2.5, y - 6, x + 2.5, y + 6]); break;
    case "resume": polygon(c, x + 1, y, 6.5, 3, 0, colours.warn, colours.card); break;
    case "promise": polygon(c, x, y, 5.5, 4, 0, colours.card, colours.election); break;
    case "candidate": polygon(c, x, y, 6.5, 4, 0, colours.election, colours.card); break;
    case "master": star(c, x, y, 10, colours.accent, colours.card); break;
    case "lost_master": star(c, x, y, 9, colours.card, colours.muted); break;
    case "persist": polygon(c, x, y, 3.6, 4, Math.PI / 4, colours.card, colours.muted); break;
    case "durable": polygon(c, x, y, 3.6, 4, Math.PI / 4, colours.muted, colours.muted); break;
    case "commit": stroke(c, colours.good, 2.5, [x, y - 4, x, y + 8]); break;
    case "apply": c.fillStyle = colours.good; c.beginPath(); c.arc(x, y - 1, 2, 0, 7); c.fill(); break;
    case "cut_log": stroke(c, colours.bad, 2, [x - 5, y + 6, x + 4, y - 6], [x - 5, y - 6, x + 4, y + 6], [x + 5, y - 8, x + 5, y + 8]); break;
    case "adopt": polygon(c, x, y, 6.5, 3, Math.PI / 2, colours.replication, colours.card); break;
    case "config": polygon(c, x, y, 6.5, 6, up, colours.card, colours.ink); break;
    case "disk": polygon(c, x, y, 6, 4, Math.PI / 4, colours.warn, colours.card); break;
    case "fault": bolt(c, x, y, 9); break;
    case "violation":
      polygon(c, x, y, 10, 3, up, colours.bad, colours.card);
      write(c, "!", x, y + 1, { colour: "#fff", weight: "700", size: 11, align: "center" });
      break;
    default: c.fillStyle = colours.muted; c.beginPath(); c.arc(x, y, 3.5, 0, 7); c.fill();
  }
}
