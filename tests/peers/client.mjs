// Records known latencies with the Node client, on the main thread and on a worker of its own.
import {Worker, isMainThread} from 'node:worker_threads';
import {Recorder} from '../../agent/clients/node/index.js';

const values = [];
for (let bit = 0; bit < 36; bit++) values.push(2 ** bit - 1, 2 ** bit, 2 ** bit + 1);
for (let n = 0; n < 2000; n++) values.push(1000 + n * n * 37);
values.push(2 ** 36 - 1, 2 ** 36, 2 ** 40);

const instance = isMainThread ? 'js-node' : 'js-node-worker';
const node = Recorder.create({service: 'lens', version: '1.4.2', instance});
const lexical = node.series('Backend/JavaScript/large', 'stage_a');

if (process.argv.includes('--die')) {
  for (let nanos = 0; nanos < 5000; nanos++) lexical.record(nanos);
  node.flush();
  for (let nanos = 0; nanos < 5000; nanos++) lexical.record(nanos);
  console.log(10000);
  process.kill(process.pid, 'SIGKILL');
}

values.forEach((nanos, n) => lexical.record(n % 2 ? nanos : BigInt(nanos)));
if (isMainThread) {
  await new Promise((done) => new Worker(new URL(import.meta.url)).on('exit', done));
  const rerank = node.series('backend/javascript/large', 'stage_c', 'canary');
  await rerank.timed(async () => {})();
  const fails = rerank.timed(() => { throw new RangeError('of its own'); });
  try {
    fails();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  rerank.start().stop();
  rerank.start();
  const requests = node.requests('backend/javascript/large');
  for (let n = 0; n < 7; n++) requests.ok();
  requests.error();
  requests.error();
  node.gauge('span_coverage_percent').set(98.7);
  for (const wrong of [
    () => node.series('backend/javascript', 'stage_a'),
    () => node.series('backend/javascript/large', 'stage_d'),
    () => node.gauge('Span'),
  ]) {
    let taken = true;
    try {
      wrong();
    } catch {
      taken = false;
    }
    if (taken) throw new Error('a wrong name was taken');
  }
  console.log(JSON.stringify({
    quality_gating: node.enabled('qualityGating'),
    lru_caching: node.enabled('stageB.lruCaching'),
    arm: node.arm('user-42'),
  }));
}
node.close();
