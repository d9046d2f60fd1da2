// What recording costs in Node, beside a clock read and a plain counter, in one run.
//
//     node benches/clients/record.mjs
//
// Medians of 15 rounds; nanoseconds a call, and ratios to each.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {createHistogram} from 'node:perf_hooks';
import {Recorder} from '../../agent/clients/node/index.js';

const directory = fs.mkdtempSync(path.join('/dev/shm', 'lens-bench-'));
const node = Recorder.create({directory, service: 'bench', version: '1', instance: os.hostname().replace(/[^A-Za-z0-9]/g, '') || 'js', flushMillis: 3_600_000});
const series = node.series('backend/javascript/large', 'stage_a');
const builtIn = createHistogram({lowest: 1, highest: 2 ** 36, figures: 2});
const values = Array.from({length: 200_000}, (_, n) => 1000 + (n * 7919) % 50_000_000);

const ways = {
  'record': (value) => series.record(value),
  "perf_hooks' createHistogram": (value) => builtIn.record(value),
  'one performance.now()': () => performance.now(),
};
const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
const rounds = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
for (let round = 0; round < 15; round++) {
  for (const [name, call] of Object.entries(ways)) {
    const begin = performance.now();
    for (const value of values) call(value);
    rounds[name].push(((performance.now() - begin) * 1e6) / values.length);
  }
}
const flushes = [];
for (let n = 0; n < 100; n++) {
  for (const value of values.slice(0, 1000)) series.record(value);
  const begin = performance.now();
  node.flush();
  flushes.push((performance.now() - begin) * 1e3);
}
const own = median(rounds.record);
for (const [name, times] of Object.entries(rounds)) {
  console.log(`${name.padEnd(34)} ${median(times).toFixed(1).padStart(8)} ns   record is ${(own / median(times)).toFixed(2)} of it`);
}
console.log(`flush of one series with 1,000 new samples: ${median(flushes).toFixed(0)} µs`);
node.close();
fs.rmSync(directory, {recursive: true});
