// Sends latencies with hot-shots: dogstatsd_send.mjs MODULES HOST:PORT COUNT.
// Prints one line of JSON: the values sent, nanoseconds.
import { createRequire } from "node:module";

const [modules, address, count] = process.argv.slice(2);
const StatsD = createRequire(`${modules}/`)("hot-shots");
const [host, port] = address.split(":");
const client = new StatsD({ host, port: Number(port) });
const tags = { "lens.repo_type": "backend", "lens.language": "node", "lens.size": "small" };
const values = [];
for (let place = 0; place < Number(count); place += 1) {
  const nanos = 1_000_000 + ((place * 7919) % 9_000_000);
  values.push(nanos);
  await new Promise((sent) => client.timing("lens.stage_c", nanos / 1e6, tags, sent));
}
await new Promise((closed) => client.close(closed));
console.log(JSON.stringify({ values }));
