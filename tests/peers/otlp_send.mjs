// Sends latencies with the OpenTelemetry SDK for Node: otlp_send.mjs MODULES ADDRESS COUNT.
// MODULES is the directory of node_modules. Prints one line of JSON: the values sent, nanoseconds.
import { createRequire } from "node:module";

const [modules, address, count] = process.argv.slice(2);
const need = createRequire(`${modules}/`);
const { MeterProvider, PeriodicExportingMetricReader, AggregationType, AggregationTemporality } = need(
  "@opentelemetry/sdk-metrics",
);
const { OTLPMetricExporter } = need("@opentelemetry/exporter-metrics-otlp-proto");

const exporter = new OTLPMetricExporter({
  url: `http://${address}/v1/metrics`,
  compression: "gzip",
  temporalityPreference: AggregationTemporality.DELTA,
});
const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
const provider = new MeterProvider({
  readers: [reader],
  views: [
    {
      instrumentName: "search.duration",
      aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM },
    },
  ],
});
const histogram = provider.getMeter("node").createHistogram("search.duration", { unit: "s" });
const attributes = { "lens.repo_type": "backend", "lens.language": "node", "lens.size": "small" };
const values = [];
for (let place = 0; place < Number(count); place += 1) {
  const nanos = 1_000_000 + ((place * 7919) % 9_000_000);
  values.push(nanos);
  histogram.record(nanos / 1e9, attributes);
}
await provider.forceFlush();
await provider.shutdown();
console.log(JSON.stringify({ values, said: [] }));
