// Slow requests by their traces: what to look up when a tail is long.

import { button, el, table } from './dom.js';
import { STAGES, clock, ms } from './format.js';

const SHOWN_MAX = 20;

/** Fills a box with the slowest of them, each with its trace to copy. */
export const fill = (box, slow) => {
  if (!slow.length) return box.replaceChildren(el('p', 'muted', 'No request of this time has a trace: nodes record one with record_traced.'));
  const copies = (s) => button(s.trace_id, () => import('./download.js').then((d) => d.copy(s.trace_id)), 'act mono');
  const rows = slow.slice(0, SHOWN_MAX).map((s) => [copies(s), ms(s.latency_ms), clock(s.t), `${s.slice} · ${STAGES[s.stage]} · ${s.arm}`, s.instance]);
  const shown = el('div', 'scroll', table('Slow requests', ['trace (press to copy)', '#latency', '#at', 'series', 'node'], rows));
  shown.tabIndex = 0;
  shown.setAttribute('role', 'region');
  shown.setAttribute('aria-label', 'Slow requests');
  box.replaceChildren(shown);
};
