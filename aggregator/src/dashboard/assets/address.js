// What the reader chose, kept in the address: a link shows another reader the same, and back and
// forward go through choices. What is not in the address is as the page begins.
//
// slice, stage, arm: the series. r: a span such as 15m, or FROM/TO in RFC 3339. cells: count or
// percent. zoom: full or tail. view: full or tail of the spectrum. sort, q: the table.
// open: verdict, or alert:ID. capture: the id of one.

const BEGIN = { slice: '', stage: '', arm: '', r: '15m', cells: 'count', zoom: 'full', view: 'full', sort: '', q: '', open: '', capture: '' };
export const SPANS = { '5m': 300, '15m': 900, '1h': 3600, '6h': 21600, '1d': 86400, '7d': 604800 };
/** Widths of a step, seconds: multiples of the 5 s window that people can read. */
const STEPS = [5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900, 1800, 3600, 10800, 21600, 86400];

export const view = { ...BEGIN };
const listeners = [];
export const onView = (listener) => listeners.push(listener);

const absolute = (r) => {
  const [from, to] = r.split('/').map((t) => Date.parse(t));
  return to > from ? [from, to] : null;
};
const ALLOWED = {
  r: (r) => SPANS[r] || absolute(r), cells: (c) => c === 'percent', zoom: (z) => z === 'tail', view: (v) => v === 'tail',
};
const read = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name in BEGIN) {
    const value = given.get(name);
    view[name] = value && (!ALLOWED[name] || ALLOWED[name](value)) ? value : BEGIN[name];
  }
};
const written = () => {
  const all = new URLSearchParams();
  for (const name in BEGIN) if (view[name] && view[name] !== BEGIN[name]) all.set(name, view[name]);
  return `#${all.toString().replace(/%2F/g, '/').replace(/%3A/g, ':')}`;
};

/** Changes what is chosen. A step back undoes it, unless it is one keystroke of many. */
export const choose = (part, replace = false) => {
  const before = { ...view };
  Object.assign(view, part);
  const changed = Object.keys(BEGIN).filter((name) => view[name] !== before[name]);
  if (!changed.length) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', written());
  for (const listener of listeners) listener(changed);
};

/** The chosen time as instants in ms; `now` is the aggregator's. */
export const range = (now) => {
  const fixed = absolute(view.r);
  const [from, to] = fixed || [now - SPANS[view.r] * 1000, now];
  return { from, to, fixed: fixed !== null, span: (to - from) / 1000 };
};
/** The narrowest step that gives no more than `most` of them. */
export const stepFor = (span, most) => STEPS.find((step) => span / step <= most) || STEPS[STEPS.length - 1];

/** Chooses FROM/TO, at least 10 s of it. */
export const chooseRange = (from, to) => {
  const wide = Math.max(to - from, 10000), middle = (from + to) / 2;
  const at = (t) => new Date(Math.round(t / 1000) * 1000).toISOString().replace('.000Z', 'Z');
  choose({ r: `${at(middle - wide / 2)}/${at(middle + wide / 2)}` });
};

export const follow = () => {
  read();
  const again = () => {
    const before = { ...view };
    read();
    const changed = Object.keys(BEGIN).filter((name) => view[name] !== before[name]);
    if (changed.length) for (const listener of listeners) listener(changed);
  };
  addEventListener('popstate', again);
  addEventListener('hashchange', again);
};
