// Agents: whether each is heard, how far behind it is, and what time it did not account for.

import { $, attr, badge, keyed, stamp, text } from './dom.js';
import { age, count, moment, ms, signedMs } from './format.js';

/** Seconds within the window that an agent did not account for, and the gaps behind them. */
const missing = (snap, name) => {
  const now = Date.parse(snap.t), begin = now - snap.window_s * 1000;
  const gaps = snap.incomplete.filter((gap) => gap.agent === name);
  const seconds = gaps.reduce((sum, gap) => sum + (gap.to ? Math.min(now, Date.parse(gap.to)) : now) - Math.max(begin, Date.parse(gap.from)), 0) / 1000;
  return [seconds, gaps];
};
const stateOf = (a) => (a.connected ? ['ok', 'connected'] : a.left ? ['insufficient_data', 'left'] : ['stale', 'gone']);

export const show = (snap) => {
  $('#noagents').hidden = snap.agents.length > 0;
  $('#agents').hidden = !snap.agents.length;
  keyed($('#agents tbody'), snap.agents, (a) => a.name, () => stamp('#t-agent'), (tr, a) => {
    const refused = Object.entries(a.rejected), [gone, gaps] = missing(snap, a.name), cell = (f) => $(`[data-f=${f}]`, tr);
    text($('th', tr), a.name);
    badge($('.v', tr), stateOf(a), `${a.identity} ${a.version} from ${a.address || 'nowhere since this aggregator started'}`);
    text(cell('frame'), `${age(a.age_s)} ago`);
    text(cell('lag'), ms(a.lag_ms));
    const whole = snap.window_s ? Math.max(0, 1 - gone / snap.window_s) : 1;
    text(cell('whole'), gone ? `${(whole * 100).toFixed(whole > 0.99 ? 2 : 1)} %` : '100 %');
    cell('whole').classList.toggle('hot', gone > 0);
    attr(cell('whole'), 'title', gone ? `not accounted for: ${gaps.map((g) => `${moment(g.from)} to ${g.to ? moment(g.to) : 'now'}`).join(', ')}` : `every second of the last ${age(snap.window_s)} is accounted for`);
    text(cell('offset'), signedMs(a.clock_offset_ms));
    text(cell('spool'), a.spool_age_s == null ? '–' : age(a.spool_age_s));
    attr(cell('spool'), 'title', a.spool_age_s == null ? a.reason : 'age of the oldest frame that waits to be sent');
    const flags = a.applied_generation, failed = a.flag_pages_failed > 0 || a.flag_trouble;
    text(cell('flags'), flags == null ? '–' : `${flags}`);
    cell('flags').classList.toggle('hot', Boolean(failed));
    attr(cell('flags'), 'title', flags == null ? 'it has not said which flags it has in force' : `generation of flags in force, on ${a.flag_pages} nodes’ pages${failed ? `; ${a.flag_pages_failed} could not be written${a.flag_trouble ? `: ${a.flag_trouble}` : ''}` : ''}`);
    text(cell('nodes'), `${a.instances.length}`);
    attr(cell('nodes'), 'title', a.instances.join(', '));
    text(cell('samples'), count(a.samples));
    text(cell('late'), count(a.late));
    text(cell('refused'), count(refused.reduce((n, x) => n + x[1], 0)));
    attr(cell('refused'), 'title', refused.map((x) => x.join(': ')).join(', '));
  });
};
