// The live page: fills the server's first paint from the event stream, and draws two charts.
// No library, no network but the aggregator. Every row is one DOM node, kept by its data-key.
(() => {
  'use strict';
  const $ = (s, at = document) => at.querySelector(s);
  const $$ = (s, at = document) => [...at.querySelectorAll(s)];
  const STAGES = { e2e: 'e2e', stage_a: 'A lexical', stage_b: 'B symbols', stage_c: 'C rerank' };
  /** What a row says: its tail verdict, unless a limit of its stage is broken, which is worse. */
  const judged = (r) => {
    const v = r.verdict;
    return v !== 'stale' && v !== 'violation' && r.slo_ok === false ? ['violation', 'over limit'] : [v, v === 'insufficient_data' ? 'few samples' : v];
  };
  const overLimit = (r) => r.slo.filter((l) => l.state === 'violation');
  const why = (r) => [r.reason, ...overLimit(r).map((l) => `${l.quantile} is ${l.value_ms == null ? 'above range' : ms(l.value_ms)}, more than ${ms(l.limit_ms)}`)].join('; ');
  const WORST = ['violation', 'stale', 'insufficient_data', 'ok'];
  const RANGES = { '5m': [300, 5], '15m': [900, 5], '1h': [3600, 30] };
  const keyOf = (r) => `${r.slice}|${r.stage}|${r.arm}`;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

  // ---- numbers for people: three significant digits; must agree with render.rs

  const three = (x) => {
    const y = Number(x.toPrecision(3));
    return y >= 100 ? y.toFixed(0) : y >= 10 ? y.toFixed(1) : y.toFixed(2);
  };
  const ms = (x) => {
    if (x == null) return '–';
    const y = Number(x.toPrecision(3));
    return y >= 1000 ? `${three(y / 1000)} s` : y >= 1 || y === 0 ? `${three(y)} ms` : `${three(y * 1000)} µs`;
  };
  const tick = (x) => (x >= 1000 ? `${+(x / 1000).toPrecision(3)} s` : x >= 1 ? `${+x.toPrecision(3)} ms` : `${+(x * 1000).toPrecision(3)} µs`);
  const count = (n) => {
    if (n == null) return '–';
    if (n < 10000) return String(Math.round(n));
    const e = n >= 999.5e6 ? [1e9, 'G'] : n >= 999.5e3 ? [1e6, 'M'] : [1e3, 'k'];
    return `${three(n / e[0])} ${e[1]}`;
  };
  const times = (x) => (x == null ? '–' : `${three(x)}×`);
  const rate = (x) => (x == null ? '–' : x === 0 ? '0/s' : x >= 10000 ? `${count(x)}/s` : `${three(x)}/s`);
  const age = (s) => {
    if (s == null) return '–';
    return s < 9.95 ? `${s.toFixed(1)} s` : s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
  };
  const clock = (t, seconds = true) => new Date(t).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined, hourCycle: 'h23' });
  const interval = (v) => (v && v.low_ms != null && v.high_ms != null ? `${ms(v.low_ms)} – ${ms(v.high_ms)}` : '');

  // ---- small DOM helpers that touch nothing already right

  const text = (node, value) => { if (node && node.textContent !== value) node.textContent = value; };
  const attr = (node, name, value) => {
    if (value == null || value === '') { if (node.hasAttribute(name)) node.removeAttribute(name); } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  };
  const badge = (node, [v, word], title) => {
    attr(node, 'data-v', v);
    attr($('use', node), 'href', `#i-${v}`);
    text($('b', node), word);
    attr(node, 'title', title);
  };
  const el = (tag, className, content) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (content != null) node.textContent = content;
    return node;
  };
  const svg = (tag, attributes, content) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const name in attributes) node.setAttribute(name, attributes[name]);
    if (content != null) node.textContent = content;
    return node;
  };
  /** Makes the children of `parent` be `items`, in order, reusing nodes by key; keeps the focus. */
  const keyed = (parent, items, key, make, fill) => {
    const old = new Map([...parent.children].map((n) => [n.dataset.key, n]));
    const held = parent.contains(document.activeElement) ? document.activeElement : null;
    let at = parent.firstElementChild;
    for (const item of items) {
      const k = key(item);
      let node = old.get(k);
      if (node) old.delete(k); else { node = make(item); node.dataset.key = k; }
      fill(node, item);
      if (node === at) at = at.nextElementSibling; else parent.insertBefore(node, at);
    }
    for (const node of old.values()) node.remove();
    if (held && held !== document.activeElement && held.isConnected) held.focus({ preventScroll: true });
  };
  const stamp = (id) => $(id).content.firstElementChild.cloneNode(true);

  // ---- what the reader chose, kept in the address

  const chosen = { s: '', sort: '', r: '15m', q: '' };
  const readHash = () => {
    const p = new URLSearchParams(location.hash.slice(1));
    chosen.s = p.get('s') || chosen.s;
    chosen.sort = p.get('sort') || '';
    chosen.r = RANGES[p.get('r')] ? p.get('r') : '15m';
    chosen.q = p.get('q') || '';
  };
  const writeHash = () => {
    const p = new URLSearchParams();
    for (const k in chosen) if (chosen[k] && !(k === 'r' && chosen[k] === '15m')) p.set(k, chosen[k]);
    history.replaceState(null, '', `#${p.toString().replace(/%2F/g, '/')}`);
  };

  let snap = null;
  let doc = { key: '', heat: null, arms: null, note: '' };

  // ---- rows

  const number = (td, shown, title) => {
    text($('span', td), shown);
    attr(td, 'title', title);
    text($('.vh', td), shown === '–' ? ` not measured: ${title}` : '');
  };
  const fillRow = (tr, r) => {
    attr(tr, 'aria-current', keyOf(r) === chosen.s ? 'true' : '');
    const hot = overLimit(r).map((l) => l.quantile);
    if (r.verdict === 'violation') hot.push('ratio');
    for (const td of $$('td.num', tr)) {
      const f = td.dataset.f, v = r[f];
      td.classList.toggle('hot', hot.includes(f));
      if (f[0] === 'p') {
        number(td, ms(v.value_ms), v.reason || (interval(v) && `95 % interval ${interval(v)}`));
      } else if (f === 'ratio') number(td, times(v), v == null ? r.reason : `at most ${r.ratio_max}`);
      else if (f === 'count') number(td, count(v), `${v} in the window, ${r.merged_total} ever`);
      else if (f === 'rate') number(td, rate(r.rate_per_s), r.rate_per_s == null ? 'too early' : '');
      else if (f === 'age') number(td, age(r.age_s), `last sample ${clock(r.last_seen)}`);
      else number(td, String(v), '');
    }
    badge($('.v', tr), judged(r), why(r));
  };
  const made = (id, r, label) => {
    const tr = stamp(id);
    $('button', tr).textContent = label;
    tr.dataset.stage = r.stage;
    tr.dataset.arm = r.arm;
    return tr;
  };
  const makeMini = (r) => {
    const tr = made('#t-mini', r, r.sub ? `↳ ${r.arm}` : STAGES[r.stage] + (r.arm === 'canary' ? ' canary' : ''));
    tr.classList.toggle('sub', r.sub);
    return tr;
  };
  const makeRow = (r) => {
    const tr = made('#t-row', r, r.slice);
    $('[data-f=stage]', tr).textContent = STAGES[r.stage];
    $('[data-f=arm]', tr).textContent = r.arm;
    return tr;
  };
  const ORDER = Object.keys(STAGES);
  const inOrder = (a, b) => (a.slice < b.slice ? -1 : a.slice > b.slice ? 1 : ORDER.indexOf(a.stage) - ORDER.indexOf(b.stage) || (a.arm < b.arm ? -1 : 1));
  const match = (key) => !chosen.q || key.includes(chosen.q.toLowerCase());

  const column = (r, c) => {
    if (c === 'stage') return ORDER.indexOf(r.stage);
    if (c === 'verdict') return WORST.indexOf(judged(r)[0]);
    const v = r[{ rate: 'rate_per_s', age: 'age_s' }[c] || c];
    return v && v.reason !== undefined ? v.value_ms : v;
  };
  const sorted = (rows) => {
    const [, down, c] = /^(-?)(.*)$/.exec(chosen.sort);
    return !c ? rows : [...rows].sort((a, b) => {
      const x = column(a, c), y = column(b, c);
      return x == null || y == null ? (x == null) - (y == null) : (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    });
  };
  const freshest = (rows) => (rows.length ? age(Math.min(...rows.map((r) => r.age_s))) + ' ago' : 'never');

  const showRows = () => {
    const rows = snap.rows.filter((r) => match(keyOf(r)));
    const slices = new Map(snap.slices.filter((s) => match(s)).map((s) => [s, []]));
    for (const r of rows) slices.set(r.slice, [...(slices.get(r.slice) || []), r]);
    keyed($('#tiles'), [...slices].sort((a, b) => (a[0] < b[0] ? -1 : 1)), (s) => s[0], () => stamp('#t-tile'), (tile, [slice, of]) => {
      text($('h3', tile), slice);
      const all = of.map(judged).sort((a, b) => WORST.indexOf(a[0]) - WORST.indexOf(b[0]));
      attr(tile, 'data-v', all.length ? all[0][0] : 'insufficient_data');
      badge($('header .v', tile), all[0] || ['insufficient_data', 'few samples']);
      text($('header small', tile), `seen ${freshest(of)}`.replace('seen never', 'never seen'));
      let before = null;
      for (const r of of) { r.sub = r.arm === 'canary' && before === r.stage; before = r.stage; }
      keyed($('tbody', tile), of, (r) => keyOf(r) + (r.sub ? '+' : ''), makeMini, fillRow);
    });
    keyed($('#rows'), sorted(rows), keyOf, makeRow, fillRow);
    text($('#shown'), rows.length === snap.rows.length ? `${rows.length} series` : `${rows.length} of ${snap.rows.length} series`);
    $('#nomatch').hidden = slices.size > 0;
    for (const th of $$('#all thead th')) {
      attr(th, 'aria-sort', chosen.sort === th.dataset.c ? 'ascending' : chosen.sort === `-${th.dataset.c}` ? 'descending' : '');
    }
  };

  const showHead = () => {
    const h = snap.health;
    const word = h.status[0].toUpperCase() + h.status.slice(1);
    badge($('.health .v'), [h.status, word]);
    text($('.health .say'), h.summary);
    document.title = `${word} · lens`;
    text($('#f-agents'), `${snap.totals.agents_connected} of ${snap.totals.agents}`);
    text($('#f-samples'), count(snap.totals.samples));
    text($('#f-rate'), rate(snap.totals.rate_per_s));
    text($('#f-fresh'), freshest(snap.rows));
    const fed = snap.rows.length > 0;
    $('#empty').hidden = fed;
    for (const n of $$('.fed')) n.hidden = !fed && (n.matches('.js') || !snap.slices.length);
  };

  const showAgents = () => {
    $('#noagents').hidden = snap.agents.length > 0;
    $('#agents').hidden = !snap.agents.length;
    keyed($('#agents tbody'), snap.agents, (a) => a.name, () => stamp('#t-agent'), (tr, a) => {
      const cells = tr.children, refused = Object.entries(a.rejected);
      [a.name, '', `${age(a.age_s)} ago`, ms(a.lag_ms), a.clock_offset_ms < 0 ? `−${ms(-a.clock_offset_ms)}` : ms(a.clock_offset_ms), count(a.samples), count(refused.reduce((n, x) => n + x[1], 0))]
        .forEach((shown, i) => { if (i !== 1) text(cells[i], shown); });
      badge($('.v', tr), a.connected ? ['ok', 'connected'] : ['stale', 'gone'], `${a.identity} ${a.version} from ${a.address}`);
      attr(cells[6], 'title', refused.map((x) => x.join(': ')).join(', '));
    });
  };

  // ---- alerts

  const LOOKS = { firing: 'violation', pending: 'insufficient_data', acknowledged: 'stale', silenced: 'stale', queued: 'insufficient_data', delivered: 'ok', dead: 'violation' };
  const showAlerts = () => {
    const { alerts } = snap, { sinks, open, deliveries } = alerts;
    $('#alerts').hidden = !open.length && !sinks.length && !snap.rows.length;
    $('#noalerts').hidden = open.length > 0;
    $('#open').hidden = !open.length;
    text($('#alerts-say'), `${alerts.firing} firing, ${alerts.critical} critical, ${alerts.pending} pending`);
    keyed($('#open tbody'), open, (a) => `${a.key} ${a.episode}`, () => stamp('#t-alert'), (tr, a) => {
      const what = [a.summary, a.reading === 'unknown' ? 'no data since' : '', a.acknowledged_by ? `taken on by ${a.acknowledged_by}` : '', a.quiet && a.state !== 'silenced' ? a.quiet : ''].filter(Boolean).join('; ');
      [a.key, '', a.severity, clock(a.opened), what].forEach((shown, i) => { if (i !== 1) text(tr.children[i], shown); });
      badge($('.v', tr), [LOOKS[a.state], a.state], [`id ${a.id}`, ...a.recommended_actions].join('\n'));
    });
    const failing = sinks.filter((s) => s.failing_since);
    $('#deliveries').hidden = !sinks.length;
    text($('#sinks-say'), `${sinks.length} sinks, ${failing.length ? `${failing.map((s) => s.name).join(', ')} failing` : 'none failing'}${alerts.durable ? '' : ', forgotten at a restart'}`);
    keyed($('#deliveries tbody'), deliveries, (d) => `${d.sink} ${d.id}`, () => stamp('#t-delivery'), (tr, d) => {
      [d.sink, '', `${d.kind} ${d.alerts.join(', ')}`, count(d.attempts), clock(d.queued), d.said || '–'].forEach((shown, i) => { if (i !== 1) text(tr.children[i], shown); });
      badge($('.v', tr), [LOOKS[d.progress], d.progress], d.id);
    });
  };

  // ---- the chosen series

  const current = () => snap && snap.rows.find((r) => keyOf(r) === chosen.s);
  const showChosen = () => {
    const select = $('#pick');
    const keys = snap.rows.map(keyOf).join();
    if (select.dataset.keys !== keys) {
      select.dataset.keys = keys;
      select.replaceChildren();
      let group = null;
      for (const r of snap.rows) {
        if (!group || group.label !== r.slice) { group = el('optgroup'); group.label = r.slice; select.append(group); }
        group.append(new Option(`${r.slice} · ${STAGES[r.stage]} · ${r.arm}`, keyOf(r)));
      }
    }
    if (!current() && snap.rows.length) chosen.s = keyOf(snap.rows.find((r) => r.count) || snap.rows[0]);
    select.value = chosen.s;
    const r = current();
    if (!r) return;
    badge($('#c-verdict'), judged(r));
    text($('#c-reason'), why(r));
    const fact = (id, shown, small) => { text($(`#c-${id} span`), shown); text($(`#c-${id} small`), small); };
    for (const q of ['p50', 'p95', 'p99', 'p99_9']) fact(q, ms(r[q].value_ms), r[q].reason || interval(r[q]));
    fact('ratio', times(r.ratio), `at most ${r.ratio_max}`);
    fact('count', count(r.count), rate(r.rate_per_s));
  };

  let turn = 0;
  const load = async () => {
    const r = current();
    if (!r) return;
    const mine = ++turn, key = `${chosen.s} ${chosen.r}`, [span, step] = RANGES[chosen.r];
    const ask = async (arm, more) => {
      const p = new URLSearchParams({ slice: r.slice, stage: r.stage, arm, from: `-${span}s`, format: 'json', ...more });
      const reply = await fetch(`/api/v1/histogram?${p}`, { cache: 'no-store' });
      const body = await reply.json().catch(() => ({}));
      if (!reply.ok) throw new Error(body.detail || body.title || `the aggregator answered ${reply.status}`);
      return body;
    };
    try {
      const arms = ['baseline', 'canary'].filter((arm) => snap.rows.some((x) => x.slice === r.slice && x.stage === r.stage && x.arm === arm));
      const [heat, ...spectra] = await Promise.all([ask(r.arm, { step: `${step}s` }), ...arms.map((arm) => ask(arm, {}))]);
      if (mine !== turn) return;
      doc = { key, heat, arms: Object.fromEntries(arms.map((arm, i) => [arm, spectra[i]])), note: '', until: Date.parse(snap.t), span, step };
    } catch (e) {
      if (mine !== turn) return;
      doc = { key, heat: null, arms: null, note: `No chart: ${e.message}. Trying again.` };
    }
    draw();
  };

  // ---- heatmap

  let plot = null;
  /** The bounds in ms of the bucket `i` of a stepped reply. */
  const edge = (heat, i) => [heat.edges_ms[i], heat.edges_ms[i + 1]];
  const oneTwoFive = (low, high) => {
    const out = [];
    for (let d = Math.floor(Math.log10(low)) - 1; d <= Math.ceil(Math.log10(high)); d++) for (const m of [1, 2, 5]) out.push(m * 10 ** d);
    return out.map((x) => Number(x.toPrecision(3)));
  };
  const bounds = (low, high) => {
    const ladder = oneTwoFive(low, high);
    const a = ladder.filter((x) => x <= low * 1.001).pop();
    const b = ladder.find((x) => x >= high * 0.999 && x > a);
    return [a, b];
  };
  const yTicks = (low, high, px) => {
    const all = oneTwoFive(low, high).filter((x) => x >= low * 0.999 && x <= high * 1.001);
    const decades = all.filter((x) => Math.abs(Math.log10(x) - Math.round(Math.log10(x))) < 1e-6);
    const gap = px / Math.max(0.1, Math.log10(high / low));
    return { labels: decades.length < 3 && gap > 70 ? all : decades, lines: decades };
  };
  const heatmap = () => {
    const canvas = $('#heat'), box = canvas.parentElement, w = box.clientWidth, h = box.clientHeight;
    const dpr = window.devicePixelRatio || 1;
    canvas.width = Math.round(w * dpr);
    canvas.height = Math.round(h * dpr);
    const g = canvas.getContext('2d');
    g.scale(dpr, dpr);
    plot = null;
    const heat = doc.heat;
    const filled = heat ? heat.columns.filter((c) => c.count > 0) : [];
    const note = $('#heat-note');
    note.hidden = filled.length > 0;
    text(note, doc.note || (heat ? `No samples of this series in the last ${chosen.r.replace('m', ' min').replace('h', ' h')}.` : 'Loading…'));
    $('#heat-key').hidden = !filled.length;
    if (!filled.length) return;

    let low = Infinity, high = 0;
    for (const c of filled) for (const [i] of c.buckets) { const [a, b] = edge(heat, i); low = Math.min(low, Math.max(a, 1e-5)); high = Math.max(high, b); }
    [low, high] = bounds(low, high);
    const left = 52, right = 10, top = 8, bottom = 24, pw = w - left - right, ph = h - top - bottom;
    const rows = Math.max(12, Math.round(ph / 5));
    const end = Math.max(doc.until || 0, Date.parse(filled[filled.length - 1].t) + doc.step * 1000), 
      // A young aggregator has no long past to leave empty.
      start = Math.max(end - doc.span * 1000, Math.min(Date.parse(filled[0].t), end - 60000));
    const l0 = Math.log(low), per = rows / (Math.log(high) - l0);
    const x = (t) => left + ((t - start) / (end - start)) * pw;
    const y = (v) => top + ph - ((Math.log(v) - l0) * per / rows) * ph;

    // Each bucket is spread over the rows it covers, by its share of the log axis: sums stay exact.
    let most = 1;
    const cells = filled.map((c) => {
      const cell = new Float64Array(rows);
      for (const [i, n] of c.buckets) {
        const [a, b] = edge(heat, i);
        const from = clamp((Math.log(Math.max(a, low)) - l0) * per, 0, rows - 1e-6), to = clamp((Math.log(Math.max(b, low)) - l0) * per, from + 1e-6, rows);
        for (let k = Math.floor(from); k < to; k++) cell[k] += n * (Math.min(to, k + 1) - Math.max(from, k)) / (to - from);
      }
      for (const n of cell) most = Math.max(most, n);
      return { t: Date.parse(c.t), cell, c };
    }).filter((c) => c.t + doc.step * 1000 > start);

    const stops = [0, 1, 2, 3, 4].map((i) => css(`--h${i}`).match(/[\da-f]{2}/gi).map((p) => parseInt(p, 16)));
    const lut = Array.from({ length: 65 }, (_, i) => {
      const at = (i / 64) * 4, k = Math.min(3, Math.floor(at));
      return `rgb(${stops[k].map((s, j) => Math.round(s + (stops[k + 1][j] - s) * (at - k)))})`;
    });
    const scale = Math.log(Math.max(2, most));
    const snapPx = (v) => Math.round(v * dpr) / dpr;
    g.strokeStyle = css('--line');
    g.lineWidth = 1;
    const ticks = yTicks(low, high, ph);
    for (const { t, cell } of cells) {
      const x0 = snapPx(Math.max(left, x(t))), x1 = snapPx(Math.min(left + pw, x(t + doc.step * 1000)));
      cell.forEach((n, k) => {
        if (n < 0.005) return;
        const y1 = snapPx(top + ph - (k / rows) * ph), y0 = snapPx(top + ph - ((k + 1) / rows) * ph);
        g.fillStyle = lut[Math.round(64 * clamp(Math.log(Math.max(1, n)) / scale, 0, 1))];
        g.fillRect(x0, y0, x1 - x0, y1 - y0);
      });
    }
    g.font = '12px system-ui, sans-serif';
    g.fillStyle = css('--muted');
    g.textAlign = 'right';
    g.textBaseline = 'middle';
    for (const v of ticks.labels) { g.fillText(tick(v), left - 6, clamp(y(v), top + 4, top + ph - 4)); g.fillRect(left - 3, snapPx(y(v)), 3, 1); }
    g.globalAlpha = 0.5;
    for (const v of ticks.lines) g.fillRect(left, snapPx(y(v)), pw, 1);
    g.globalAlpha = 1;
    g.textAlign = 'center';
    g.textBaseline = 'alphabetic';
    const every = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600].find((s) => (s * 1000 / (end - start)) * pw >= 64) || 3600;
    for (let t = Math.ceil(start / 1000 / every) * every * 1000; t <= end; t += every * 1000) {
      g.fillRect(snapPx(x(t)), top + ph, 1, 4);
      const label = clock(t, every < 60), half = g.measureText(label).width / 2;
      g.fillText(label, clamp(x(t), left + half, w - half), h - 6);
    }
    g.fillRect(left, top + ph, pw, 1);
    // p99 over it, dark on light halo, broken where nothing was measured
    for (const [colour, width] of [[css('--halo'), 4.5], [css('--ink'), 1.75]]) {
      g.strokeStyle = colour;
      g.lineWidth = width;
      g.lineJoin = 'round';
      g.beginPath();
      let last = null;
      for (const { t, c } of cells) {
        if (c.p99_ms == null) { last = null; continue; }
        const px = clamp(x(t + doc.step * 500), left, left + pw), py = y(clamp(c.p99_ms, low, high));
        if (last != null && t - last <= doc.step * 1000 * 1.5) g.lineTo(px, py); else { g.moveTo(px - 1, py); g.lineTo(px, py); }
        last = t;
      }
      g.stroke();
    }
    text($('#ramp-low'), '1');
    text($('#ramp-high'), `${count(Math.ceil(most))} samples a cell, log`);
    const newest = cells[cells.length - 1].c;
    attr(canvas, 'aria-label', `Heatmap of ${chosen.s.replace(/\|/g, ' ')}: latencies from ${tick(low)} to ${tick(high)} over ${chosen.r}; newest p99 ${ms(newest.p99_ms)} from ${newest.count} samples. Arrow keys read it column by column.`);
    plot = { left, top, pw, ph, cells, start, end, low, high, x, y, at: null };
  };
  const readAt = (index, py) => {
    if (!plot || !plot.cells[index]) return text($('#heat-read'), '');
    const { t, cell, c } = plot.cells[index];
    let more = '';
    if (py != null) {
      const k = clamp(Math.floor((1 - (py - plot.top) / plot.ph) * cell.length), 0, cell.length - 1);
      const v = (i) => plot.low * (plot.high / plot.low) ** (i / cell.length);
      more = `, ${count(Math.round(cell[k]))} between ${ms(v(k))} and ${ms(v(k + 1))}`;
    }
    plot.at = index;
    text($('#heat-read'), `${clock(t)}: ${count(c.count)} samples, p99 ${ms(c.p99_ms)}${more}`);
  };
  const hover = (e) => {
    if (!plot) return;
    const box = e.currentTarget.getBoundingClientRect(), t = plot.start + ((e.clientX - box.left - plot.left) / plot.pw) * (plot.end - plot.start);
    readAt(plot.cells.findIndex((c) => c.t <= t && t < c.t + doc.step * 1000), e.clientY - box.top);
  };

  // ---- percentile spectrum

  /** Value below which a share q of the samples lies: the bucket that holds rank ceil(q·n). */
  const quantile = (h, q) => {
    const rank = clamp(Math.ceil(q * h.count - 1e-9), 1, h.count);
    let seen = 0;
    for (const [a, b, n] of h.buckets) { seen += n; if (seen >= rank) return (a + b) / 2; }
    return null;
  };
  const QS = [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
  const spectrum = () => {
    const at = $('#spectrum'), w = at.parentElement.clientWidth, h = at.parentElement.clientHeight;
    const arms = Object.entries(doc.arms || {}).filter(([, d]) => d.count > 0);
    const note = $('#spec-note');
    note.hidden = arms.length > 0;
    text(note, doc.note || (doc.arms ? 'No samples to take percentiles of.' : 'Loading…'));
    at.replaceChildren();
    attr(at, 'viewBox', `0 0 ${w} ${h}`);
    $('#spec-table').hidden = !arms.length;
    for (const arm of ['baseline', 'canary']) $(`#key-${arm}`).hidden = !arms.some(([a]) => a === arm);
    if (!arms.length) return;
    const n = Math.max(...arms.map(([, d]) => d.count));
    const decades = clamp(Math.ceil(Math.log10(Math.max(n, 2)) - 1e-9), 2, 5);
    const left = 52, right = arms.length > 1 || w > 420 ? 66 : 60, top = 8, bottom = 24, pw = w - left - right, ph = h - top - bottom;
    const lines = arms.map(([arm, d]) => {
      const far = Math.min(decades, Math.log10(d.count)), sure = Math.min(far, Math.log10(Math.max(1, d.count / 10)));
      const points = [];
      for (let i = 0; i <= 160; i++) { const e = (far * i) / 160; points.push([e, quantile(d, 1 - 10 ** -e)]); }
      return { arm, d, points, sure };
    });
    const values = lines.flatMap((l) => l.points.map((p) => Math.max(p[1], 1e-5)));
    const [low, high] = bounds(Math.min(...values), Math.max(...values));
    const x = (e) => left + (e / decades) * pw;
    const y = (v) => top + ph - (Math.log(v / low) / Math.log(high / low)) * ph;
    for (const v of yTicks(low, high, ph).labels) {
      at.append(svg('line', { class: 'grid', x1: left, x2: left + pw, y1: y(v), y2: y(v) }), svg('text', { x: left - 6, y: clamp(y(v), top + 4, top + ph - 4) + 4, 'text-anchor': 'end' }, tick(v)));
    }
    let free = -Infinity;
    for (const q of QS) {
      const e = -Math.log10(1 - q);
      if (e > decades + 1e-9) break;
      const label = q === 0.5 ? '50' : `${+(q * 100).toPrecision(7)}`, half = label.length * 3.6;
      at.append(svg('line', { class: 'grid', x1: x(e), x2: x(e), y1: top, y2: top + ph + 4 }));
      if (x(e) - half < free + 6) continue;
      free = x(e) + half;
      at.append(svg('text', { x: x(e), y: h - 6, 'text-anchor': 'middle' }, label));
    }
    const ends = [];
    for (const { arm, points, sure } of lines) {
      const path = (of) => of.map(([e, v], i) => `${i ? 'L' : 'M'}${x(e).toFixed(1)} ${y(Math.max(v, low)).toFixed(1)}`).join('');
      const cut = points.findIndex((p) => p[0] > sure), k = cut < 0 ? points.length : cut;
      at.append(svg('path', { class: `curve ${arm}`, d: path(points.slice(0, k)) }));
      if (k < points.length) at.append(svg('path', { class: `curve thin ${arm}`, d: path(points.slice(Math.max(0, k - 1))) }));
      const tip = points[points.length - 1];
      ends.push({ arm, x: x(tip[0]) + 6, y: y(tip[1]) + 4 });
    }
    ends.sort((a, b) => a.y - b.y);
    if (ends.length === 2 && ends[1].y - ends[0].y < 14) { const mid = (ends[0].y + ends[1].y) / 2; ends[0].y = mid - 7; ends[1].y = mid + 7; }
    const sink = Math.max(0, 14 - ends[0].y);
    for (const e of ends) at.append(svg('text', { class: e.arm, x: e.x, y: e.y + sink }, e.arm));
    const shown = [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999].filter((q) => n * (1 - q) >= 1);
    const table = $('#spec-table table');
    const head = $('thead tr', table), body = $('tbody', table);
    head.replaceChildren(el('th', '', 'percentile'), ...lines.map((l) => el('th', 'num', l.arm)), ...(lines.length > 1 ? [el('th', 'num', 'change')] : []));
    $$('th', head).forEach((th) => { th.scope = 'col'; });
    body.replaceChildren(...shown.map((q) => {
      const tr = el('tr'), got = lines.map((l) => (l.d.count * (1 - q) >= 1 ? quantile(l.d, q) : null));
      const th = el('th', '', `p${+(q * 100).toPrecision(6)}`);
      th.scope = 'row';
      tr.append(th, ...got.map((v) => el('td', 'num', ms(v))));
      if (got.length > 1) tr.append(el('td', 'num', got[0] && got[1] ? `${got[1] >= got[0] ? '+' : '−'}${three(Math.abs(got[1] / got[0] - 1) * 100)} %` : '–'));
      return tr;
    }));
    attr(at, 'aria-label', `Latency by percentile: ${lines.map((l) => `${l.arm} p50 ${ms(quantile(l.d, 0.5))}, p99 ${ms(quantile(l.d, 0.99))}`).join('; ')}. The table below holds the values.`);
  };
  const draw = () => { if (snap && snap.rows.length) { heatmap(); spectrum(); } };

  // ---- events

  const said = [];
  const hear = (e) => {
    let event;
    try { event = JSON.parse(e.data); } catch { return; }
    if (said.some((s) => s.t === event.t && s.subject === event.subject && s.message === event.message)) return;
    said.unshift(event);
    said.length = Math.min(said.length, 60);
    $('#noevents').hidden = true;
    keyed($('#events'), said, (s) => `${s.t} ${s.subject} ${s.message}`, (s) => {
      const li = el('li'), time = el('time', '', clock(s.t)), what = el('span', '', s.message);
      time.dateTime = s.t;
      if (s.subject && !s.message.includes(s.subject)) what.prepend(el('b', '', s.subject), ' ');
      li.append(time, el('i', '', s.kind), what);
      return li;
    }, () => {});
  };

  // ---- the stream

  let source = null, last = 0, since = 0, wait = 1000;
  const streamState = () => {
    const quiet = performance.now() - last, live = last > 0 && quiet < 4000;
    const state = live ? 'live' : last || since ? 'lost' : 'wait';
    attr($('.stream'), 'data-s', state);
    text($('.stream b'), live ? 'live' : last || since ? 'reconnecting…' : 'connecting…');
    text($('.stream span'), snap ? `updated ${clock(snap.t)}` : 'no update yet');
    document.body.classList.toggle('old', !live && last > 0);
    const lost = $('#lost');
    const show = state === 'lost' && (quiet > 6000 || !last);
    if (lost.hidden === show) lost.hidden = !show;
    if (show) text($('span', lost), snap ? `What is shown is of ${clock(snap.t)} and is not being updated.` : 'What is shown is of when this page was loaded.');
    if (show) document.title = 'Stream lost · lens';
  };
  const connect = () => {
    if (source) source.close();
    source = new EventSource('/api/v1/events');
    source.addEventListener('snapshot', (e) => {
      let next;
      try { next = JSON.parse(e.data); } catch { return; }
      const first = !snap, had = chosen.s;
      snap = next;
      snap.rows.sort(inOrder);
      last = performance.now();
      wait = 1000;
      showHead();
      showChosen();
      showRows();
      showAgents();
      showAlerts();
      streamState();
      if (first || had !== chosen.s) load();
    });
    for (const kind of ['verdict', 'agent', 'slice', 'alert']) source.addEventListener(kind, hear);
    source.onerror = () => {
      since = since || performance.now();
      streamState();
      // A refused stream is not retried by the browser: do it, slower each time, at most every 30 s.
      if (source.readyState === EventSource.CLOSED) { setTimeout(connect, wait); wait = Math.min(30000, wait * 2); }
    };
  };

  // ---- the reader's hands

  const choose = (key) => { chosen.s = key; writeHash(); if (snap) { showChosen(); showRows(); } doc = { key: '', heat: null, arms: null, note: '' }; draw(); load(); };
  document.addEventListener('click', (e) => {
    const head = e.target.closest('#all thead button');
    if (head) {
      const c = head.parentElement.dataset.c, words = ['slice', 'stage', 'arm', 'verdict'].includes(c);
      const up = c, down = `-${c}`, cycle = words ? [up, down, ''] : [down, up, ''];
      chosen.sort = cycle[(cycle.indexOf(chosen.sort) + 1) % 3];
      writeHash();
      if (snap) showRows();
      return;
    }
    if (e.target.closest('.skip')) { e.preventDefault(); $('#main').focus(); return; }
    const tr = e.target.closest('#tiles tbody tr, #rows tr');
    if (tr && !getSelection().toString()) choose(tr.dataset.key.replace('+', ''));
  });
  $('#pick').addEventListener('change', (e) => choose(e.target.value));
  $('#range').addEventListener('change', (e) => { chosen.r = e.target.value; writeHash(); load(); });
  $('#filter').addEventListener('input', (e) => { chosen.q = e.target.value.trim(); writeHash(); if (snap) showRows(); });
  addEventListener('hashchange', () => { readHash(); $('#range').value = chosen.r; $('#filter').value = chosen.q; if (snap) { showChosen(); showRows(); load(); } });
  const canvas = $('#heat');
  canvas.addEventListener('pointermove', hover);
  canvas.addEventListener('pointerleave', () => readAt(-1));
  canvas.addEventListener('keydown', (e) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e6, End: 1e6 }[e.key];
    if (!by || !plot) return;
    e.preventDefault();
    readAt(clamp((plot.at == null ? plot.cells.length : plot.at) + by, 0, plot.cells.length - 1));
  });
  // Titles show on hover only; on keyboard focus the same words appear beside the row.
  const tip = $('#tip');
  document.addEventListener('focusin', (e) => {
    const row = e.target.matches(':focus-visible') && e.target.closest('#tiles tr, #rows tr');
    const why = row && ($('.v', row) || row).getAttribute('title');
    tip.hidden = !why;
    if (!why) return;
    text(tip, why);
    const box = row.getBoundingClientRect(), mine = tip.getBoundingClientRect();
    tip.style.left = `${clamp(box.left + 8, 8, innerWidth - mine.width - 8)}px`;
    tip.style.top = `${box.bottom + mine.height + 8 > innerHeight ? box.top - mine.height - 2 : box.bottom + 2}px`;
  });
  for (const gone of ['focusout', 'scroll']) document.addEventListener(gone, () => { tip.hidden = true; }, true);
  let due = 0;
  const redraw = () => { cancelAnimationFrame(due); due = requestAnimationFrame(draw); };
  new ResizeObserver(redraw).observe($('.charts'));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);

  readHash();
  $('#range').value = chosen.r;
  $('#filter').value = chosen.q;
  for (const n of $$('.js')) n.hidden = false;
  const zone = -new Date().getTimezoneOffset();
  text($('#zone'), `Times are this browser’s, UTC${zone < 0 ? '−' : '+'}${String(Math.floor(Math.abs(zone) / 60)).padStart(2, '0')}:${String(Math.abs(zone) % 60).padStart(2, '0')}.`);
  setInterval(streamState, 1000);
  setInterval(() => { if (!document.hidden && snap && performance.now() - last < 4000) load(); }, 5000);
  document.addEventListener('visibilitychange', () => { if (!document.hidden) load(); });
  connect();
})();
