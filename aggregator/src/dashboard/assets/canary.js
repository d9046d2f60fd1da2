// The rollout: share, both arms, evidence as it grows toward its bounds, what stands in the way,
// what was decided, and the kill switch behind a confirmation and its role.
//
// Evidence over time is that of the decisions, and one point a look since the page was opened; the
// aggregator keeps decisions, not every look.

import { $, attr, badge, el, say, table, text } from './dom.js';
import { STAGES, age, change, count, moment, ms, percent, three } from './format.js';
import { allowed, ask, curl, tell } from './ask.js';
import * as plot from './plot.js';

/** Looks kept: an hour of one each 5 s. */
const LOOKS_MAX = 720;
/** After an answer that there is no such thing, ms; and how often decisions are asked for. */
const NONE_MS = 60000, DECISIONS_MS = 30000;
/** Characters of a reason in the history; its evidence has the whole. */
const WORDS_MAX = 240;
const KILLED_DEFAULT = 'killed from the page';

let last = null, problem = '', notBefore = 0, decisions = [], decided = -Infinity;
const looks = [];

const rollout = () => last && last.canary_deployment;
/** A field of the status, wherever the answer holds it. */
const field = (name) => (last ? (last.canary_deployment || {})[name] ?? last[name] : undefined);
const share = (part) => part.ln_e / part.bound;
const look = (t, e) => { if (e && e.harm) looks.push({ t, harm: share(e.harm), shown: share(e.promotion) }); };

/** That something was decided: the next look asks for decisions, too. */
export const changed = () => { decided = -Infinity; };
export const refresh = async () => {
  if (performance.now() < notBefore) return;
  try {
    last = await ask('/canary/status');
    problem = '';
    look(Date.now(), field('evidence'));
    await refreshDecisions();
  } catch (e) {
    if (e.status === 404) notBefore = performance.now() + NONE_MS;
    last = null;
    problem = e.status === 404 ? '' : `The rollout cannot be shown: ${e.message}.`;
  }
  looks.splice(0, looks.length - LOOKS_MAX);
  show();
};
const refreshDecisions = async () => {
  if (performance.now() - decided < DECISIONS_MS) return;
  const first = decided === -Infinity && !decisions.length;
  decided = performance.now();
  decisions = await ask('/canary/decisions').then((body) => body.decisions, () => []);
  // What was decided before this page was opened is evidence it did not hear itself.
  if (!first) return;
  for (const d of decisions) if (d.rollout === field('rollout')) look(Date.parse(d.t), d.decision.evidence);
  looks.sort((x, y) => x.t - y.t);
};

// ---- what it says

const STATES = { step: ['ok', 'under way'], complete: ['ok', 'complete'], idle: ['insufficient_data', 'none under way'], killed: ['violation', 'killed'], rolled_back: ['violation', 'rolled back'], aborted: ['stale', 'aborted'] };
const killed = () => field('killed') === true || field('phase') === 'killed';
const show = () => {
  const d = rollout(), none = !d;
  $('#canary-none').hidden = !none && d.phase !== 'idle';
  $('#canary-body').hidden = none;
  text($('#canary-none'), problem || 'No rollout. When one is started, with lens canary start or POST /canary/start, its share, its evidence and what stands in its way appear here.');
  text($('#canary-say'), none ? '' : [field('version') && `version ${field('version')}`, field('generation') != null && `generation ${field('generation')}`].filter(Boolean).join(', '));
  showKill(d);
  if (none) return;
  badge($('#canary-state'), killed() ? STATES.killed : STATES[d.phase] || ['insufficient_data', `${d.phase || d.stage || 'unknown'}`.replace(/_/g, ' ')]);
  const now = d.share_percent ?? d.trafficPercentage, dwell = field('dwell_remaining_s');
  text($('#canary-share'), `${now} %`);
  attr($('#canary-bar'), 'value', now);
  const steps = Array.isArray(d.steps) ? d.steps.map((s) => `${s} %`).join(' → ') : null;
  const facts = [['steps', steps], ['next', d.nextStage], ['this step lasts', dwell == null ? null : dwell > 0 ? `${age(dwell)} more at least` : 'long enough'], ['since', d.since && moment(d.since)], ['started by', d.started_by], ['why', d.reason], ['assigns users', d.progressiveRollout ? 'yes' : 'no'], ['agree to a release', (d.release_approvals || []).join(', ')], ['trouble', (d.trouble || []).join('; ')]];
  $('#canary-facts').replaceChildren(...facts.filter(([, v]) => v != null && v !== '').map(([name, value]) => el('div', '', el('dt', '', name), el('dd', '', `${value}`))));
  showBlockers(d.phase);
  showEvidence();
  showArms();
  showHistory(d);
};
const showBlockers = (phase) => {
  $('#canary-way').hidden = phase !== undefined && phase !== 'step';
  const evidence = field('evidence') || {}, all = [...(field('blockers') || []), ...(evidence.undecidable || []), ...(evidence.blockers || [])];
  const words = all.map((b) => (typeof b === 'string' ? { code: '', message: b } : b));
  const once = words.filter((b, i) => words.findIndex((o) => o.message === b.message) === i);
  $('#canary-blockers').replaceChildren(...once.map((b) => { const li = el('li', '', b.message); if (b.code) li.append(el('code', '', b.code)); return li; }));
  text($('#canary-free'), once.length ? `${once.length} things stand in the way of the next step:` : 'Nothing stands in the way of the next step but its evidence and dwell.');
};
/** How far evidence is on the way to its bound. */
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
  const f = plot.frame(node, { subject: 'share of its bound, at decisions and since the page was opened', right: 84, top: 22 });
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
  const back = (d.rollbackHistory || []).map((h) => ({ t: h.timestamp, what: h.flagName, why: h.reason, id: h.decision }));
  const steps = decisions.map((h) => ({ t: h.t, what: `${h.word} ${h.decision.share} % → ${h.decision.share_next} %`, why: h.decision.reason, id: h.id }));
  const all = [...steps, ...back.filter((h) => h.id == null)].sort((a, b) => Date.parse(b.t) - Date.parse(a.t)).slice(0, 20);
  $('#canary-history').replaceChildren(...all.map((h) => {
    const li = el('li', '', el('time', '', moment(h.t)), el('b', '', ` ${h.what.replace(/_/g, ' ')} `), el('span', '', h.why.length > WORDS_MAX ? `${h.why.slice(0, WORDS_MAX)}…` : h.why));
    if (h.id == null) return li;
    const link = el('a', '', 'evidence');
    link.href = `/canary/decisions/${h.id}`;
    li.append(' ', link);
    return li;
  }));
  $('#canary-nohistory').hidden = all.length > 0;
};
/** Steps and decisions, for the plots. */
export const events = () => {
  const back = ((rollout() || {}).rollbackHistory || []).map((h) => ({ t: Date.parse(h.timestamp), kind: 'canary', label: h.flagName.replace(/_/g, ' ') }));
  return [...back, ...decisions.map((h) => ({ t: Date.parse(h.t), kind: 'canary', label: `canary ${h.decision.share_next} %` }))].filter((e) => e.t);
};

// ---- the kill switch

const showKill = (d) => {
  const may = allowed('kill.engage'), on = killed();
  $('#kill').hidden = !d || !may || on;
  $('#kill-role').hidden = !d || may || on;
  $('#kill-on').hidden = !d || !on;
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
