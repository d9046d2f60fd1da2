"""Calls OTLP over gRPC with what no SDK sends: otlp_raw.py HOST:PORT.

Prints one line of JSON: what each call was answered, a partial success's message or a code.
"""

import json
import sys
import time

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

SERVICE = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
channel = grpc.insecure_channel(sys.argv[1])


def call(body, path=SERVICE, compression=None):
    method = channel.unary_unary(path)
    try:
        answer = method(body, timeout=20, compression=compression)
    except grpc.RpcError as error:
        return error.code().name
    message = ExportMetricsServiceResponse.FromString(answer)
    return message.partial_success.error_message or "OK"


def export(name):
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add()
    metric.name, metric.unit = name, "ms"
    histogram = metric.exponential_histogram
    histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    point = histogram.data_points.add(count=1, scale=3, time_unix_nano=time.time_ns())
    point.positive.bucket_counts.append(1)
    for key in ("repo_type", "language", "size"):
        attribute = point.attributes.add()
        attribute.key, attribute.value.string_value = f"lens.{key}", "rust"
    return request.SerializeToString()


large = export("x" * (5 << 20))
print(
    json.dumps(
        {
            "cumulative": call(export("lens_stage_a")),
            "logs": call(b"", LOGS),
            "garbage": call(b"\xff\xff\xff\xff garbage"),
            "large": call(large),
            "large_compressed": call(large, compression=grpc.Compression.Gzip),
            "afterwards": call(b""),
        }
    )
)
