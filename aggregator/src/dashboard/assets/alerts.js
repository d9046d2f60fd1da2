// Alerts: what is open, what was, who was told, and the two things people do about one.
//
// Whether this reader may act is what the aggregator rendered into the page; a button that would be
// refused is not shown, and the sentence beside says which role is missing. The aggregator decides
// again when it is pressed.

import { $, badge, button, el, keyed, say, stamp, table, text } from './dom.js';
import { age, clock, count, moment, ms } from './format.js';
import { allowed, ask, curl, tell } from './ask.js';
import { choose, view } from './address.js';

const LOOKS = { firing: 'violation', pending: 'insufficient_data', acknowledged: 'stale', silenced: 'stale', resolved: 'ok', queued: 'insufficient_data', delivered: 'ok', dead: 'violation' };
/** Minutes a silence from here lasts. */
const SILENCES = [15, 60, 240, 1440];
/** Past alerts are asked for again after this long, ms, or when one changes. */
const ASK_AGAIN_MS = 15000;

let all = null, asked = 0, due = true;
/** That an alert changed: the next look asks for the whole. */
export const changed = () => { due = true; };
/** Every alert known: those of the snapshot, and of the last full answer. */
const known = (snap) => {
  const open = snap.alerts.open, ids = new Set(open.map((a) => `${a.id} ${a.episode}`));
  const more = all ? [...all.alerts, ...all.past].filter((a) => !ids.has(`${a.id} ${a.episode}`)) : [];
  return [...open, ...more];
};
/** Past alerts and deliveries, now and then. */
export const refresh = async () => {
  if (!due && performance.now() - asked < ASK_AGAIN_MS) return;
  due = false;
  asked = performance.now();
  try { all = await ask('/api/v1/alerts'); } catch (e) { text($('#past-note'), `Past alerts cannot be shown: ${e.message}.`); }
};
/** What happened to alerts that speak of this series, for the plots. */
export const events = (snap, of) => known(snap).filter((a) => !a.slice || (a.slice === of.slice && a.stage === of.stage && a.arm === of.arm)).flatMap((a) => {
  const name = a.slice ? a.rule : a.key;
  return [['fired', a.fired], ['resolved', a.resolved], ['acknowledged', a.acknowledged]].filter(([, t]) => t).map(([what, t]) => ({ t: Date.parse(t), kind: 'alert', label: `${name} ${what}` }));
});

const summaryOf = (a) => [a.summary, a.reading === 'unknown' ? 'no data since' : '', a.acknowledged_by ? `taken on by ${a.acknowledged_by}` : '', a.quiet && a.state !== 'silenced' ? a.quiet : ''].filter(Boolean).join('; ');
const fillAlert = (tr, a) => {
  const cells = [...tr.children];
  text($('button', cells[0]), a.key);
  [[2, a.severity], [3, moment(a.opened)], [4, summaryOf(a)]].forEach(([i, shown]) => text(cells[i], shown));
  badge($('.v', tr), [LOOKS[a.state], a.state]);
  tr.dataset.id = a.id;
};
const fillDelivery = (tr, d) => {
  [d.sink, '', `${d.kind} ${d.alerts.join(', ')}`, count(d.attempts), clock(d.queued), d.due ? `again ${clock(d.due)}` : d.settled ? clock(d.settled) : '–', d.said || '–'].forEach((shown, i) => { if (i !== 1) text(tr.children[i], shown); });
  badge($('.v', tr), [LOOKS[d.progress], d.progress], d.id);
};

export const show = (snap) => {
  const { alerts } = snap, { sinks, open, deliveries } = alerts;
  $('#noalerts').hidden = open.length > 0;
  $('#open').hidden = !open.length;
  text($('#alerts-say'), `${alerts.firing} firing, ${alerts.critical} critical, ${alerts.pending} pending`);
  keyed($('#open tbody'), open, (a) => `${a.key} ${a.episode}`, () => stamp('#t-alert'), fillAlert);
  const failing = sinks.filter((s) => s.failing_since), past = all ? all.past : [];
  text($('#sinks-say'), !sinks.length ? 'nobody: no sink is configured, see [[alerts.sink]] in the example configuration' : `${sinks.length} sinks, ${failing.length ? `${failing.map((s) => `${s.name} failing since ${moment(s.failing_since)}`).join(', ')}` : 'none failing'}${alerts.durable ? '' : ', forgotten at a restart'}`);
  $('#deliveries .scroll').hidden = !deliveries.length;
  keyed($('#deliveries tbody'), deliveries, (d) => `${d.sink} ${d.id}`, () => stamp('#t-delivery'), fillDelivery);
  text($('#past-say'), all ? `${past.length}` : '…');
  $('#past .scroll').hidden = !past.length;
  if (past.length || !all) text($('#past-note'), '');
  else text($('#past-note'), 'No alert has ended yet.');
  keyed($('#past tbody'), past.slice(0, 50), (a) => `${a.key} ${a.episode}`, () => stamp('#t-alert'), fillAlert);
  showOne(snap);
};

// ---- one alert, opened

const act = async (id, verb, body, done) => {
  try {
    await tell(`/api/v1/alerts/${id}/${verb}`, body);
    say(done);
    changed();
    await refresh();
  } catch (e) { say(`Not done: ${e.message}.`); }
};
const controls = (a) => {
  const box = el('div', 'acts'), over = a.state === 'resolved';
  if (over) box.append(el('p', 'muted', 'It is over: there is nothing to do.'));
  else if (!allowed('alert.acknowledge') && !allowed('alert.silence')) box.append(el('p', 'muted', 'To take it on or silence it, sign in with a token of the role operator.'));
  if (!over && allowed('alert.acknowledge') && !a.acknowledged_by) box.append(button('Take it on', () => act(a.id, 'ack', {}, `${a.key} is taken on.`), 'act strong'));
  if (!over && allowed('alert.silence')) {
    const minutes = el('select');
    for (const m of SILENCES) minutes.append(new Option(age(m * 60), m));
    minutes.value = 60;
    const label = el('label', '', 'silence for ');
    label.append(minutes);
    box.append(label, button('Silence', () => act(a.id, 'silence', { minutes: Number(minutes.value) }, `${a.key} is silenced for ${age(minutes.value * 60)}.`)));
  }
  box.append(button('Copy as curl', () => import('./download.js').then((d) => d.copy(curl(`/api/v1/alerts/${a.id}/ack`, {})))));
  return box;
};
/** Evidence as names and words, whatever its shape; `_ms` says that a number is milliseconds. */
const flat = (object, lead) => Object.entries(object).flatMap(([name, value]) => {
  const words = `${lead}${name.replace(/_/g, ' ')}`;
  if (value === null) return [];
  if (typeof value === 'object' && !Array.isArray(value)) return flat(value, `${words}: `);
  if (typeof value === 'number') return [[words.replace(/ m?s$/, ''), name.endsWith('_ms') ? ms(value) : name.endsWith('_s') ? age(value) : `${+value.toPrecision(6)}`]];
  return [[words, Date.parse(value) && /T.*Z$/.test(value) ? moment(value) : `${value}`]];
});
const rowsOf = (a) => {
  const times = [['opened', a.opened], ['fired', a.fired], ['taken on', a.acknowledged], ['silenced until', a.silenced_until], ['resolved', a.resolved]].filter(([, t]) => t);
  const list = el('dl', 'pairs');
  const fact = (name, value) => { if (value != null && value !== '') list.append(el('div', '', el('dt', '', name), el('dd', '', `${value}`))); };
  for (const [name, t] of times) fact(name, `${moment(t)}${name === 'taken on' ? ` by ${a.acknowledged_by}` : ''}`);
  fact('reads', `${a.reading} since ${moment(a.reading_since)}`);
  fact('severity', a.severity);
  fact('came back', a.reopened ? `${a.reopened} times within this episode` : '');
  fact('kept quiet', a.quiet);
  fact('escalation', a.escalation_steps ? `${a.escalation_steps} steps heard of it` : '');
  for (const [name, value] of flat(a.evidence || {}, '')) fact(name, value);
  return list;
};
let returnTo = null;
const showOne = (snap) => {
  const dialog = $('#d-alert'), id = view.open.startsWith('alert:') ? view.open.slice(6) : '';
  if (!id) { if (dialog.open) dialog.close(); return; }
  const a = known(snap).find((x) => x.id === id);
  if (!a && !all) return;
  const body = $('.body', dialog);
  if (!dialog.open) { returnTo = document.activeElement; dialog.showModal(); }
  if (!a) {
    text($('h2', dialog), 'No such alert');
    body.replaceChildren(el('p', '', `The aggregator knows no alert ${id}; it may have been forgotten since. Choose one from the list.`));
    return;
  }
  badge($('.v', dialog), [LOOKS[a.state], a.state]);
  text($('h2', dialog), a.title);
  text($('.why', dialog), summaryOf(a));
  const told = [...snap.alerts.deliveries, ...(all ? all.deliveries : [])].filter((d, i, of) => d.alerts.includes(a.key) && of.findIndex((o) => o.id === d.id && o.sink === d.sink) === i);
  const key = JSON.stringify([a, told.map((d) => [d.id, d.attempts, d.progress])]);
  if (body.dataset.key === key) return;
  body.dataset.key = key;
  const parts = [el('p', '', el('code', '', a.key)), controls(a), el('h3', '', 'What it rests on'), rowsOf(a)];
  if (a.recommended_actions.length) {
    const list = el('ul', 'advice');
    list.append(...a.recommended_actions.map((step) => el('li', '', step)));
    parts.push(el('h3', '', 'What to do'), list);
  }
  parts.push(el('h3', '', 'Who was told'));
  if (told.length) parts.push(table('Deliveries', ['sink', 'what', 'outcome', '#attempts', 'queued', 'answer'], told.map((d) => [d.sink, d.kind, d.progress, `${d.attempts}`, moment(d.queued), d.said || '–'])));
  else parts.push(el('p', 'muted', snap.alerts.sinks.length ? 'Nobody yet.' : 'Nobody: no sink is configured.'));
  body.replaceChildren(...parts);
};
$('#d-alert').addEventListener('close', () => {
  if (view.open.startsWith('alert:')) choose({ open: '' });
  delete $('#d-alert .body').dataset.key;
  if (returnTo && returnTo.isConnected) returnTo.focus();
});
document.addEventListener('click', (e) => {
  const tr = e.target.closest('#open tbody tr, #past tbody tr');
  if (tr) choose({ open: `alert:${tr.dataset.id}` });
});
