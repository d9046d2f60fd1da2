// What a verdict rests on: counts, windows, the statistic and its bounds, and the rule in words.

import { $, badge, el, table, text } from './dom.js';
import { age, change, count, interval, judged, keyOf, moment, ms, nameOf, three, times, why } from './format.js';
import { curl, question } from './ask.js';

const fact = (list, name, value, more) => {
  if (value == null || value === '') return;
  list.append(el('div', '', el('dt', '', name), el('dd', '', value, more ? el('small', '', ` ${more}`) : null)));
};
const facts = () => el('dl', 'pairs');

/** The rule, in words, with the numbers that are in force. */
const rule = (r) => `p99 is to be at most ${r.ratio_max} times p95. It is judged on disjoint windows of nine widths, 10 s to 2,560 s, by a likelihood-ratio test: a window speaks against the rule when its samples are further from any distribution that keeps it than chance allows, so many standard deviations that one false alarm is to be expected in 30 days of this series. A window below ${count(r.evidence.floor)} samples is not judged, nor is a p99 under ${ms(r.evidence.absolute_floor_ms)}.`;

const statistic = (r) => {
  const list = facts(), d = r.evidence.decided;
  fact(list, 'samples in the window', `${r.evidence.samples}`, `last ${age(r.evidence.window_s)}; a verdict needs ${r.evidence.floor}`);
  fact(list, 'p95', ms(r.p95.value_ms), interval(r.p95) || r.p95.reason);
  fact(list, 'p99', ms(r.p99.value_ms), interval(r.p99) || r.p99.reason);
  fact(list, 'p99/p95', times(r.ratio), r.ratio == null ? r.reason : r.ratio_low == null ? 'no interval below 368 samples' : `95 % interval ${three(r.ratio_low)} to ${r.ratio_high == null ? 'no bound' : three(r.ratio_high)}; limit ${r.ratio_max}`);
  if (d) {
    const holds = r.verdict === 'violation' ? 'the window that showed the violation' : 'the window that spoke last';
    fact(list, 'decided on', `${d.window_s} s from ${moment(d.from)}`, `${holds}, ${count(d.samples)} samples`);
    fact(list, 'statistic', d.z == null ? 'beyond range' : `z = ${d.z.toFixed(2)}`, `a violation needs ${d.z_needed.toFixed(2)}; positive speaks against the rule`);
    fact(list, 'overdispersion φ', d.phi.toFixed(2), 'so many samples count as one, estimated from this series');
  } else fact(list, 'decided on', 'no window yet', 'none had samples enough');
  fact(list, 'windows in a row', `${r.consecutive_windows}`, 'disjoint, up to the newest, that speak against the rule');
  if (r.since) fact(list, 'since', moment(r.since), `${age((Date.now() - Date.parse(r.since)) / 1000)} ago`);
  fact(list, 'hosts', `${r.hosts}`, `last sample ${age(r.age_s)} ago`);
  return list;
};
const future = (r) => {
  const list = facts(), t = r.trend, f = r.forecast, signed = (x) => `${x < 0 ? '−' : '+'}${three(Math.abs(x))}`;
  fact(list, 'trend', t ? t.trend : 'not known', t ? `${signed(t.slope_per_h)} an hour (99 % interval ${signed(t.slope_low_per_h)} to ${signed(t.slope_high_per_h)}), z = ${t.z.toFixed(2)}, ${t.points} points over ${three(t.span_h)} h` : 'fewer than 18 points of 320 s with 1,000 samples each');
  if (t) fact(list, 'advice', t.recommendation);
  fact(list, 'time to violation', f ? `${three(f.time_to_violation_h)} h` : 'none foreseen', f ? `between ${three(f.earliest_h)} h and ${three(f.latest_h)} h` : 'no rise beyond chance that would reach the limit within a day');
  fact(list, 'drift', r.drift == null ? 'not known' : r.drift ? 'very slow requests became more' : 'none', r.drift == null ? 'no hour with 20,000 samples yet to compare with' : 'against the first hour');
  return list;
};

/** Fills the dialog with the evidence of a row. `snap` is the snapshot it is of. */
export const fill = (dialog, r, snap) => {
  badge($('.v', dialog), judged(r));
  text($('h2', dialog), nameOf(r));
  text($('.why', dialog), why(r));
  const body = $('.body', dialog), parts = [el('h3', '', 'The rule'), el('p', 'prose', rule(r)), el('h3', '', 'What was measured'), statistic(r)];
  if (r.slo.length) {
    parts.push(el('h3', '', 'Limits of the stage'), table('Limits of the stage', ['quantile', '#value', '#limit', 'stands'], r.slo.map((l) => [l.quantile, ms(l.value_ms), ms(l.limit_ms), `${judged({ verdict: l.state })[1]}${l.reason ? `: ${l.reason}` : ''}`])));
  }
  const other = snap.rows.find((x) => x.slice === r.slice && x.stage === r.stage && x.arm !== r.arm);
  if (other) {
    const [base, canary] = r.arm === 'canary' ? [other, r] : [r, other];
    const line = (name) => [name, ms(base[name].value_ms), ms(canary[name].value_ms), change(canary[name].value_ms, base[name].value_ms)];
    parts.push(el('h3', '', 'Both arms'), table('Both arms', ['quantile', '#baseline', '#canary', '#canary is slower by'], ['p50', 'p95', 'p99'].map(line)));
  }
  parts.push(el('h3', '', 'Where it is going'), future(r));
  if (snap.incomplete.length) {
    const gaps = snap.incomplete.map((g) => [g.agent, moment(g.from), g.to ? moment(g.to) : 'now']);
    parts.push(el('h3', '', 'Not accounted for in this window'), table('Not accounted for', ['agent', 'from', 'to'], gaps));
  }
  // Rewritten each second: only where something changed, so that selections and focus stay.
  const key = JSON.stringify([keyOf(r), r.count, r.verdict, r.reason, r.evidence, r.slo, snap.incomplete, Math.floor(r.age_s / 5)]);
  if (body.dataset.key !== key) { body.dataset.key = key; body.replaceChildren(...parts); }
};
export const command = (r) => curl(question('/api/v1/tail', { slice: r.slice, stage: r.stage, arm: r.arm }));
