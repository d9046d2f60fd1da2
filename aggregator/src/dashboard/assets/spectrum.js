// Latency by percentile, both arms: the logarithm of 1/(1-q) across, the logarithm of latency up.
//
// A curve is solid as far as its quantiles have 95 % intervals, which are drawn as its band, and
// thin from there to the largest sample, where the value is what was seen and nothing more. Between
// two solid curves the difference is shaded in the colour of the slower arm.

import { $, attr, table, text } from './dom.js';
import { ARMS, change, clamp, interval, ms } from './format.js';
import * as plot from './plot.js';

const TICKS = [0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999];
const SHOWN = [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999];
/** Where the tail begins: p95. */
const TAIL = -Math.log10(0.05);
const nines = (q) => -Math.log10(1 - q);
const named = (q) => `p${+(q * 100).toPrecision(7)}`;

/** The middle of the bucket that holds rank ceil(q·n). */
const seenAt = (d, q) => {
  const rank = clamp(Math.ceil(q * d.count - 1e-9), 1, d.count);
  let seen = 0;
  for (const [a, b, n] of d.buckets) { seen += n; if (seen >= rank) return (a + b) / 2; }
  return null;
};
/** The measured quantile nearest to q, if there is one. */
const measuredAt = (d, q) => {
  const near = d.quantiles.reduce((best, p) => (Math.abs(nines(p.q) - nines(q)) < Math.abs(nines(best.q) - nines(q)) ? p : best));
  return near.value_ms == null ? null : near;
};
const curveOf = (arm, d, from) => {
  const solid = d.quantiles.filter((p) => p.value_ms != null).map((p) => ({ e: nines(p.q), v: p.value_ms, low: p.low_ms, high: p.high_ms }));
  const sure = solid.length ? solid[solid.length - 1].e : 0, far = Math.log10(Math.max(2, d.count)), thin = [];
  for (let i = 0; i <= 60; i++) { const e = sure + ((far - sure) * i) / 60; thin.push({ e, v: seenAt(d, 1 - 10 ** -e) }); }
  const inside = (points) => points.filter((p) => p.e >= from - 1e-9 && p.v != null);
  return { arm, d, solid: inside(solid), thin: far > sure ? inside(thin) : [] };
};
const shade = (f, [a, b]) => {
  const both = a.solid.flatMap((p, i) => {
    const other = b.solid.find((o) => Math.abs(o.e - p.e) < 1e-6);
    return other ? [{ e: p.e, base: p.v, can: other.v, i }] : [];
  });
  for (const [style, holds] of [['canary', (p) => p.can >= p.base], ['baseline', (p) => p.can <= p.base]]) {
    for (const run of plot.runs(both, holds, (p, o) => o.i === p.i + 1)) {
      f.add('path', { class: `shade ${style}`, d: plot.area(run.map((p) => [f.x(p.e), f.y(p.can)]), run.map((p) => [f.x(p.e), f.y(p.base)])) });
    }
  }
};
const across = (f, from, to) => {
  f.x = (e) => f.left + ((e - from) / (to - from)) * f.pw;
  let free = -Infinity;
  for (const q of TICKS) {
    const e = nines(q), label = `${+(q * 100).toPrecision(7)}`, half = label.length * 3.6;
    if (e < from - 1e-9 || e > to + 1e-9) continue;
    f.add('line', { class: 'grid', x1: f.x(e), x2: f.x(e), y1: f.top, y2: f.top + f.ph + 4 });
    if (f.x(e) - half < free + 6) continue;
    free = f.x(e) + half;
    f.add('text', { x: f.x(e), y: f.h - 6, 'text-anchor': 'middle' }, label);
  }
  f.add('line', { class: 'axis', x1: f.left, x2: f.left + f.pw, y1: f.top + f.ph, y2: f.top + f.ph });
};

/** Draws the arms of `doc.arms` that have samples. */
export const draw = (doc, view) => {
  const node = $('#spectrum'), arms = ARMS.filter((arm) => doc.arms && doc.arms[arm] && doc.arms[arm].count > 0);
  plot.note('#spec-note', arms.length ? '' : doc.note || (doc.arms ? `No samples to take percentiles of ${doc.when}.` : 'Loading…'));
  $('#spec-table').hidden = !arms.length;
  node.replaceChildren();
  if (!arms.length) return attr(node, 'aria-label', 'Latency by percentile: nothing to show');
  const most = Math.max(...arms.map((arm) => doc.arms[arm].count)), to = clamp(Math.ceil(Math.log10(most) * 2) / 2, 2, 5);
  const from = view.view === 'tail' ? Math.min(TAIL, to - 0.5) : 0, curves = arms.map((arm) => curveOf(arm, doc.arms[arm], from));
  const values = curves.flatMap((c) => [...c.solid, ...c.thin].map((p) => Math.max(p.v, 1e-5)));
  const near = doc.limits.map((l) => l.limit_ms).filter((v) => v < 3 * Math.max(...values) && v > Math.min(...values));
  const f = plot.frame(node, { subject: doc.place, right: 64, top: 34 });
  plot.logY(f, ...plot.around(Math.min(...values), Math.max(...values, ...near)));
  across(f, from, to);
  if (curves.length === 2) shade(f, curves);
  const labels = [];
  for (const { arm, solid, thin } of curves) {
    const banded = solid.filter((p) => p.low != null && p.high != null), point = (p) => [f.x(p.e), f.y(p.v)];
    f.add('path', { class: `band ${arm}`, d: plot.area(banded.map((p) => [f.x(p.e), f.y(p.high)]), banded.map((p) => [f.x(p.e), f.y(p.low)])) });
    if (thin.length) f.add('path', { class: `curve thin ${arm}`, d: plot.path([...solid.slice(-1), ...thin].map(point)) });
    f.add('path', { class: `curve ${arm}`, d: plot.path(solid.map(point)) });
    const tip = (thin.length ? thin : solid).slice(-1)[0];
    if (tip) labels.push({ y: f.y(tip.v) + 4, x: Math.min(f.x(tip.e) + 6, f.left + f.pw + 6), arm });
  }
  for (const l of doc.limits) plot.limit(f, l.limit_ms, `${l.quantile} limit ${ms(l.limit_ms)}`);
  for (const l of plot.apart(f, labels)) f.add('text', { class: `${l.arm} haloed`, x: l.x, y: l.y }, l.arm);
  asTable(curves);
  attr(node, 'aria-label', `Latency by percentile of ${doc.place} ${doc.when}: ${curves.map((c) => `${c.arm} p50 ${ms(seenAt(c.d, 0.5))}, p99 ${ms(seenAt(c.d, 0.99))}`).join('; ')}. The table below holds the values.`);
};
const asTable = (curves) => {
  const both = curves.length === 2;
  const lines = SHOWN.map((q) => {
    const got = curves.map((c) => measuredAt(c.d, q));
    const cells = got.map((v) => (v ? `${ms(v.value_ms)}${interval(v) ? ` (${interval(v)})` : ''}` : 'too few samples'));
    return [named(q), ...cells, ...(both ? [got[0] && got[1] ? change(got[1].value_ms, got[0].value_ms) : '–'] : [])];
  });
  const heads = ['percentile', ...curves.map((c) => `#${c.arm}`), ...(both ? ['#change'] : [])];
  $('#spec-table .scroll').replaceChildren(table('Latency by percentile, 95 % interval in brackets', heads, lines));
  text($('#spec-count'), curves.map((c) => `${c.arm} ${c.d.count}`).join(', '));
};

/** What is drawn, as rows for a file. */
export const rows = (doc) => [['arm', 'q', 'value_ms', 'low_ms', 'high_ms'], ...ARMS.flatMap((arm) => (doc.arms && doc.arms[arm] ? doc.arms[arm].quantiles.map((p) => [arm, p.q, p.value_ms, p.low_ms, p.high_ms]) : []))];
