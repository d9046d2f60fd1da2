"""Sends latencies with the OpenTelemetry SDK, as a search node that has it would.

    otlp_send.py HOW ADDRESS COUNT SEED

HOW: grpc, http, cumulative (gRPC with the SDK's own defaults), explicit (delta, the SDK's own
buckets), spans. Each value is of a request in a trace of its own. Prints one line of JSON: the values
sent, in nanoseconds, their traces by place, and what the exporter logged.
"""

import json
import logging
import os
import random
import sys
import time

how, address, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if how in ("grpc", "http", "explicit"):
    os.environ["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"] = "delta"
if how in ("grpc", "http"):
    os.environ["OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"] = (
        "base2_exponential_bucket_histogram"
    )

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: E402
    OTLPMetricExporter as GrpcMetrics,
)
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: E402
    OTLPSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: E402
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: E402
    OTLPMetricExporter as HttpMetrics,
)
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: E402
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: E402
from opentelemetry.trace import (  # noqa: E402
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    format_trace_id,
    use_span,
)

said = []


class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


logging.getLogger().addHandler(Keep())
choose = random.Random(seed)
values = [round(choose.lognormvariate(0.7, 0.6) * 1e6) for _ in range(count)]
traces = []
resource = Resource.create(
    {"lens.repo_type": "backend", "lens.language": "rust", "lens.size": "small"}
)

if how == "spans":
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=f"http://{address}", insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4 * count))
    tracer = provider.get_tracer("node")
    now = time.time_ns()
    for place, nanos in enumerate(values):
        span = tracer.start_span("lens_search", start_time=now - nanos)
        traces.append(format_trace_id(span.get_span_context().trace_id))
        if place % 10 == 0:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=now)
        tracer.start_span("unrelated", start_time=now - 1).end(end_time=now)
    provider.shutdown()
else:
    if how == "http":
        exporter = HttpMetrics(
            endpoint=f"http://{address}/v1/metrics", compression=Compression.Gzip
        )
    else:
        exporter = GrpcMetrics(endpoint=f"http://{address}", insecure=True)
    # Exported by hand, twice: two deltas.
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(resource=resource, metric_readers=[reader])
    meter = provider.get_meter("node")
    stage = meter.create_histogram("lens_stage_a", unit="ms")
    other = meter.create_histogram("http.server.duration", unit="s")
    for place, nanos in enumerate(values):
        sampled = TraceFlags(TraceFlags.SAMPLED)
        ids = (choose.getrandbits(128), choose.getrandbits(64))
        traces.append(format_trace_id(ids[0]))
        with use_span(NonRecordingSpan(SpanContext(*ids, False, sampled))):
            stage.record(nanos / 1e6, {"lens.arm": "canary"})
        other.record(1.0)
        if place == count // 2:
            provider.force_flush()
    provider.shutdown()

print(json.dumps({"values": values, "traces": traces, "said": said}))
