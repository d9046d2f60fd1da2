// The rollout: share, both arms, evidence as it grows toward its bounds, what stands in the way,
// what was decided, and the kill switch behind a confirmation and its role.
//
// Evidence over time is what this page heard since it was opened, one point a look; the aggregator
// keeps decisions, not every look.

import { $, attr, badge, el, say, table, text } from './dom.js';
import { STAGES, age, change, count, moment, ms, percent, three } from './format.js';
import { allowed, ask, curl, tell } from './ask.js';
import * as plot from './plot.js';

/** Looks kept: an hour of one each 5 s. */
const LOOKS_MAX = 720;
const KILLED_DEFAULT = 'killed from the page';

let last = null, problem = '';
const looks = [];

/** A field of the status, wherever the answer holds it. */
const field = (name) => (last ? last[name] ?? (last.canary_deployment || {})[name] : undefined);

export const refresh = async () => {
  try {
    last = await ask('/canary/status');
    problem = '';
  } catch (e) {
    last = null;
    problem = e.status === 404 ? 'none' : `The rollout cannot be shown: ${e.message}.`;
  }
  const evidence = field('evidence');
  if (evidence && evidence.harm) {
    looks.push({ t: Date.now(), step: evidence.step, harm: evidence.harm.ln_e / evidence.harm.bound, shown: evidence.promotion.ln_e / evidence.promotion.bound });
    looks.splice(0, looks.length - LOOKS_MAX);
  }
  show();
};

// ---- what it says

const STATES = { running: 'ok', complete: 'ok', completed: 'ok', idle: 'insufficient_data', killed: 'violation', rolled_back: 'violation', aborted: 'stale' };
const stateOf = (d) => {
  if (d.killSwitchEnabled) return ['violation', 'killed'];
  const said = field('state') || field('phase');
  if (typeof said === 'string') return [STATES[said] || 'insufficient_data', said.replace(/_/g, ' ')];
  return d.trafficPercentage > 0 && d.trafficPercentage < 100 ? ['ok', 'running'] : d.trafficPercentage >= 100 ? ['ok', 'complete'] : ['insufficient_data', 'no traffic'];
};
const show = () => {
  const d = last && last.canary_deployment, none = !d;
  $('#canary-none').hidden = !none;
  $('#canary-body').hidden = none;
  text($('#canary-none'), problem && problem !== 'none' ? problem : 'No rollout: this aggregator moves no canary. When one is started, with POST /canary/start, its share, its evidence and what stands in its way appear here.');
  text($('#canary-say'), none ? '' : `generation ${field('generation') ?? '–'}`);
  showKill(d);
  if (none) return;
  badge($('#canary-state'), stateOf(d));
  const dwell = field('dwell_remaining_s');
  text($('#canary-share'), `${d.trafficPercentage} %`);
  attr($('#canary-bar'), 'value', d.trafficPercentage);
  const facts = [['next step', d.nextStage], ['version', field('version')], ['earliest in', dwell == null ? null : dwell > 0 ? age(dwell) : 'now'], ['assigns users', d.progressiveRollout ? 'yes' : 'no']];
  $('#canary-facts').replaceChildren(...facts.filter(([, v]) => v != null && v !== '').map(([name, value]) => el('div', '', el('dt', '', name), el('dd', '', `${value}`))));
  showBlockers();
  showEvidence();
  showArms();
  showHistory(d);
};
const showBlockers = () => {
  const evidence = field('evidence') || {}, all = [...(field('blockers') || []), ...(evidence.undecidable || []), ...(evidence.blockers || [])];
  const words = all.map((b) => (typeof b === 'string' ? { code: '', message: b } : b));
  const once = words.filter((b, i) => words.findIndex((o) => o.message === b.message) === i);
  $('#canary-blockers').replaceChildren(...once.map((b) => { const li = el('li', '', b.message); if (b.code) li.append(el('code', '', b.code)); return li; }));
  text($('#canary-free'), once.length ? `${once.length} things stand in the way of the next step:` : 'Nothing stands in the way of the next step but its evidence and dwell.');
};
const bar = (label, part, bound, style, more) => {
  const meter = el('meter', style);
  Object.assign(meter, { min: 0, max: 1, value: Math.max(0, Math.min(1, part / bound)) });
  attr(meter, 'aria-label', `${label}: ${three(Math.max(0, part))} of ${three(bound)}`);
  return el('li', '', el('span', 'name', label), meter, el('span', 'num', `ln E ${part < 0 ? '−' : ''}${three(Math.abs(part))} of ${three(bound)}`), more ? el('small', '', more) : null);
};
const leading = (l) => `most from ${l.metric} at ${STAGES[l.stage] || l.stage}${l.slice ? ` of ${l.slice}` : ''}`;
const showEvidence = () => {
  const e = field('evidence');
  $('#canary-evidence').hidden = !e || !e.harm;
  if (!e || !e.harm) return;
  const { harm, promotion } = e, bars = [bar('harm', harm.ln_e, harm.bound, 'harm', harm.leading ? leading(harm.leading) : '')];
  if (harm.without_host) bars.push(bar(`harm without ${harm.without_host.hosts.join(', ')}`, harm.without_host.ln_e, harm.without_host.bound, 'harm', 'a version is blamed only if this is reached, too'));
  for (const p of promotion.parts) bars.push(bar(`${p.stage ? STAGES[p.stage] || p.stage : 'quality'} ${p.metric} not worse`, p.ln_e, promotion.bound, 'good', p.metric === 'errors' ? `than a rate of ${percent(p.margin)}` : `than ${three(p.margin)}`));
  $('#canary-bars').replaceChildren(...bars);
  const notes = [`${e.windows_in_step} windows of 5 s in this step, ${e.windows} in all; ${e.hosts[0]} canary and ${e.hosts[1]} baseline hosts, ${String(e.spread).replace(/_/g, ' ')}.`, `Chance of so much evidence of harm if there is none: at most ${percent(harm.p_value)}.`];
  if (harm.breaker) notes.push(`The circuit is broken: ${harm.breaker.canary[0]} of ${harm.breaker.canary[1]} canary requests failed at ${harm.breaker.stage}.`);
  for (const slow of e.slow_hosts || []) notes.push(`Host ${slow.host} is slower than the others of the ${slow.arm} at ${slow.stage}.`);
  text($('#canary-notes'), notes.join(' '));
  overTime();
};
const overTime = () => {
  const node = $('#evidence-plot');
  plot.note('#evidence-note', looks.length > 1 ? '' : 'The evidence of each look is drawn here as the page hears it.');
  if (looks.length < 2) return node.replaceChildren();
  const f = plot.frame(node, { subject: 'share of its bound, since this page was opened', right: 84, top: 22 });
  const least = Math.min(-0.5, ...looks.map((l) => Math.min(l.harm, l.shown))), most = Math.max(1.2, ...looks.map((l) => Math.max(l.harm, l.shown)) );
  plot.linearY(f, Math.max(-3, least), Math.min(4, most), [-3, -2, -1, 0, 1, 2, 3, 4].filter((v) => v >= Math.max(-3, least) && v <= Math.min(4, most)), (v) => `${v * 100} %`);
  plot.timeX(f, looks[0].t, Math.max(looks[looks.length - 1].t, looks[0].t + 30000));
  plot.limit(f, 1, 'bound');
  const labels = [];
  for (const [name, style, words] of [['harm', 'canary', 'harm'], ['shown', 'baseline', 'not worse']]) {
    f.add('path', { class: `curve ${style}`, d: plot.path(looks.map((l) => [f.x(l.t), f.y(l[name])])) });
    labels.push({ y: f.y(looks[looks.length - 1][name]) + 4, words, style });
  }
  for (const l of plot.apart(f, labels)) f.add('text', { class: l.style, x: f.left + f.pw + 6, y: l.y }, l.words);
  const newest = looks[looks.length - 1];
  attr(node, 'aria-label', `Evidence over time: harm at ${Math.round(newest.harm * 100)} % of its bound, not worse at ${Math.round(newest.shown * 100)} %.`);
};
const showArms = () => {
  const e = field('evidence'), arms = e ? e.arms : [];
  $('#canary-arms').hidden = !arms.length;
  if (!arms.length) return;
  const stages = Object.keys(STAGES).filter((s) => arms.some((a) => a.stage === s));
  const of = (stage, arm) => arms.find((a) => a.stage === stage && a.arm === arm) || { samples: 0, requests: 0, errors: 0, quantiles: [] };
  const lines = stages.flatMap((stage) => {
    const [b, c] = [of(stage, 'baseline'), of(stage, 'canary')];
    const quantile = (a, q) => { const found = a.quantiles.find((x) => x.quantile === q); return found ? found.value_ms : null; };
    const line = (name, x, y, shown) => [`${STAGES[stage]} ${name}`, shown(x), shown(y), change(y, x)];
    const failed = (a) => (a.requests ? a.errors / a.requests : null);
    return [...['p50', 'p95', 'p99'].map((q) => line(q, quantile(b, q), quantile(c, q), ms)), ...(b.requests || c.requests ? [line('errors', failed(b), failed(c), percent)] : []), [`${STAGES[stage]} samples`, count(b.samples), count(c.samples), '']];
  });
  $('#canary-arms .scroll').replaceChildren(table('Arms side by side since the rollout began', ['what', '#baseline', '#canary', '#change'], lines));
};
const showHistory = (d) => {
  const all = [...(field('history') || []), ...(d.rollbackHistory || [])].slice(-20).reverse();
  $('#canary-history').replaceChildren(...all.map((h) => el('li', '', el('time', '', moment(h.timestamp || h.at || h.t)), el('span', '', ` ${h.flagName || h.kind || h.decision || ''} ${h.reason || h.message || ''}`))));
  $('#canary-nohistory').hidden = all.length > 0;
};
/** Steps and decisions, for the plots. */
export const events = () => {
  const d = last && last.canary_deployment;
  return d ? [...(field('history') || []), ...(d.rollbackHistory || [])].map((h) => ({ t: Date.parse(h.timestamp || h.at || h.t), kind: 'canary', label: h.flagName || h.kind || h.decision || 'canary' })).filter((e) => e.t) : [];
};

// ---- the kill switch

const showKill = (d) => {
  const may = allowed('kill.engage');
  $('#kill').hidden = !d || !may || d.killSwitchEnabled;
  $('#kill-role').hidden = !d || may || d.killSwitchEnabled;
  $('#kill-on').hidden = !d || !d.killSwitchEnabled;
};
$('#kill').addEventListener('click', () => { $('#kill-reason').value = ''; text($('#kill-failed'), ''); $('#d-kill').showModal(); });
$('#kill-curl').addEventListener('click', () => import('./download.js').then((d) => d.copy(curl('/canary/killswitch', { reason: $('#kill-reason').value || KILLED_DEFAULT }))));
$('#kill-go').addEventListener('click', async () => {
  const go = $('#kill-go');
  go.disabled = true;
  try {
    await tell('/canary/killswitch', { reason: $('#kill-reason').value || KILLED_DEFAULT });
    $('#d-kill').close();
    say('The canary is killed: its share is 0.');
    await refresh();
  } catch (e) { text($('#kill-failed'), `Not killed from here: ${e.message}. Copy the command and run it in a terminal.`); }
  go.disabled = false;
});
