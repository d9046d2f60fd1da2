// The frame of every plot: a standalone SVG with its own words, so that what is downloaded is what
// is seen. Scales, axes, bands of missing data, limits, event hairlines, and the brush over time.

import { $, $$, svg, text } from './dom.js';
import { clamp, clock, iso, tick } from './format.js';
import { chooseRange } from './address.js';

const LEFT = 54, BOTTOM = 24, LABEL_PX = 74;

export const oneTwoFive = (low, high) => {
  const out = [];
  for (let d = Math.floor(Math.log10(low)) - 1; d <= Math.ceil(Math.log10(high)); d++) for (const m of [1, 2, 5]) out.push(m * 10 ** d);
  return out.map((x) => Number(x.toPrecision(3)));
};
/** The steps of 1, 2, 5 around these two. */
export const around = (low, high) => {
  const ladder = oneTwoFive(low, high);
  const a = ladder.filter((x) => x <= low * 1.001).pop();
  return [a, ladder.find((x) => x >= high * 0.999 && x > a)];
};

/** An empty plot of this SVG's box. `right` and `top` are margins, px. */
export const frame = (node, { right = 12, top = 40, subject = '' } = {}) => {
  const w = Math.max(240, node.parentElement.clientWidth), h = Math.max(160, node.parentElement.clientHeight);
  node.replaceChildren();
  node.setAttribute('viewBox', `0 0 ${w} ${h}`);
  const f = { node, w, h, left: LEFT, top, pw: w - LEFT - right, ph: h - top - BOTTOM };
  f.add = (tag, attributes, content) => { const made = svg(tag, attributes, content); node.append(made); return made; };
  f.add('text', { class: 'subject', x: LEFT, y: 12 }, fit(subject, w - LEFT - 8));
  return f;
};
/** As much of a sentence as fits, at 6.4 px a character. */
const fit = (sentence, px) => (sentence.length * 6.4 <= px ? sentence : `${sentence.slice(0, Math.max(4, Math.floor(px / 6.4) - 1))}…`);

export const logY = (f, low, high) => {
  const l0 = Math.log(low), whole = Math.log(high) - l0;
  f.low = low;
  f.high = high;
  f.y = (v) => f.top + f.ph - ((Math.log(clamp(v, low, high)) - l0) / whole) * f.ph;
  f.value = (py) => low * (high / low) ** clamp((f.top + f.ph - py) / f.ph, 0, 1);
  const all = oneTwoFive(low, high).filter((x) => x >= low * 0.999 && x <= high * 1.001);
  const decades = all.filter((x) => Math.abs(Math.log10(x) - Math.round(Math.log10(x))) < 1e-6);
  const gap = f.ph / Math.max(0.1, Math.log10(high / low));
  marks(f, decades.length < 3 && gap > 60 ? all : decades, tick);
};
export const linearY = (f, low, high, steps, shown) => {
  f.low = low;
  f.high = high;
  f.y = (v) => f.top + f.ph - ((clamp(v, low, high) - low) / (high - low)) * f.ph;
  f.value = (py) => low + (high - low) * clamp((f.top + f.ph - py) / f.ph, 0, 1);
  marks(f, steps, shown);
};
const marks = (f, values, shown) => {
  let last = Infinity;
  for (const v of values) {
    const y = f.y(v);
    f.add('line', { class: 'grid', x1: f.left, x2: f.left + f.pw, y1: y, y2: y });
    if (last - y < 14) continue;
    last = y;
    f.add('text', { x: f.left - 6, y: clamp(y, f.top + 4, f.top + f.ph) + 4, 'text-anchor': 'end' }, shown(v));
  }
};

const EVERY = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 172800];
export const timeX = (f, from, to) => {
  f.from = from;
  f.to = to;
  f.x = (t) => f.left + clamp((t - from) / (to - from), 0, 1) * f.pw;
  f.time = (px) => from + clamp((px - f.left) / f.pw, 0, 1) * (to - from);
  const every = EVERY.find((s) => ((s * 1000) / (to - from)) * f.pw >= LABEL_PX) || EVERY[EVERY.length - 1];
  const zone = new Date(to).getTimezoneOffset() * 60000;
  for (let t = Math.ceil((from - zone) / 1000 / every) * every * 1000 + zone; t <= to; t += every * 1000) {
    const label = every >= 86400 ? new Date(t).toLocaleDateString([], { month: 'short', day: 'numeric' }) : clock(t, every < 60), half = label.length * 3.4;
    f.add('line', { class: 'grid', x1: f.x(t), x2: f.x(t), y1: f.top + f.ph, y2: f.top + f.ph + 4 });
    f.add('text', { x: clamp(f.x(t), f.left + half - 12, f.w - half - 2), y: f.h - 6, 'text-anchor': 'middle' }, label);
  }
  f.add('line', { class: 'axis', x1: f.left, x2: f.left + f.pw, y1: f.top + f.ph, y2: f.top + f.ph });
};

/** Time that an agent did not account for: hatched, named on hover. */
export const missing = (f, incomplete) => {
  for (const gap of incomplete || []) {
    const a = Date.parse(gap.from), b = gap.to ? Date.parse(gap.to) : f.to;
    if (b <= f.from || a >= f.to) continue;
    const rect = f.add('rect', { class: 'missing', x: f.x(a), y: f.top, width: Math.max(1, f.x(b) - f.x(a)), height: f.ph });
    rect.append(svg('title', {}, `not accounted for by ${gap.agent}`));
  }
};
/** A limit: a long-dashed line across, with its name. */
export const limit = (f, value, label) => {
  if (value < f.low || value > f.high) return false;
  const y = f.y(value);
  f.add('line', { class: 'halo', x1: f.left, x2: f.left + f.pw, y1: y, y2: y });
  f.add('line', { class: 'limit', x1: f.left, x2: f.left + f.pw, y1: y, y2: y });
  f.add('text', { class: 'limit haloed', x: f.left + 5, y: y - 4 < f.top + 10 ? y + 13 : y - 4 }, label);
  return true;
};
const SHAPES = { alert: 'M0 -5 5 4H-5z', canary: 'M0 -5 5 0 0 5 -5 0z', verdict: 'M-4 -4H4V4H-4z' };
/** What happened: a dashed hairline each, with a shape on top; named where there is room. */
export const events = (f, all) => {
  const shown = all.filter((e) => e.t > f.from && e.t < f.to).sort((a, b) => a.t - b.t);
  for (const [i, event] of shown.entries()) {
    const x = f.x(event.t), next = shown[i + 1] ? f.x(shown[i + 1].t) : f.left + f.pw, g = f.add('g', { class: `event ${event.kind}` });
    g.append(svg('title', {}, `${iso(event.t)} ${event.label}`), svg('line', { x1: x, x2: x, y1: f.top - 3, y2: f.top + f.ph }));
    g.append(svg('path', { d: SHAPES[event.kind], transform: `translate(${x} ${f.top - 6})` }));
    if (x + event.label.length * 6.2 + 10 < next) g.append(svg('text', { class: 'haloed', x: x + 6, y: f.top + 10 }, event.label));
  }
};

export const path = (points) => points.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');
/** The area between two edges given from left to right. */
export const area = (upper, lower) => (upper.length ? `${path(upper)}L${path([...lower].reverse()).slice(1)}Z` : '');
/** Stretches of points that follow each other without a hole. */
export const runs = (points, holds, follows) => {
  const out = [];
  let open = null, last = null;
  for (const point of points) {
    if (!holds(point)) { open = null; continue; }
    if (!open || !follows(last, point)) out.push(open = []);
    open.push(point);
    last = point;
  }
  return out;
};
/** Labels at one side, pushed apart to stand 13 px from each other within the plot. */
export const apart = (f, labels) => {
  labels.sort((a, b) => a.y - b.y);
  for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + 13);
  const over = labels.length ? Math.max(0, labels[labels.length - 1].y - (f.top + f.ph)) : 0;
  for (const l of labels) l.y = Math.max(f.top + 8, l.y - over);
  for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + 13);
  return labels;
};

// ---- the brush: drag over a plot of time to look at just that; arrow keys read, shift selects

let brushing = null;
export const isBrushing = () => brushing !== null;
/** `frameOf()` is the plot as last drawn; `say(t, py)` gives the sentence of an instant. */
export const brush = (node, read, frameOf, sentence) => {
  const cursor = { t: null, anchor: null };
  const paint = () => {
    for (const old of $$('.cursor, .selection', node)) old.remove();
    const f = frameOf();
    if (!f || cursor.t == null) return;
    if (cursor.anchor != null) {
      const [a, b] = [f.x(Math.min(cursor.t, cursor.anchor)), f.x(Math.max(cursor.t, cursor.anchor))];
      f.add('rect', { class: 'selection', x: a, y: f.top, width: b - a, height: f.ph });
    }
    f.add('line', { class: 'cursor', x1: f.x(cursor.t), x2: f.x(cursor.t), y1: f.top, y2: f.top + f.ph });
  };
  const show = (t, py) => {
    cursor.t = t;
    paint();
    const chosen = cursor.anchor == null ? '' : `${clock(Math.min(t, cursor.anchor))} to ${clock(Math.max(t, cursor.anchor))}: release, or Enter, to look at just that. `;
    text(read, t == null ? '' : chosen + sentence(t, py));
  };
  const at = (e) => { const box = node.getBoundingClientRect(); return [frameOf().time(e.clientX - box.left), e.clientY - box.top]; };
  const clear = () => { cursor.anchor = null; brushing = null; show(null); };
  const take = () => {
    const f = frameOf(), { t, anchor } = cursor;
    clear();
    if (anchor != null && Math.abs(f.x(t) - f.x(anchor)) >= 6) chooseRange(Math.min(t, anchor), Math.max(t, anchor));
  };
  node.addEventListener('pointerdown', (e) => {
    if (!frameOf() || e.button) return;
    [cursor.anchor] = at(e);
    brushing = node;
    if (e.pointerType === 'mouse') node.setPointerCapture(e.pointerId);
  });
  node.addEventListener('pointermove', (e) => { if (frameOf()) show(...at(e)); });
  node.addEventListener('pointerup', () => { if (cursor.anchor != null) take(); });
  node.addEventListener('pointercancel', clear);
  node.addEventListener('pointerleave', () => { if (cursor.anchor == null) show(null); });
  node.addEventListener('keydown', (e) => {
    const f = frameOf(), by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[e.key];
    if (!f) return;
    if (e.key === 'Enter' && cursor.anchor != null) { e.preventDefault(); take(); }
    if (e.key === 'Escape' && cursor.t != null) { e.preventDefault(); clear(); }
    if (!by) return;
    e.preventDefault();
    const before = cursor.t == null ? f.to : cursor.t;
    if (e.shiftKey && cursor.anchor == null) { cursor.anchor = before; brushing = node; }
    if (!e.shiftKey) { cursor.anchor = null; brushing = null; }
    show(clamp(before + by * (f.step || (f.to - f.from) / 60), f.from, f.to - 1));
  });
  node.addEventListener('blur', () => { if (brushing === node) clear(); });
  return { repaint: paint };
};

/** Shows the note of a plot that has nothing to draw; `''` hides it. */
export const note = (id, sentence) => {
  const box = $(id);
  box.hidden = !sentence;
  text(box, sentence);
};
