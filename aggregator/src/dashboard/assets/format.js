// Numbers for people: three significant digits, a unit, and – for what was not measured.
// Must agree with render.rs, which writes the first paint.

export const STAGES = { e2e: 'e2e', stage_a: 'A lexical', stage_b: 'B symbols', stage_c: 'C rerank' };
export const ARMS = ['baseline', 'canary'];
export const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

export const three = (x) => {
  const y = Number(x.toPrecision(3));
  return y >= 100 ? y.toFixed(0) : y >= 10 ? y.toFixed(1) : y.toFixed(2);
};
export const ms = (x) => {
  if (x == null) return '–';
  const y = Number(x.toPrecision(3));
  return y >= 1000 ? `${three(y / 1000)} s` : y >= 1 || y === 0 ? `${three(y)} ms` : `${three(y * 1000)} µs`;
};
export const signedMs = (x) => (x == null ? '–' : x < 0 ? `−${ms(-x)}` : ms(x));
/** As short as an axis wants it. */
export const tick = (x) => (x >= 1000 ? `${+(x / 1000).toPrecision(3)} s` : x >= 1 ? `${+x.toPrecision(3)} ms` : `${+(x * 1000).toPrecision(3)} µs`);
export const count = (n) => {
  if (n == null) return '–';
  if (n < 10000) return String(Math.round(n));
  const e = n >= 999.5e6 ? [1e9, 'G'] : n >= 999.5e3 ? [1e6, 'M'] : [1e3, 'k'];
  return `${three(n / e[0])} ${e[1]}`;
};
export const times = (x) => (x == null ? '–' : `${three(x)}×`);
export const rate = (x) => (x == null ? '–' : x === 0 ? '0/s' : x >= 10000 ? `${count(x)}/s` : `${three(x)}/s`);
/** A share in percent, as far as two digits tell. */
export const percent = (share) => (share == null ? '–' : `${+(share * 100).toPrecision(2)} %`);
/** How much larger `x` is than `y`, in percent with its sign. */
export const change = (x, y) => (x == null || !y ? '–' : `${x >= y ? '+' : '−'}${three(Math.abs(x / y - 1) * 100)} %`);
export const age = (s) => {
  if (s == null) return '–';
  return s < 9.95 ? `${s.toFixed(1)} s` : s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
};
export const clock = (t, seconds = true) => new Date(t).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined, hourCycle: 'h23' });
/** With the day, where it is not today. */
export const moment = (t) => {
  const at = new Date(t), today = new Date().toDateString() === at.toDateString();
  return today ? clock(t) : `${at.toLocaleDateString([], { month: 'short', day: 'numeric' })} ${clock(t, false)}`;
};
export const interval = (v) => (v && v.low_ms != null && v.high_ms != null ? `${ms(v.low_ms)} – ${ms(v.high_ms)}` : '');
export const iso = (t) => new Date(t).toISOString().replace(/\.\d+Z$/, 'Z');

// ---- verdicts

export const WORST = ['violation', 'stale', 'insufficient_data', 'ok'];
/** What a row says: its tail verdict, unless a limit of its stage is broken, which is worse. */
export const judged = (r) => {
  const v = r.verdict;
  return v !== 'stale' && v !== 'violation' && r.slo_ok === false ? ['violation', 'over limit'] : [v, v === 'insufficient_data' ? 'few samples' : v];
};
export const overLimit = (r) => r.slo.filter((l) => l.state === 'violation');
export const why = (r) => [r.reason, ...overLimit(r).map((l) => `${l.quantile} is ${l.value_ms == null ? 'above range' : ms(l.value_ms)}, more than ${ms(l.limit_ms)}`)].join('; ');
export const keyOf = (r) => `${r.slice}|${r.stage}|${r.arm}`;
export const nameOf = (r) => `${r.slice} · ${STAGES[r.stage] || r.stage} · ${r.arm}`;
