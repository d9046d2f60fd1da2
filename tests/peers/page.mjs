// Looks at the live page as people do: in Chromium, with its mouse, keyboard and downloads.
//
//   node page.mjs DIR URL STEP '{"what":"it is given"}'
//
// DIR holds node_modules with playwright-core and axe-core. Ends with 1 and the reason at the first
// thing that is not as it should be. What the page writes to its console as an error is one, unless
// the step takes its aggregator away. Ends by itself within two minutes, and its browser with it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';

const [, , dir, url, step, given] = process.argv;
const facts = JSON.parse(given || '{}');
const require = createRequire(path.resolve(dir, 'node_modules/'));
const { chromium } = require('playwright-core');
const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const PATIENCE_MS = 30000;
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

const api = async (at, options) => {
  const reply = await fetch(url + at, options);
  assert.equal(reply.status, 200, `${at} answered ${reply.status}`);
  return reply.json();
};
/** Asks until it holds; the last reason when it never does. */
const until = async (what, ask) => {
  const end = Date.now() + PATIENCE_MS;
  for (let why = ''; ; await new Promise((go) => setTimeout(go, 100))) {
    try { return await ask(); } catch (e) { why = e.message; }
    assert(Date.now() < end, `${what}: ${why}`);
  }
};

const open = async (browser, options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, acceptDownloads: true, permissions: ['clipboard-read', 'clipboard-write'], ...options });
  const page = await context.newPage(), errors = [];
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('console', (m) => { if (m.type() === 'error') errors.push(`${m.text()} ${m.location().url}`); });
  page.on('pageerror', (e) => errors.push(e.stack));
  return { page, errors, context };
};
const ready = async (page, at = '/') => {
  await page.goto(url + at);
  await page.locator('.stream[data-s=live]').waitFor();
};
const drawn = (page, plot) => page.locator(`#${plot} path, #${plot} image`).first().waitFor({ state: 'attached' });
const copied = (page) => page.evaluate(() => navigator.clipboard.readText());
/** Runs a copied command as its reader would. */
const runs = (command) => JSON.parse(execFileSync('bash', ['-c', command], { encoding: 'utf8', timeout: PATIENCE_MS }));

const STEPS = {
  async counts({ page }) {
    await ready(page);
    await until('every count of the table is what was recorded', async () => {
      const shown = await page.$$eval('#rows tr', (rows) => Object.fromEntries(rows.map((tr) => [tr.dataset.key, Number(tr.querySelector('[data-f=count]').title.match(/(\d+) ever/)[1])])));
      assert.deepEqual(shown, facts.recorded);
    });
    const { slices } = await api('/api/v1/slices');
    const held = Object.fromEntries(slices.flatMap((s) => s.series.map((x) => [`${s.slice}|${x.stage}|${x.arm}`, x.merged_total])));
    assert.deepEqual(held, facts.recorded);
    assert.equal(await page.title(), `${(await page.locator('.health b').textContent()).trim()} · lens`);
    await until('the agent is shown with the flags it has in force', async () => {
      const { agents: [agent] } = await api('/api/v1/agents');
      const shown = await page.$eval('#agents tbody tr', (tr) => [tr.querySelector('th').textContent, tr.querySelector('[data-f=flags]').textContent]);
      assert.deepEqual(shown, [agent.name, agent.applied_generation == null ? '–' : `${agent.applied_generation}`]);
    });
    const total = Object.values(facts.recorded).reduce((a, b) => a + b);
    assert.equal(await page.getAttribute('#f-samples', 'title'), String(total));
  },

  async captures({ page }) {
    await ready(page, facts.at);
    await page.click('#capture');
    await page.locator('#captures-all tbody .v[data-v=ok]').waitFor();
    const row = await page.$$eval('#captures-all tbody tr:first-child > *', (cells) => cells.map((cell) => cell.textContent.trim()));
    assert.equal(row[2], facts.slice);
    assert.equal(row[4], `${facts.samples}`);
    assert.equal(row[5], '1 of 1');
    assert.match(row[6], /asked for on the page; by operator/);
    await page.locator('#capture-heat image').waitFor({ state: 'attached' });
    const traces = await page.$$eval('#capture-slow tbody button', (all) => all.map((b) => b.textContent));
    assert.deepEqual(traces, [facts.trace]);
    await page.click('#capture-slow tbody button');
    await until('the trace copied', async () => assert.equal(await copied(page), facts.trace));
    const [file] = await Promise.all([page.waitForEvent('download'), page.click('#capture-files a:first-child')]);
    assert.match(fs.readFileSync(await file.path(), 'utf8'), /^#\[/);
    await page.locator('#slow summary').click();
    await page.locator('#slow tbody button').first().waitFor();
    const id = new URLSearchParams(new URL(page.url()).hash.slice(1)).get('capture');
    assert.match(id, /^[0-9a-f]{16}$/);
    await page.reload();
    await page.locator('#capture-heat image').waitFor({ state: 'attached' });
    await page.click('#capture-curl');
    await until('the command copied', async () => assert.match(await copied(page), /^curl/));
    const begun = runs(await copied(page));
    assert.equal(begun.state, 'collecting');
    assert.equal(begun.slice, facts.slice);
  },

  async address({ page }) {
    await ready(page);
    const state = () => page.evaluate(() => ({ hash: location.hash, slice: document.querySelector('#pick-slice').value, stage: document.querySelector('#pick-stage').value, arm: document.querySelector('#pick-arm').value, time: document.querySelector('#range').value, percent: document.querySelector('[data-set="cells=percent"]').ariaPressed, tail: document.querySelector('[data-set="zoom=tail"]').ariaPressed, view: document.querySelector('[data-set="view=tail"]').ariaPressed, sorted: document.querySelector('#all [aria-sort]')?.dataset.c, filter: document.querySelector('#filter').value, rows: document.querySelectorAll('#rows tr').length }));
    const wanted = facts.choose;
    await page.selectOption('#pick-slice', wanted.slice);
    await page.selectOption('#pick-stage', wanted.stage);
    await page.selectOption('#pick-arm', wanted.arm);
    await page.selectOption('#range', '5m');
    await page.click('[data-set="cells=percent"]');
    await page.click('[data-set="zoom=tail"]');
    await page.click('[data-set="view=tail"]');
    await page.click('#all th[data-c=p99] button');
    await page.fill('#filter', 'canary');
    const chosen = await state();
    assert.deepEqual([chosen.slice, chosen.stage, chosen.arm, chosen.time, chosen.percent, chosen.tail, chosen.view, chosen.sorted], [wanted.slice, wanted.stage, wanted.arm, '5m', 'true', 'true', 'true', 'p99']);
    await page.reload();
    await page.locator('.stream[data-s=live]').waitFor();
    await until('the reloaded page shows the same', async () => assert.deepEqual(await state(), chosen));
    await page.goBack();
    await until('back undoes the sort', async () => assert.equal((await state()).sorted, undefined));
    await page.goForward();
    await until('forward does it again', async () => assert.equal((await state()).sorted, 'p99'));
    // Another reader, with nothing but the link.
    const other = await page.context().newPage();
    await other.goto(page.url());
    await other.locator('.stream[data-s=live]').waitFor();
    await until('the link shows another the same time', async () => assert.equal(await other.inputValue('#range'), '5m'));
    await other.close();
    // A brush over the heat map, and the same by keys.
    await drawn(page, 'heat');
    const box = await page.locator('#heat').boundingBox();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 100);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.9, box.y + 120, { steps: 4 });
    await page.mouse.up();
    await until('the brush chooses a time', async () => assert.match(page.url(), /r=\d{4}-.*Z\/\d{4}-.*Z/));
    const brushed = page.url();
    await page.goBack();
    await until('back undoes the brush', async () => assert.equal((await state()).time, '5m'));
    await drawn(page, 'heat');
    await page.focus('#heat');
    for (let i = 0; i < 3; i++) await page.keyboard.press('Shift+ArrowLeft');
    assert.match(await page.textContent('#heat-read'), /to look at just that/);
    await page.keyboard.press('Enter');
    await until('keys choose a time, too', async () => { assert.match(page.url(), /r=\d{4}-/); assert.notEqual(page.url(), brushed); });
  },

  async evidence({ page }) {
    await ready(page);
    const row = page.locator(`#rows tr[data-key="${facts.key}"]`);
    await row.locator('button.v').focus();
    await page.keyboard.press('Enter');
    const dialog = page.locator('#d-verdict');
    await dialog.waitFor();
    const [slice, stage, arm] = facts.key.split('|');
    await until('the dialog holds the numbers of the API', async () => {
      const { series: [tail] } = await api(`/api/v1/tail?slice=${slice}&stage=${stage}&arm=${arm}`);
      const said = await dialog.textContent(), d = tail.evidence.decided;
      for (const part of ['at most 2 times p95', `${tail.evidence.samples}`, `z = ${d.z.toFixed(2)}`, `needs ${d.z_needed.toFixed(2)}`, d.phi.toFixed(2), `${d.window_s} s from`, tail.reason]) assert(said.includes(part), `${part} is missing in ${said}`);
    });
    assert.match(page.url(), /open=verdict/);
    await page.click('#v-curl');
    await until('the command is copied', async () => assert.match(await copied(page), /^curl /));
    const answer = runs(await copied(page));
    assert.equal(answer.series[0].verdict, facts.verdict);
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'hidden' });
    assert.doesNotMatch(page.url(), /open=/);
    await page.goBack();
    await dialog.waitFor();
  },

  async alerts({ page }) {
    await ready(page);
    await page.locator(`#open button:text-is("${facts.key}")`).click();
    const dialog = page.locator('#d-alert');
    await dialog.waitFor();
    await dialog.locator('text=Who was told').waitFor();
    await until('its deliveries are shown with attempts', async () => assert.match(await dialog.textContent(), /hook.*fired.*(delivered|queued)/s));
    await dialog.locator('button:has-text("Take it on")').click();
    await until('the API holds it acknowledged', async () => {
      const { alerts } = await api('/api/v1/alerts');
      assert.equal(alerts.find((a) => a.key === facts.key).state, 'acknowledged');
    });
    await until('the page says who has it', async () => assert.match(await dialog.textContent(), /taken on by operator/));
    await dialog.locator('button:has-text("Silence")').click();
    await until('the API holds it silenced', async () => {
      const { alerts } = await api('/api/v1/alerts');
      assert.equal(alerts.find((a) => a.key === facts.key).state, 'silenced');
    });
    const link = page.url();
    await page.goto('about:blank');
    await page.goto(link);
    await dialog.waitFor();
  },

  async kill({ page }) {
    await ready(page);
    const panel = page.locator('#canary');
    await panel.locator('text=No rollout').waitFor();
    await api('/canary/start', { method: 'POST', body: JSON.stringify({ version: '1.5.0-rc.1' }) });
    await panel.locator('text=under way').waitFor();
    const before = (await api('/canary/status')).canary_deployment;
    await until('share and blockers are those of the API', async () => {
      const said = await panel.textContent();
      for (const part of [`${before.share_percent} %`, 'version 1.5.0-rc.1', ...before.blockers.slice(0, 1).map((b) => b.code)]) assert(said.includes(part), `${part} is missing in ${said}`);
    });
    // Asked once more, and left alone: nothing happens.
    await page.click('#kill');
    await page.click('#d-kill button:has-text("Leave it")');
    await page.locator('#d-kill').waitFor({ state: 'hidden' });
    assert.equal((await api('/canary/status')).canary_deployment.killed, false);
    await page.click('#kill');
    await page.fill('#kill-reason', 'searches return nothing');
    await page.click('#kill-go');
    await page.locator('#d-kill').waitFor({ state: 'hidden' });
    await panel.locator('text=two people release it').waitFor();
    const after = (await api('/canary/status')).canary_deployment;
    assert.deepEqual([after.killed, after.share_percent, after.rollbackHistory[0].reason], [true, 0, 'searches return nothing']);
    await until('the history tells it', async () => assert.match(await page.textContent('#canary-history'), /searches return nothing/));
    assert.equal(await page.locator('#kill').isVisible(), false);
  },

  async viewer({ page, errors }) {
    await page.goto(`${url}/`);
    await page.fill('input[name=token]', facts.token);
    await page.click('button:has-text("Sign in")');
    await page.locator('.stream[data-s=live]').waitFor();
    await page.locator(`#open button:text-is("${facts.key}")`).click();
    await page.locator('#d-alert:has-text("role operator")').waitFor();
    assert.equal(await page.locator('#d-alert button:has-text("Take it on")').count(), 0);
    assert.equal(await page.locator('#kill').isVisible(), false);
    // What is not offered is refused all the same.
    const status = await page.evaluate(async (id) => (await fetch(`/api/v1/alerts/${id}/ack`, { method: 'POST' })).status, new URL(page.url()).hash.match(/alert:(\w+)/)[1]);
    assert.equal(status, 403);
    // Whoever is signed out elsewhere is told, not left with old numbers.
    await page.evaluate(() => fetch('/auth/sign-out', { method: 'POST' }));
    await page.locator('#signed-out').waitFor();
    errors.splice(0, errors.length, ...errors.filter((e) => !/40[13]/.test(e)));
  },

  async downloads({ page }) {
    await ready(page, facts.at);
    for (const plot of ['heat', 'spectrum', 'lines', 'ratio']) await drawn(page, plot);
    const take = async (selector) => {
      // A browser that still writes the last file may drop the next: asked again, as a person would.
      for (let attempt = 1; ; attempt++) {
        try {
          const [file] = await Promise.all([page.waitForEvent('download', { timeout: 10_000 }), page.click(selector)]);
          return { name: file.suggestedFilename(), bytes: fs.readFileSync(await file.path()) };
        } catch (error) {
          if (error.name !== 'TimeoutError' || attempt === 3) throw error;
        }
      }
    };
    for (const plot of ['heat', 'spectrum', 'lines', 'ratio']) {
      const png = await take(`[data-take="${plot} png"]`);
      assert.match(png.name, new RegExp(`^lens-${plot}-.*\\.png$`));
      assert.equal(png.bytes.subarray(1, 4).toString(), 'PNG');
      assert(png.bytes.readUInt32BE(16) >= 800 && png.bytes.length > 5000, `${plot} is ${png.bytes.length} bytes`);
      const svg = (await take(`[data-take="${plot} svg"]`)).bytes.toString();
      const parsed = await page.evaluate((text) => new DOMParser().parseFromString(text, 'image/svg+xml').documentElement.nodeName, svg);
      assert(parsed === 'svg' && /<text/.test(svg) && !/var\(|class=/.test(svg), `${plot} needs the page: ${svg.slice(0, 300)}`);
      const csv = (await take(`[data-take="${plot} csv"]`)).bytes.toString().trim().split('\r\n');
      assert(csv.length > 1, `${plot} has no rows`);
      if (plot === 'heat') assert.equal(csv.slice(1).reduce((sum, line) => sum + Number(line.split(',')[3]), 0), facts.count);
      await page.click(`[data-take="${plot} curl"]`);
      await until('the question is copied', async () => assert.match(await copied(page), /^curl /));
      assert(runs(await copied(page)).to, `${plot} answers nothing`);
    }
    const table = (await take('#rows-csv')).bytes.toString().trim().split('\r\n');
    assert.equal(table.length - 1, facts.series);
  },

  async lost({ page, errors }) {
    await ready(page, facts.at);
    process.kill(facts.pid, 'SIGKILL');
    await page.locator('#lost').waitFor();
    assert.match(await page.textContent('#lost'), /is not being updated.*Reconnecting by itself/s);
    assert.match(await page.title(), /lost/);
    console.log('lost');
    await page.locator('.stream[data-s=live]').waitFor();
    await page.locator('#lost').waitFor({ state: 'hidden' });
    errors.length = 0;
  },

  async guarded({ page }) {
    await ready(page);
    await page.locator('#guards tbody tr:has-text("probe/gone"):has-text("alarm")').waitFor();
    await until('the table says what the API says', async () => {
      const { guards } = await api('/api/v1/guards');
      const shown = await page.locator('#guards tbody tr').evaluateAll((rows) => rows.map((row) => [row.cells[0].textContent, row.cells[3].textContent]));
      assert.deepEqual(shown, guards.map((guard) => [guard.guard, guard.message]));
      const bad = guards.filter((guard) => guard.state !== 'ok').length;
      assert.equal(await page.locator('#guards-say').textContent(), `${bad} of ${guards.length} not known to be well`);
    });
    await accessible(page, 'guarded');
  },

  async empty({ page }) {
    await ready(page);
    await page.locator('#empty:has-text("lens demo")').waitFor();
    assert.doesNotMatch(await page.textContent('.health b'), /healthy/i);
    assert.match(await page.textContent('#noagents'), /Start lens-agent/);
    assert.match(await page.textContent('#canary-none'), /No rollout/);
    await accessible(page, 'empty');
  },

  async accessible({ page }) {
    await ready(page, facts.at);
    for (const plot of ['heat', 'spectrum', 'lines', 'ratio']) await drawn(page, plot);
    await accessible(page, 'whole');
    await page.locator('#c-open').click();
    await page.locator('#d-verdict').waitFor();
    await accessible(page, 'evidence');
  },
};

/** No finding of axe that is more than minor, and nothing wider than the screen, in both themes, wide and narrow. */
const accessible = async (page, name) => {
  for (const colorScheme of ['light', 'dark']) for (const width of [1440, 390]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    const findings = violations.filter((v) => v.impact !== 'minor');
    const said = findings.map((v) => `${v.id}: ${v.help}\n${v.nodes.slice(0, 5).map((n) => `  ${n.html.slice(0, 200)}\n  ${n.failureSummary}`).join('\n')}`);
    assert.equal(said.join('\n'), '', `${name}, ${colorScheme}, ${width} px`);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert(over <= 0, `${name}, ${colorScheme}, ${width} px: ${over} px wider than the screen`);
  }
};

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'lens-page-'));
let browser = null;
const over = setTimeout(() => { console.error(`${step} took too long`); browser?.close(); process.exitCode = 1; setTimeout(() => process.exit(1), 3000); }, 120000);
try {
  browser = await chromium.launch({ executablePath: facts.chromium || '/usr/bin/chromium', args: FLAGS, env: { ...process.env, HOME: profile } });
  const opened = await open(browser);
  await STEPS[step](opened);
  assert.deepEqual(opened.errors, [], 'errors on the console');
} catch (e) {
  console.error(e.stack);
  process.exitCode = 1;
} finally {
  clearTimeout(over);
  await browser?.close();
  fs.rmSync(profile, { recursive: true, force: true });
}
