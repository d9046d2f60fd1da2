// Tiles and the table of all series: one DOM node a row, kept by its data-key and only filled anew.

import { $, $$, attr, badge, keyed, stamp, text } from './dom.js';
import { STAGES, WORST, age, change, clock, count, interval, judged, keyOf, ms, overLimit, rate, times, why } from './format.js';
import { view } from './address.js';

const ORDER = Object.keys(STAGES);
export const inOrder = (a, b) => (a.slice < b.slice ? -1 : a.slice > b.slice ? 1 : ORDER.indexOf(a.stage) - ORDER.indexOf(b.stage) || (a.arm < b.arm ? -1 : 1));
export const chosenKey = () => `${view.slice}|${view.stage}|${view.arm}`;

/** Gives each canary row its baseline's p99 to stand beside, as `delta`. */
export const compare = (rows) => {
  const baselines = new Map(rows.filter((r) => r.arm === 'baseline').map((r) => [`${r.slice}|${r.stage}`, r]));
  for (const r of rows) {
    const base = r.arm === 'canary' ? baselines.get(`${r.slice}|${r.stage}`) : null, x = r.p99.value_ms, y = base && base.p99.value_ms;
    r.delta = x != null && y ? x / y - 1 : null;
    r.deltaWhy = r.arm !== 'canary' ? 'the canary’s rows hold the difference' : !base ? 'no baseline of this stage' : r.delta == null ? 'too few samples for p99 in one of the arms' : `canary ${interval(r.p99)}, baseline ${interval(base.p99)}`;
  }
};

const number = (td, shown, title) => {
  text($('span', td), shown);
  attr(td, 'title', title);
  text($('.vh', td), shown === '–' ? ` not measured: ${title}` : '');
};
const fillRow = (tr, r) => {
  attr(tr, 'aria-current', keyOf(r) === chosenKey() ? 'true' : '');
  const hot = overLimit(r).map((l) => l.quantile);
  if (r.verdict === 'violation') hot.push('ratio');
  for (const td of $$('td.num', tr)) {
    const f = td.dataset.f, v = r[f];
    td.classList.toggle('hot', hot.includes(f));
    if (f[0] === 'p') {
      number(td, ms(v.value_ms), v.reason || (interval(v) && `95 % interval ${interval(v)}`));
    } else if (f === 'ratio') number(td, times(v), v == null ? r.reason : `${r.ratio_low == null ? '' : `95 % interval ${times(r.ratio_low)} to ${times(r.ratio_high)}, `}limit ${r.ratio_max}`);
    else if (f === 'delta') number(td, r.delta == null ? '–' : change(1 + r.delta, 1), r.deltaWhy);
    else if (f === 'count') number(td, count(v), `${v} in the window, ${r.merged_total} ever`);
    else if (f === 'rate') number(td, rate(r.rate_per_s), r.rate_per_s == null ? 'too early' : '');
    else if (f === 'age') number(td, age(r.age_s), `last sample ${clock(r.last_seen)}`);
    else number(td, String(v), '');
  }
  badge($('.v', tr), judged(r), why(r));
};
const made = (id, r, label) => {
  const tr = stamp(id);
  $('th button', tr).textContent = label;
  tr.dataset.stage = r.stage;
  tr.dataset.arm = r.arm;
  attr($('td button', tr), 'aria-label', `evidence of ${r.slice} ${STAGES[r.stage]} ${r.arm}`);
  return tr;
};
const makeMini = (r) => {
  const tr = made('#t-mini', r, r.sub ? `↳ ${r.arm}` : STAGES[r.stage] + (r.arm === 'canary' ? ' canary' : ''));
  tr.classList.toggle('sub', r.sub);
  return tr;
};
const makeRow = (r) => {
  const tr = made('#t-row', r, r.slice);
  $('[data-f=stage]', tr).textContent = STAGES[r.stage];
  $('[data-f=arm]', tr).textContent = r.arm;
  return tr;
};
const match = (key) => view.q.toLowerCase().split(/\s+/).every((word) => key.toLowerCase().includes(word));
const matchRow = (r) => match(`${keyOf(r)} ${STAGES[r.stage]} ${judged(r)[1]}`);

const column = (r, c) => {
  if (c === 'stage') return ORDER.indexOf(r.stage);
  if (c === 'verdict') return WORST.indexOf(judged(r)[0]);
  const v = r[{ rate: 'rate_per_s', age: 'age_s' }[c] || c];
  return v && v.reason !== undefined ? v.value_ms : v;
};
/** Sorted as chosen; what was not measured stands last either way. */
const sorted = (rows) => {
  const [, down, c] = /^(-?)(.*)$/.exec(view.sort);
  return !c ? rows : [...rows].sort((a, b) => {
    const x = column(a, c), y = column(b, c);
    return x == null || y == null ? (x == null) - (y == null) : (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
  });
};
export const freshest = (rows) => (rows.length ? `${age(Math.min(...rows.map((r) => r.age_s)))} ago` : 'never');

export const show = (snap) => {
  const rows = snap.rows.filter(matchRow), slices = new Map(snap.slices.filter((s) => match(s)).map((s) => [s, []]));
  for (const r of rows) slices.set(r.slice, [...(slices.get(r.slice) || []), r]);
  keyed($('#tiles'), [...slices].sort((a, b) => (a[0] < b[0] ? -1 : 1)), (s) => s[0], () => stamp('#t-tile'), (tile, [slice, of]) => {
    text($('h3', tile), slice);
    const all = of.map(judged).sort((a, b) => WORST.indexOf(a[0]) - WORST.indexOf(b[0]));
    attr(tile, 'data-v', all.length ? all[0][0] : 'insufficient_data');
    badge($('header .v', tile), all[0] || ['insufficient_data', 'few samples']);
    text($('header small', tile), `seen ${freshest(of)}`.replace('seen never', 'never seen'));
    let before = null;
    for (const r of of) { r.sub = r.arm === 'canary' && before === r.stage; before = r.stage; }
    keyed($('tbody', tile), of, (r) => keyOf(r) + (r.sub ? '+' : ''), makeMini, fillRow);
  });
  keyed($('#rows'), sorted(rows), keyOf, makeRow, fillRow);
  text($('#shown'), rows.length === snap.rows.length ? `${rows.length} series` : `${rows.length} of ${snap.rows.length} series`);
  $('#nomatch').hidden = slices.size > 0;
  for (const th of $$('#all thead th')) {
    attr(th, 'aria-sort', view.sort === th.dataset.c ? 'ascending' : view.sort === `-${th.dataset.c}` ? 'descending' : '');
  }
};
/** The next order of a column: words begin ascending, numbers descending, the third is none. */
export const nextSort = (c) => {
  const words = ['slice', 'stage', 'arm', 'verdict'].includes(c), cycle = words ? [c, `-${c}`, ''] : [`-${c}`, c, ''];
  return cycle[(cycle.indexOf(view.sort) + 1) % 3];
};
/** The table as shown, as rows for a file. */
export const forFile = (snap) => {
  const head = ['slice', 'stage', 'arm', 'count', 'rate_per_s', 'p50_ms', 'p95_ms', 'p99_ms', 'p99_9_ms', 'ratio', 'ratio_low', 'ratio_high', 'p99_delta', 'verdict', 'age_s', 'hosts'];
  return [head, ...sorted(snap.rows.filter(matchRow)).map((r) => [r.slice, r.stage, r.arm, r.count, r.rate_per_s, r.p50.value_ms, r.p95.value_ms, r.p99.value_ms, r.p99_9.value_ms, r.ratio, r.ratio_low, r.ratio_high, r.delta, judged(r)[1], r.age_s, r.hosts])];
};
