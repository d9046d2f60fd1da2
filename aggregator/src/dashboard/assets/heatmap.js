// Latency over time as a heat map: time across, the logarithm of latency up, samples as colour.
//
// Cells are one pixel each of a small picture inside the SVG, scaled without smoothing; words and
// lines are drawn over it. Each bucket is spread over the rows it covers by its share of the log
// axis, so sums stay exact. Colour is the logarithm of a cell's count, or of its share of the step.

import { $, attr, css, svg } from './dom.js';
import { clamp, clock, count, ms, percent, tick } from './format.js';
import * as plot from './plot.js';

const ROW_PX = 4;
/** Share of samples below which `full` shows none, and above which `tail` begins. */
const FULL_FROM = 0.01, TAIL_FROM = 0.95;
/** Smallest share of a step that has a colour of its own. */
const SHARE_MIN = 0.001;

let drawn = null;

const reach = (heat, columns, zoom) => {
  const rows = new Map();
  let all = 0;
  for (const c of columns) for (const [i, n] of c.buckets) { rows.set(i, (rows.get(i) || 0) + n); all += n; }
  const filled = [...rows].sort((a, b) => a[0] - b[0]), from = (zoom === 'tail' ? TAIL_FROM : FULL_FROM) * all;
  let seen = 0, first = filled[0][0];
  for (const [i, n] of filled) { seen += n; first = i; if (seen > from) break; }
  const last = filled[filled.length - 1][0];
  return [Math.max(heat.edges_ms[first], 1e-5), heat.edges_ms[last + 1]];
};
/** The counts of one step by row of the picture. */
const cellsOf = (heat, column, low, high, rows) => {
  const cells = new Float64Array(rows), l0 = Math.log(low), per = rows / (Math.log(high) - l0);
  for (const [i, n] of column.buckets) {
    const a = heat.edges_ms[i], b = heat.edges_ms[i + 1];
    if (b <= low || a >= high) continue;
    const from = (Math.log(Math.max(a, 1e-6)) - l0) * per, to = Math.max((Math.log(b) - l0) * per, from + 1e-6);
    for (let k = Math.max(0, Math.floor(from)); k < Math.min(rows, to); k++) cells[k] += (n * (Math.min(to, k + 1) - Math.max(from, k))) / (to - from);
  }
  return cells;
};
const ramp = () => {
  const stops = [0, 1, 2, 3, 4].map((i) => css(`--h${i}`).match(/[\da-f]{2}/gi).map((p) => parseInt(p, 16)));
  return (share) => {
    const at = clamp(share, 0, 1) * 4, k = Math.min(3, Math.floor(at));
    return stops[k].map((s, j) => Math.round(s + (stops[k + 1][j] - s) * (at - k)));
  };
};
/** The colour of a cell as a share of the ramp, from what it means. */
const scaleOf = (columns, percents) => {
  let most = 0;
  for (const c of columns) for (const n of c.cells) most = Math.max(most, percents ? n / c.of : n);
  const low = percents ? SHARE_MIN : 1, whole = Math.log(Math.max(most, low * 2) / low);
  return { most, low, share: (n, of) => Math.log(Math.max(percents ? n / of : n, low) / low) / whole };
};
const picture = (columns, rows, from, step, scale, percents) => {
  const width = Math.round((columns[columns.length - 1].t - from) / step) + 1, canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = rows;
  const g = canvas.getContext('2d'), colour = ramp(), image = g.createImageData(width, rows);
  for (const c of columns) {
    const x = Math.round((c.t - from) / step);
    c.cells.forEach((n, k) => {
      if (n < (percents ? 1e-9 : 0.005)) return;
      image.data.set([...colour(scale.share(n, c.of)), 255], ((rows - 1 - k) * width + x) * 4);
    });
  }
  g.putImageData(image, 0, 0);
  return { url: canvas.toDataURL(), width };
};

const legend = (f, scale, percents) => {
  const colour = ramp(), x = f.left, y = 20, id = `${f.node.id}-ramp`, g = f.add('linearGradient', { id });
  for (let i = 0; i <= 4; i++) g.append(svg('stop', { offset: i / 4, 'stop-color': `rgb(${colour(i / 4)})` }));
  const low = percents ? percent(scale.low) : '1', high = percents ? `${percent(scale.most)} of a step` : `${count(Math.ceil(scale.most))} samples`;
  const start = x + low.length * 6.6 + 4;
  f.add('text', { x, y: y + 9 }, low);
  f.add('rect', { x: start, y, width: 90, height: 10, rx: 2, fill: `url(#${id})`, class: 'ramp' });
  f.add('text', { x: start + 96, y: y + 9 }, `${high} a cell`);
  const key = start + 96 + (high.length + 7) * 6.4 + 12;
  if (key + 40 > f.w) return;
  f.add('line', { class: 'halo', x1: key, x2: key + 18, y1: y + 5, y2: y + 5 });
  f.add('line', { class: 'p99', x1: key, x2: key + 18, y1: y + 5, y2: y + 5 });
  f.add('text', { x: key + 22, y: y + 9 }, 'p99');
};
/** p99 over it: of each step, or where those have too few samples, of the wider steps of the lines. */
const p99Of = (columns, step, lines) => {
  const own = columns.map((c) => ({ t: c.t + step / 2, v: c.p99_ms })).filter((p) => p.v != null);
  if (!lines || own.length * 2 >= columns.length) return { points: own, step };
  const wide = lines.step_s * 1000, points = lines.series.flatMap((s) => s.points).map((p) => ({ t: Date.parse(p.t) + wide / 2, v: (p.quantiles['0.99'] || {}).value_ms }));
  return { points: points.filter((p) => p.v != null), step: wide };
};
const p99 = (f, { points, step }) => {
  const inside = points.filter((p) => p.t >= f.from && p.t <= f.to);
  for (const run of plot.runs(inside, () => true, (a, b) => b.t - a.t <= step * 1.5)) {
    const middle = run.map((p) => [f.x(p.t), f.y(p.v)]);
    if (middle.length === 1) middle.push([middle[0][0] + 2, middle[0][1]]);
    for (const style of ['halo', 'p99']) f.add('path', { class: style, d: plot.path(middle) });
  }
};

/** Draws `doc.heat` into this SVG; `doc` also names subject, span, limits and events. */
const paint = (node, note, doc, view) => {
  const heat = doc.heat, filled = heat ? heat.columns.filter((c) => c.buckets.length) : [];
  plot.note(note, filled.length ? '' : doc.note || (heat ? `No samples of this series ${doc.when}. Choose a longer time or another series.` : 'Loading…'));
  if (!filled.length) { node.replaceChildren(); attr(node, 'aria-label', 'Heat map: nothing to show'); return null; }
  const f = plot.frame(node, { subject: doc.subject }), step = heat.step_s * 1000, percents = view.cells === 'percent';
  const [low, high] = plot.around(...reach(heat, filled, view.zoom));
  const rows = Math.max(12, Math.round(f.ph / ROW_PX)), from = Math.max(doc.from, Math.min(Date.parse(filled[0].t), doc.to - 60000));
  const columns = filled.map((c) => ({ ...c, t: Date.parse(c.t), of: c.count, cells: cellsOf(heat, c, low, high, rows) }));
  plot.logY(f, low, high);
  // What was asked for as fixed stays as it is; a young series has no long past to leave empty.
  plot.timeX(f, doc.fixed ? doc.from : from, Math.max(doc.to, columns[columns.length - 1].t + step));
  plot.missing(f, heat.incomplete);
  const scale = scaleOf(columns, percents), t0 = columns[0].t;
  const { url, width } = picture(columns, rows, t0, step, scale, percents);
  const raw = (t) => f.left + ((t - f.from) / (f.to - f.from)) * f.pw;
  const clip = f.add('clipPath', { id: `${node.id}-clip` });
  clip.append(svg('rect', { x: f.left, y: f.top, width: f.pw, height: f.ph }));
  f.add('image', { href: url, x: raw(t0), y: f.top, width: raw(t0 + width * step) - raw(t0), height: f.ph, preserveAspectRatio: 'none', class: 'cells', 'clip-path': `url(#${node.id}-clip)` });
  p99(f, p99Of(columns, step, doc.lines));
  for (const l of doc.limits) plot.limit(f, l.limit_ms, `${l.quantile} limit ${tick(l.limit_ms)}`);
  plot.events(f, doc.events);
  legend(f, scale, percents);
  const newest = columns[columns.length - 1];
  attr(node, 'aria-label', `Heat map of ${doc.subject}: latencies from ${tick(low)} to ${tick(high)} ${doc.when}; newest p99 ${ms(newest.p99_ms)} from ${newest.count} samples.`);
  f.step = step;
  return { f, columns, rows, step };
};
/** Draws the chosen series, and takes the reader's hands. */
export const draw = (doc, view) => {
  const node = $('#heat');
  drawn = paint(node, '#heat-note', doc, view);
  if (!drawn) return;
  attr(node, 'aria-label', `${node.getAttribute('aria-label')} Arrow keys read it step by step, shift with them selects a time, Enter looks at just that.`);
  hands.repaint();
};
/** Draws another one, to look at only. */
export const still = (node, note, doc, view) => { paint(node, note, doc, view); };

const sentence = (t, py) => {
  const { f, columns, rows, step } = drawn, c = columns.find((c) => c.t <= t && t < c.t + step);
  if (!c) return `${clock(t)}: no samples`;
  let more = '';
  if (py != null && py >= f.top && py <= f.top + f.ph) {
    const k = clamp(Math.floor(((f.top + f.ph - py) / f.ph) * rows), 0, rows - 1), v = (i) => f.low * (f.high / f.low) ** (i / rows);
    more = `, ${count(Math.round(c.cells[k]))} (${percent(c.cells[k] / c.of)}) between ${ms(v(k))} and ${ms(v(k + 1))}`;
  }
  return `${clock(c.t)}: ${count(c.count)} samples, p99 ${ms(c.p99_ms)}${more}`;
};
const hands = plot.brush($('#heat'), $('#heat-read'), () => drawn && drawn.f, sentence);

/** What is drawn, as rows for a file. */
export const rows = (doc) => {
  const { edges_ms: edges, columns } = doc.heat || { columns: [] };
  const all = columns.flatMap((c) => c.buckets.map(([i, n]) => [c.t, edges[i], edges[i + 1], n]));
  return [['t', 'from_ms', 'to_ms', 'count'], ...all];
};
