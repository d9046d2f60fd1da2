// Guards: what watches search itself, beside its latency, and how each of them stands.

import { $, badge, el, keyed, newBadge, text } from './dom.js';
import { moment } from './format.js';

const STATES = { ok: ['ok', 'ok'], suspect: ['degraded', 'suspect'], alarm: ['violation', 'alarm'], insufficient_data: ['insufficient_data', 'no data'] };

const row = () => {
  const tr = el('tr', '', el('th'), el('td', '', newBadge(STATES.ok)), el('td'), el('td'));
  tr.firstChild.scope = 'row';
  return tr;
};

/** Fills the table; without a guard configured there is none. */
export const show = (snap) => {
  $('#guards').hidden = !snap.guards.length;
  const bad = snap.guards.filter((g) => g.state !== 'ok').length;
  text($('#guards-say'), bad ? `${bad} of ${snap.guards.length} not known to be well` : `all ${snap.guards.length} well`);
  keyed($('#guards tbody'), snap.guards, (g) => g.guard, row, (tr, g) => {
    text(tr.cells[0], g.guard);
    badge($('.v', tr), STATES[g.state], JSON.stringify(g.evidence));
    text(tr.cells[2], g.since ? moment(g.since) : '');
    text(tr.cells[3], g.message);
  });
};
