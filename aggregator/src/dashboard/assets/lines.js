// Quantiles over time with their 95 % intervals and limits, and the ratio p99/p95 with its.
//
// A line is broken where a step had too few samples for the quantile: what was not measured is not
// joined up. A band that is open above is drawn to the plot's edge.

import { $, attr } from './dom.js';
import { clock, count, interval, ms, three, tick, times } from './format.js';
import * as plot from './plot.js';

export const QUANTILES = ['0.5', '0.95', '0.99', '0.999'];
const NAMES = { 0.5: 'p50', 0.95: 'p95', 0.99: 'p99', 0.999: 'p99.9' };

const pointsOf = (doc) => (doc.lines ? doc.lines.series.flatMap((s) => s.points).map((p) => ({ ...p, t: Date.parse(p.t) })) : []);
const empty = (doc, points, what) => doc.note || (!doc.lines ? 'Loading…' : points.length ? what : `No samples of this series ${doc.when}.`);
const span = (doc, points) => [doc.fixed ? doc.from : Math.max(doc.from, Math.min(points[0].t, doc.to - 60000)), doc.to];

/** One line with its band. `get` gives `{value, low, high}` of a point. */
const line = (f, points, step, get, style) => {
  const follows = (a, b) => b.t - a.t <= step * 1.5, x = (p) => f.x(Math.min(p.t + step / 2, f.to));
  for (const run of plot.runs(points, (p) => get(p).value != null, follows)) {
    const edges = run.filter((p) => get(p).low != null);
    f.add('path', { class: `band ${style}`, d: plot.area(edges.map((p) => [x(p), f.y(get(p).high ?? f.high)]), edges.map((p) => [x(p), f.y(get(p).low)])) });
    const middle = run.map((p) => [x(p), f.y(get(p).value)]);
    if (middle.length === 1) {
      // A step alone: its interval stands as a bar.
      for (const p of edges) f.add('line', { class: `curve thin ${style}`, x1: x(p), x2: x(p), y1: f.y(get(p).high ?? f.high), y2: f.y(get(p).low) });
      f.add('circle', { class: `dot ${style}`, cx: middle[0][0], cy: middle[0][1], r: 2.5 });
    } else f.add('path', { class: `curve ${style}`, d: plot.path(middle) });
  }
};

// ---- quantiles

let quantiles = null;
export const draw = (doc) => {
  const node = $('#lines'), points = pointsOf(doc);
  const of = (q) => (p) => { const v = p.quantiles[q] || {}; return { value: v.value_ms, low: v.low_ms, high: v.high_ms }; };
  const values = points.flatMap((p) => QUANTILES.map((q) => of(q)(p)).filter((v) => v.value != null).flatMap((v) => [v.low ?? v.value, v.value, v.high ?? v.value])).filter((v) => v > 0);
  const few = 'Every step has too few samples for a quantile. Choose a longer time: its steps are wider.';
  plot.note('#lines-note', values.length ? '' : empty(doc, points, few));
  quantiles = null;
  if (!values.length) { node.replaceChildren(); return attr(node, 'aria-label', 'Quantiles over time: nothing to show'); }
  const f = plot.frame(node, { subject: doc.subject, right: 52, top: 34 }), step = doc.lines.step_s * 1000;
  const near = doc.limits.map((l) => l.limit_ms).filter((v) => v < 4 * Math.max(...values) && v > Math.min(...values) / 4);
  plot.logY(f, ...plot.around(Math.min(...values, ...near), Math.max(...values, ...near)));
  plot.timeX(f, ...span(doc, points));
  plot.missing(f, doc.lines.incomplete);
  for (const q of QUANTILES) line(f, points, step, of(q), `q${q.slice(2)}`);
  for (const l of doc.limits) plot.limit(f, l.limit_ms, `${l.quantile} limit ${tick(l.limit_ms)}`);
  plot.events(f, doc.events);
  const labels = QUANTILES.flatMap((q) => {
    const last = points.findLast((p) => of(q)(p).value != null);
    return last ? [{ y: f.y(of(q)(last).value) + 4, words: NAMES[q], style: `q${q.slice(2)}` }] : [];
  });
  for (const l of plot.apart(f, labels)) f.add('text', { class: l.style, x: f.left + f.pw + 6, y: l.y }, l.words);
  const last = points[points.length - 1];
  attr(node, 'aria-label', `Quantiles of ${doc.subject} over time ${doc.when}, steps of ${doc.lines.step_s} s; in the newest step ${QUANTILES.map((q) => `${NAMES[q]} ${ms(of(q)(last).value)}`).join(', ')}. Arrow keys read it step by step.`);
  f.step = step;
  quantiles = { f, points, step };
  quantileHands.repaint();
};
const at = (drawn, t) => drawn.points.find((p) => p.t <= t && t < p.t + drawn.step);
const quantileHands = plot.brush($('#lines'), $('#lines-read'), () => quantiles && quantiles.f, (t) => {
  const p = at(quantiles, t);
  if (!p) return `${clock(t)}: no samples`;
  const each = QUANTILES.map((q) => { const v = p.quantiles[q] || {}; return `${NAMES[q]} ${ms(v.value_ms)}${interval(v) ? ` (${interval(v)})` : ''}`; });
  return `${clock(p.t)}: ${count(p.count)} samples; ${each.join(', ')}`;
});

// ---- ratio

let ratios = null;
export const drawRatio = (doc) => {
  const node = $('#ratio'), points = pointsOf(doc), of = (p) => ({ value: p.ratio, low: p.ratio_low, high: p.ratio_high });
  const shown = points.filter((p) => p.ratio != null), few = 'Every step has fewer than the 368 samples that p99 needs. Choose a longer time: its steps are wider.';
  plot.note('#ratio-note', shown.length ? '' : empty(doc, points, few));
  ratios = null;
  if (!shown.length) { node.replaceChildren(); return attr(node, 'aria-label', 'Ratio over time: nothing to show'); }
  const f = plot.frame(node, { subject: doc.subject, right: 52, top: 34 }), step = doc.lines.step_s * 1000;
  const most = Math.max(doc.ratioMax * 1.25, ...shown.map((p) => p.ratio * 1.1), Math.min(12, ...[Math.max(...shown.map((p) => p.ratio_high ?? 0)) * 1.02]));
  const every = most > 16 ? 5 : most > 6 ? 2 : most > 4 ? 1 : 0.5, steps = [];
  for (let v = 1; v <= most; v += every) steps.push(v);
  plot.linearY(f, 1, most, steps, (v) => `${+v.toFixed(1)}×`);
  plot.timeX(f, ...span(doc, points));
  plot.missing(f, doc.lines.incomplete);
  line(f, points, step, of, 'q99');
  plot.limit(f, doc.ratioMax, `limit ${doc.ratioMax.toFixed(1)}`);
  plot.events(f, doc.events);
  const last = shown[shown.length - 1];
  f.add('text', { class: 'q99', x: f.left + f.pw + 6, y: f.y(last.ratio) + 4 }, times(last.ratio));
  attr(node, 'aria-label', `Ratio p99/p95 of ${doc.subject} over time ${doc.when}; newest ${times(last.ratio)}${last.ratio_low != null ? `, 95 % interval from ${three(last.ratio_low)}${last.ratio_high == null ? '' : ` to ${three(last.ratio_high)}`}` : ''}; limit ${doc.ratioMax}. Arrow keys read it step by step.`);
  f.step = step;
  ratios = { f, points, step };
  ratioHands.repaint();
};
const ratioHands = plot.brush($('#ratio'), $('#ratio-read'), () => ratios && ratios.f, (t) => {
  const p = at(ratios, t);
  if (!p) return `${clock(t)}: no samples`;
  if (p.ratio == null) return `${clock(p.t)}: ${count(p.count)} samples, too few for a ratio`;
  return `${clock(p.t)}: ${count(p.count)} samples; p99/p95 ${times(p.ratio)} (${p.ratio_low == null ? 'no lower bound' : times(p.ratio_low)} to ${p.ratio_high == null ? 'no upper bound' : times(p.ratio_high)})`;
});

/** What is drawn, as rows for a file. */
export const rows = (doc) => {
  const head = ['t', 'count', ...QUANTILES.flatMap((q) => [`${NAMES[q]}_ms`, `${NAMES[q]}_low_ms`, `${NAMES[q]}_high_ms`])];
  return [head, ...pointsOf(doc).map((p) => [new Date(p.t).toISOString(), p.count, ...QUANTILES.flatMap((q) => { const v = p.quantiles[q] || {}; return [v.value_ms, v.low_ms, v.high_ms]; })])];
};
export const ratioRows = (doc) => [['t', 'count', 'ratio', 'ratio_low', 'ratio_high'], ...pointsOf(doc).map((p) => [new Date(p.t).toISOString(), p.count, p.ratio, p.ratio_low, p.ratio_high])];
