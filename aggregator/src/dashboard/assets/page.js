// The live page: fills the server's first paint from the event stream, asks for what the plots of
// the chosen series need, and takes the reader's hands. No library, no network but the aggregator.

import { $, $$, attr, badge, el, keyed, say, text } from './dom.js';
import { ARMS, STAGES, age, clock, count, interval, judged, keyOf, moment, ms, nameOf, rate, times, why } from './format.js';
import { SPANS, choose, chooseRange, follow, onView, range, stepFor, view } from './address.js';
import { ask, curl, question } from './ask.js';
import * as agents from './agents.js';
import * as alerts from './alerts.js';
import * as canary from './canary.js';
import * as captures from './captures.js';
import * as guards from './guards.js';
import * as download from './download.js';
import * as evidence from './evidence.js';
import * as heatmap from './heatmap.js';
import * as lines from './lines.js';
import * as rows from './rows.js';
import * as slow from './slow.js';
import * as spectrum from './spectrum.js';
import { isBrushing } from './plot.js';

/** Steps of a heat map, and of the lines, which need more samples each. */
const HEAT_STEPS = 360, LINE_STEPS = 60, LINE_STEPS_MIN = 6;
/** Samples a step of the lines should have: p99's floor, with some to spare. */
const LINE_SAMPLES = 450;
const RELOAD_MS = 5000, QUIET_MS = 4000, LOST_MS = 6000, RETRY_MS_MAX = 30000, EVENTS_MAX = 60;

let snap = null;
const nothing = (note) => ({ heat: null, arms: null, lines: null, note, subject: '', place: '', when: '', limits: [], events: [], from: 0, to: 1, fixed: false, ratioMax: 2 });
let doc = nothing('');
const heard = [];

// ---- the head

const showHead = () => {
  const h = snap.health, word = h.status[0].toUpperCase() + h.status.slice(1);
  badge($('.health .v'), [h.status, word]);
  text($('.health .say'), h.summary);
  document.title = `${word} · lens`;
  text($('#f-agents'), `${snap.totals.agents_connected} of ${snap.totals.agents}`);
  text($('#f-samples'), count(snap.totals.samples));
  attr($('#f-samples'), 'title', `${snap.totals.samples}`);
  text($('#f-rate'), rate(snap.totals.rate_per_s));
  text($('#f-fresh'), rows.freshest(snap.rows));
  const fed = snap.rows.length > 0, gaps = snap.incomplete;
  $('#empty').hidden = fed;
  for (const n of $$('.fed')) n.hidden = !fed && (n.matches('.js') || !snap.slices.length);
  $('#gaps').hidden = !gaps.length;
  text($('#gaps span'), gaps.map((g) => `${g.agent} from ${moment(g.from)} to ${g.to ? moment(g.to) : 'now'}`).join('; '));
};

// ---- the chosen series

const current = () => snap && snap.rows.find((r) => keyOf(r) === rows.chosenKey());
const fillPick = (id, values, chosen, label) => {
  const select = $(id), key = values.join();
  if (select.dataset.key !== key) { select.dataset.key = key; select.replaceChildren(...values.map((v) => new Option(label(v), v))); }
  if (select.value !== chosen) select.value = chosen;
};
/** What is chosen, or the nearest that exists: the reader's slice, then its busiest stage. */
const settle = () => {
  if (!snap.rows.length || current()) return;
  const fits = (r) => (!view.slice || r.slice === view.slice) + (r.slice === view.slice && (!view.stage || r.stage === view.stage)) + (r.slice === view.slice && r.stage === view.stage && r.arm === view.arm);
  const best = snap.rows.reduce((a, b) => (fits(b) > fits(a) || (fits(b) === fits(a) && !a.count && b.count) ? b : a));
  choose({ slice: best.slice, stage: best.stage, arm: best.arm }, true);
};
const showPicks = () => {
  const of = (f, keep) => [...new Set(snap.rows.filter(keep).map((r) => r[f]))];
  fillPick('#pick-slice', of('slice', () => true), view.slice, (v) => v);
  fillPick('#pick-stage', of('stage', (r) => r.slice === view.slice), view.stage, (v) => STAGES[v] || v);
  fillPick('#pick-arm', of('arm', (r) => r.slice === view.slice && r.stage === view.stage), view.arm, (v) => v);
  const { fixed, from, to } = range(Date.parse(snap.t)), own = $('#range-own');
  own.hidden = !fixed;
  if (fixed) { own.value = view.r; text(own, `${moment(from)} – ${moment(to)}`); }
  if ($('#range').value !== view.r) $('#range').value = view.r;
  $('#now').disabled = !fixed;
  for (const b of $$('button[data-set]')) { const [name, value] = b.dataset.set.split('='); attr(b, 'aria-pressed', String(view[name] === value)); }
};
const showChosen = () => {
  settle();
  const r = current();
  if (!r) return;
  showPicks();
  badge($('#c-verdict'), judged(r));
  text($('#c-reason'), why(r));
  const fact = (id, shown, small) => { text($(`#c-${id} span`), shown); text($(`#c-${id} small`), small); };
  for (const q of ['p50', 'p95', 'p99', 'p99_9']) fact(q, ms(r[q].value_ms), r[q].reason || interval(r[q]));
  fact('ratio', times(r.ratio), `at most ${r.ratio_max}`);
  fact('count', count(r.count), rate(r.rate_per_s));
  attr($('#c-count'), 'title', `${r.count} in the last ${age(snap.window_s)}`);
  const dialog = $('#d-verdict');
  if (view.open === 'verdict') { evidence.fill(dialog, r, snap); if (!dialog.open) dialog.showModal(); } else if (dialog.open) dialog.close();
};

// ---- the plots

const draw = () => {
  if (!snap || !snap.rows.length || isBrushing()) return;
  heatmap.draw(doc, view);
  lines.draw(doc);
  lines.drawRatio(doc);
  spectrum.draw(doc, view);
};
const questions = (r) => {
  const when = range(Date.parse(snap.t)), own = { slice: r.slice, stage: r.stage, arm: r.arm };
  const bounds = when.fixed ? { from: new Date(when.from).toISOString(), to: new Date(when.to).toISOString() } : { from: `-${when.span}s` };
  const enough = r.rate_per_s > 0 ? LINE_SAMPLES / r.rate_per_s : 0, slow = Math.max(when.span / LINE_STEPS, Math.min(enough, when.span / LINE_STEPS_MIN));
  const steps = { heat: stepFor(when.span, HEAT_STEPS), lines: stepFor(when.span, when.span / slow) };
  return {
    when,
    heat: question('/api/v1/histogram', { ...own, ...bounds, step: `${steps.heat}s` }),
    spectrum: (arm) => question('/api/v1/histogram', { ...own, arm, ...bounds }),
    slow: question('/api/v1/exemplars', { ...own, ...bounds }),
    lines: question('/api/v1/quantiles', { ...own, ...bounds, step: `${steps.lines}s`, q: lines.QUANTILES.join(','), ratio: 'true' }),
  };
};
const eventsOf = (r) => [...alerts.events(snap, r), ...canary.events(), ...heard.filter((e) => e.kind === 'verdict' && e.subject.replace(/\/(stage_.|e2e)\//, '|$1|') === keyOf(r)).map((e) => ({ t: Date.parse(e.t), kind: 'verdict', label: e.message.split(':')[0] }))];

let turn = 0;
const load = async () => {
  const r = current();
  if (!r) return;
  const mine = ++turn, all = questions(r), { when } = all;
  const frame = { subject: nameOf(r), place: `${r.slice} · ${STAGES[r.stage]}`, when: when.fixed ? `from ${moment(when.from)} to ${moment(when.to)}` : `in the last ${age(when.span)}`, from: when.from, to: when.to, fixed: when.fixed, limits: r.slo, ratioMax: r.ratio_max };
  try {
    const arms = ARMS.filter((arm) => snap.rows.some((x) => x.slice === r.slice && x.stage === r.stage && x.arm === arm));
    const [heat, line, requests, ...spectra] = await Promise.all([ask(all.heat), ask(all.lines), ask(all.slow), ...arms.map((arm) => ask(all.spectrum(arm))), alerts.refresh()]);
    if (mine !== turn) return;
    slow.fill($('#slow .box'), requests.exemplars);
    text($('#slow-count'), count(requests.exemplars.length));
    doc = { ...nothing(''), ...frame, heat, lines: line, arms: Object.fromEntries(arms.map((arm, i) => [arm, spectra[i]])), events: eventsOf(r) };
  } catch (e) {
    if (mine !== turn) return;
    doc = { ...nothing(`No plot: ${e.message}. Trying again; a shorter time asks for less.`), ...frame };
  }
  draw();
};

// ---- events

const KINDS = ['verdict', 'agent', 'slice', 'alert', 'canary', 'capture', 'flag'];
const hear = (e) => {
  let event;
  try { event = JSON.parse(e.data); } catch { return; }
  if (heard.some((s) => s.t === event.t && s.subject === event.subject && s.message === event.message)) return;
  heard.unshift(event);
  heard.length = Math.min(heard.length, EVENTS_MAX);
  if (event.kind === 'alert') alerts.changed();
  if (event.kind === 'capture') captures.refresh(true);
  if (event.kind === 'canary') { canary.changed(); canary.refresh(); }
  $('#noevents').hidden = true;
  keyed($('#events'), heard, (s) => `${s.t} ${s.subject} ${s.message}`, (s) => {
    const time = el('time', '', clock(s.t)), what = el('span', '', s.message);
    time.dateTime = s.t;
    if (s.subject && !s.message.includes(s.subject)) what.prepend(el('b', '', s.subject), ' ');
    return el('li', '', time, el('i', '', s.kind), what);
  }, () => {});
};

// ---- the stream

let source = null, last = 0, since = 0, wait = 1000, strange = false;
const streamState = () => {
  const quiet = performance.now() - last, live = last > 0 && quiet < QUIET_MS, tried = last || since;
  attr($('.stream'), 'data-s', live ? 'live' : tried ? 'lost' : 'wait');
  text($('.stream b'), live ? 'live' : tried ? 'reconnecting…' : 'connecting…');
  text($('.stream span'), snap ? `updated ${clock(snap.t)}` : 'no update yet');
  document.body.classList.toggle('old', !live && last > 0);
  const lost = $('#lost'), show = !live && tried && (quiet > LOST_MS || !last);
  if (lost.hidden === Boolean(show)) lost.hidden = !show;
  $('#signed-out').hidden = !strange;
  if (show) text($('span', lost), snap ? `What is shown is of ${clock(snap.t)} and is not being updated.` : 'What is shown is of when this page was loaded.');
  if (show) document.title = 'Stream lost · lens';
};
const showAll = () => {
  showHead();
  showChosen();
  rows.show(snap);
  agents.show(snap);
  guards.show(snap);
  alerts.show(snap);
};
const take = (e) => {
  let next;
  try { next = JSON.parse(e.data); } catch { return; }
  const first = !snap;
  snap = next;
  snap.rows.sort(rows.inOrder);
  rows.compare(snap.rows);
  last = performance.now();
  wait = 1000;
  strange = false;
  showAll();
  streamState();
  if (first) load();
};
const connect = () => {
  if (source) source.close();
  source = new EventSource('/api/v1/events');
  source.addEventListener('snapshot', take);
  for (const kind of KINDS) source.addEventListener(kind, hear);
  source.onerror = () => {
    since = since || performance.now();
    streamState();
    // A refused stream is not retried by the browser: do it, slower each time.
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(connect, wait);
    wait = Math.min(RETRY_MS_MAX, wait * 2);
    // The stream does not say why it is refused; a question does.
    ask('/api/v1/agents').then(() => { strange = false; }, (e) => { strange = e.status === 401 || e.status === 403; });
  };
};

// ---- the reader's hands

const PLOTS = { heat: [heatmap.rows, 'heat'], lines: [lines.rows, 'lines'], ratio: [lines.ratioRows, 'lines'], spectrum: [spectrum.rows, 'spectrum'] };
const takeAway = (plot, how) => {
  const [forFile, asked] = PLOTS[plot], subject = plot === 'spectrum' ? doc.place : doc.subject, node = $(`#${plot}`);
  if (how === 'csv') return download.csv(download.fileName(plot, subject, 'csv'), forFile(doc));
  if (how === 'svg') return download.plotSvg(download.fileName(plot, subject, 'svg'), node);
  if (how === 'png') return download.plotPng(download.fileName(plot, subject, 'png'), node);
  const r = current(), all = r && questions(r);
  if (all) download.copy(curl(asked === 'spectrum' ? all.spectrum(r.arm) : all[asked]));
};
const pan = (by) => {
  const { from, to, span } = range(Date.parse(snap.t)), now = Date.parse(snap.t);
  if (by === 'out') return chooseRange(from - span * 500, Math.min(now, to + span * 500));
  const shift = Math.min(by * span * 500, now - to);
  chooseRange(from + shift, to + shift);
};
const pick = (key, more) => { const [slice, stage, arm] = key.replace('+', '').split('|'); choose({ slice, stage, arm, ...more }); };
document.addEventListener('click', (e) => {
  const at = (selector) => e.target.closest(selector), head = at('#all thead button'), tr = at('#tiles tbody tr, #rows tr');
  if (head) return choose({ sort: rows.nextSort(head.parentElement.dataset.c) });
  if (at('.skip')) { e.preventDefault(); return $('#main').focus(); }
  if (at('button[data-take]')) { const [plot, how] = at('button[data-take]').dataset.take.split(' '); return takeAway(plot, how); }
  if (at('button[data-set]')) { const [name, value] = at('button[data-set]').dataset.set.split('='); return choose({ [name]: value }); }
  if (at('button[data-pan]') && snap) return pan(at('button[data-pan]').dataset.pan === 'out' ? 'out' : Number(at('button[data-pan]').dataset.pan));
  if (tr && at('button.v')) return pick(tr.dataset.key, { open: 'verdict' });
  if (tr && !getSelection().toString()) pick(tr.dataset.key);
});
$('#c-open').addEventListener('click', () => choose({ open: 'verdict' }));
$('#v-curl').addEventListener('click', () => { const r = current(); if (r) download.copy(evidence.command(r)); });
$('#d-verdict').addEventListener('close', () => { if (view.open === 'verdict') choose({ open: '' }); });
$('#now').addEventListener('click', () => choose({ r: '15m' }));
$('#rows-csv').addEventListener('click', () => snap && download.csv(download.fileName('series', 'all', 'csv'), rows.forFile(snap)));
$('#rows-curl').addEventListener('click', () => download.copy(curl('/api/v1/tail')));
$('#link').addEventListener('click', () => download.copy(location.href).then(() => say('The link to just this view was copied.')));
$('#pick-slice').addEventListener('change', (e) => choose({ slice: e.target.value }));
$('#pick-stage').addEventListener('change', (e) => choose({ stage: e.target.value }));
$('#pick-arm').addEventListener('change', (e) => choose({ arm: e.target.value }));
$('#range').addEventListener('change', (e) => choose({ r: e.target.value }));
$('#filter').addEventListener('input', (e) => choose({ q: e.target.value.trim() }, true));

const asks = ['slice', 'stage', 'arm', 'r'];
onView((changed) => {
  if ($('#filter').value.trim() !== view.q) $('#filter').value = view.q;
  if (!snap) return;
  showAll();
  captures.chosen();
  if (!changed.some((name) => asks.includes(name))) return draw();
  if (!changed.every((name) => name === 'r')) { doc = nothing(''); draw(); }
  load();
});

// Titles show on hover only; on keyboard focus the same words appear beside the row.
const tip = $('#tip');
document.addEventListener('focusin', (e) => {
  const row = e.target.matches(':focus-visible') && e.target.closest('#tiles tr, #rows tr'), words = row && ($('.v', row) || row).getAttribute('title');
  tip.hidden = !words;
  if (!words) return;
  text(tip, words);
  const box = row.getBoundingClientRect(), mine = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(Math.max(8, box.left + 8), innerWidth - mine.width - 8)}px`;
  tip.style.top = `${box.bottom + mine.height + 8 > innerHeight ? box.top - mine.height - 2 : box.bottom + 2}px`;
});
for (const gone of ['focusout', 'scroll']) document.addEventListener(gone, () => { tip.hidden = true; }, true);
let due = 0;
const redraw = () => { cancelAnimationFrame(due); due = requestAnimationFrame(() => { draw(); captures.redraw(); }); };
new ResizeObserver(redraw).observe($('.charts'));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);

follow();
for (const span in SPANS) $('#range').insertBefore(new Option(age(SPANS[span]), span), $('#range-own'));
$('#filter').value = view.q;
for (const n of $$('.js')) n.hidden = false;
const zone = -new Date().getTimezoneOffset();
text($('#zone'), `Times are this browser’s, UTC${zone < 0 ? '−' : '+'}${String(Math.floor(Math.abs(zone) / 60)).padStart(2, '0')}:${String(Math.abs(zone) % 60).padStart(2, '0')}.`);
setInterval(streamState, 1000);
const again = () => { if (document.hidden || !snap || performance.now() - last >= QUIET_MS) return; canary.refresh(); captures.refresh(); if (!range(0).fixed) load(); else alerts.refresh(); };
setInterval(again, RELOAD_MS);
document.addEventListener('visibilitychange', () => { if (!document.hidden) load(); });
canary.refresh();
captures.refresh(true);
connect();
