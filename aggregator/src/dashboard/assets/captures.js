// Captures: the last minutes in fine steps, pulled from agents. What there is, one of them opened as
// a heat map a series, its files, its slow requests; and a button for those who may begin one.

import { $, badge, button, el, keyed, say, text } from './dom.js';
import { STAGES, age, count, moment } from './format.js';
import { allowed, ask, curl, tell } from './ask.js';
import { choose, view } from './address.js';
import * as heatmap from './heatmap.js';
import * as slow from './slow.js';

const LOOKS = { collecting: 'insufficient_data', done: 'ok', failed: 'violation' };
/** While one is collected it is looked at this often, ms; otherwise now and then. */
const LOOK_MS = 1000, ASK_AGAIN_MS = 30000;

let all = null, asked = -Infinity, heat = null, shown = '';
const of = (c) => [c.slice || 'all slices', c.stage ? STAGES[c.stage] : '', c.arm || ''].filter(Boolean).join(' · ');
const told = (c) => {
  const silent = c.agents.filter((a) => a.state !== 'answered').map((a) => `${a.agent} ${a.state.replace(/_/g, ' ')}`);
  return [c.reason, `by ${c.by}`, c.failure, c.truncated && 'cut at the bound on its size', ...silent].filter(Boolean).join('; ');
};
const fill = (tr, c) => {
  const span = (Date.parse(c.to) - Date.parse(c.from)) / 1000;
  text($('button', tr), moment(c.begun));
  badge($('.v', tr), [LOOKS[c.state], c.state]);
  [of(c), age(span), count(c.samples), `${c.agents.filter((a) => a.state === 'answered').length} of ${c.agents.length}`, told(c)].forEach((words, i) => text(tr.children[i + 2], words));
  tr.dataset.id = c.id;
};
const make = () => {
  const tr = el('tr'), first = el('th', '', el('button'));
  first.scope = 'row';
  const state = el('td'), shape = $('#t-alert').content.querySelector('.v').cloneNode(true);
  state.append(shape);
  tr.append(first, state, el('td'), el('td', 'num'), el('td', 'num'), el('td', 'num'), el('td'));
  $('button', tr).type = 'button';
  return tr;
};

const series = () => heat.series[Number($('#capture-series').value) || 0];
const paint = (c) => {
  const one = heat && series();
  const doc = { subject: one ? `${one.slice} · ${STAGES[one.stage]} · ${one.arm}` : '', when: 'in this time', limits: [], events: [], lines: null, fixed: false, from: Date.parse(c.from), to: Date.parse(c.to), note: c.samples ? '' : 'No samples were captured.' };
  heatmap.still($('#capture-heat'), '#capture-note', one ? { ...doc, heat: { ...heat, columns: one.columns, incomplete: [] } } : doc, view);
};
const open = async () => {
  const c = all && all.find((x) => x.id === view.capture), box = $('#capture-one');
  box.hidden = !c;
  if (!c) { shown = ''; return; }
  const key = `${c.id} ${c.state}`;
  if (shown === key) return;
  shown = key;
  heat = null;
  text($('#capture-title'), `${of(c)}, ${moment(c.from)} to ${moment(c.to)}`);
  const files = $('#capture-files');
  files.replaceChildren(...c.files.filter((f) => f.format !== 'heat').map((f) => {
    const link = el('a', 'act', `${f.format} (${count(f.bytes)}B)`);
    link.href = f.href;
    link.download = `lens-${c.id}.${f.format}`;
    return link;
  }));
  slow.fill($('#capture-slow'), c.exemplars);
  const file = c.files.find((f) => f.format === 'heat');
  if (file) {
    try { heat = await ask(file.href); } catch (e) { text($('#capture-note'), `No plot: ${e.message}.`); }
  }
  if (shown !== key) return;
  const select = $('#capture-series');
  select.replaceChildren(...(heat ? heat.series : []).map((s, i) => new Option(`${s.slice} · ${STAGES[s.stage]} · ${s.arm}`, i)));
  paint(c);
};
/** Draws what is open again, as when the page's width or colours change. */
export const redraw = () => { const c = all && all.find((x) => x.id === view.capture); if (c && heat) paint(c); };

const show = () => {
  text($('#captures-say'), all.length ? `${all.length}; choose one to see it` : '');
  $('#captures-all').hidden = !all.length;
  $('#nocaptures').hidden = all.length > 0;
  keyed($('#captures-all tbody'), all, (c) => c.id, make, fill);
  open();
};
/** Asks for the list, now and then, or at once. */
export const refresh = async (now = false) => {
  if (!now && performance.now() - asked < ASK_AGAIN_MS) return;
  asked = performance.now();
  try { all = (await ask('/api/v1/captures')).captures; } catch (e) { text($('#captures-say'), `Captures cannot be shown: ${e.message}.`); return; }
  show();
  if (all.some((c) => c.state === 'collecting')) setTimeout(() => refresh(true), LOOK_MS);
};
/** That what is chosen changed. */
export const chosen = () => { if (all) open(); };

const wanted = () => ({ slice: view.slice || null, reason: 'asked for on the page' });
$('#capture').hidden = !allowed('capture.begin');
$('#capture').addEventListener('click', async () => {
  try {
    const begun = await tell('/api/v1/captures', wanted());
    say(`The last ten minutes of ${begun.slice || 'all slices'} are being captured.`);
    choose({ capture: begun.id });
    await refresh(true);
  } catch (e) { say(`Not captured: ${e.message}.`); }
});
$('#capture-curl').addEventListener('click', () => import('./download.js').then((d) => d.copy(curl('/api/v1/captures', wanted()))));
$('#capture-series').addEventListener('change', redraw);
document.addEventListener('click', (e) => {
  const tr = e.target.closest('#captures-all tbody tr');
  if (tr) choose({ capture: view.capture === tr.dataset.id ? '' : tr.dataset.id });
});
