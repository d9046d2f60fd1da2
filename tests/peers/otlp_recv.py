"""An OTLP receiver that shares no line with the sender: it decodes by the official definitions.

Listens for metrics and spans over gRPC, with TLS when --tls names a certificate and its key, and for
metrics over HTTP, on free ports of loopback; prints {"event": "ready", "grpc",
"http"}, then one JSON line a request: what came, decoded and held against the data model
("problems" must be empty), and how it was answered. Answers stand in --answers, in order, separated by
commas; when none is left, it takes everything:

  ok                       takes it
  partial=N                takes it and says that it rejected N points
  UNAVAILABLE, ...         this gRPC status (over HTTP: 503)
  RESOURCE_EXHAUSTED       without RetryInfo (over HTTP: 400)
  RESOURCE_EXHAUSTED=S     with RetryInfo of S seconds (over HTTP: 429 with Retry-After)
  503, 429=S, 400          this HTTP status, with Retry-After of S seconds
"""

import argparse
import gzip
import hashlib
import json
import math
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import any_pb2, duration_pb2, json_format
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as service_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

QUANTILES = (0.5, 0.95, 0.99, 0.999)
REQUEST_BYTES_MAX = 4 << 20
lock = threading.Lock()


def say(line):
    with lock:
        print(json.dumps(line), flush=True)


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def ends(point, rank):
    """The ends of the bucket that holds the sample of this rank, seconds."""
    seen = point.zero_count
    if rank <= seen:
        return [0.0, 0.0]
    for at, count in enumerate(point.positive.bucket_counts):
        seen += count
        if rank <= seen:
            base = 2.0 ** (2.0**-point.scale)
            index = point.positive.offset + at
            return [base**index, base ** (index + 1)]
    raise AssertionError(f"rank {rank} of {seen}")


def histogram(metric, point, problems):
    counts = point.positive.bucket_counts
    filled = point.zero_count + sum(counts) + sum(point.negative.bucket_counts)
    if point.count != filled:
        problems.append(f"{metric.name}: count {point.count}, buckets hold {filled}")
    if point.negative.bucket_counts:
        problems.append(f"{metric.name}: latencies below zero")
    if counts and not (counts[0] and counts[-1]):
        problems.append(f"{metric.name}: empty buckets at an end")
    low = sum(c * ends(point, point.zero_count + sum(counts[:i]) + 1)[0] for i, c in enumerate(counts) if c)
    high = sum(c * ends(point, point.zero_count + sum(counts[:i]) + 1)[1] for i, c in enumerate(counts) if c)
    if not low <= point.sum <= high:
        problems.append(f"{metric.name}: sum {point.sum} is not within [{low}, {high}]")
    return {
        "count": point.count,
        "sum": point.sum,
        "scale": point.scale,
        "buckets": len(counts),
        "quantiles": {str(q): ends(point, math.ceil(q * point.count)) for q in QUANTILES},
        "exemplars": [
            {
                "trace_id": e.trace_id.hex(),
                "span_id": e.span_id.hex(),
                "value": e.as_double,
                "t": e.time_unix_nano,
                "attributes": attributes(e.filtered_attributes),
            }
            for e in point.exemplars
        ],
    }


def number(metric, point, problems):
    value = getattr(point, point.WhichOneof("value"))
    if not math.isfinite(value):
        problems.append(f"{metric.name}: value {value}")
    return {"value": value}


def points_of(metric, problems):
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    seen = set()
    for point in data.data_points:
        named = attributes(point.attributes)
        identity = json.dumps(named, sort_keys=True)
        if identity in seen:
            problems.append(f"{metric.name}: {identity} stands twice")
        seen.add(identity)
        if point.time_unix_nano < point.start_time_unix_nano:
            problems.append(f"{metric.name}: ends before it starts")
        read = histogram if kind == "exponential_histogram" else number
        yield {
            "name": metric.name,
            "unit": metric.unit,
            "kind": kind,
            "temporality": getattr(data, "aggregation_temporality", 0),
            "attributes": named,
            "start": point.start_time_unix_nano,
            "end": point.time_unix_nano,
            **read(metric, point, problems),
        }


def decoded(request):
    problems, points = [], []
    resource = {}
    for of_resource in request.resource_metrics:
        resource = attributes(of_resource.resource.attributes)
        if not resource.get("service.name"):
            problems.append("no service.name")
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                points.extend(points_of(metric, problems))
    return {"resource": resource, "points": points, "problems": problems}


class Answers:
    def __init__(self, text):
        self.left = [answer for answer in text.split(",") if answer]

    def next(self):
        with lock:
            return self.left.pop(0) if self.left else "ok"


def partial(answer):
    reply = service.ExportMetricsServiceResponse()
    if answer.startswith("partial="):
        reply.partial_success.rejected_data_points = int(answer.partition("=")[2])
        reply.partial_success.error_message = "as told"
    return reply


def report(transport, answer, headers, request, size):
    body = request.SerializeToString(deterministic=True)
    say(
        {
            "event": "request",
            "transport": transport,
            "answer": answer,
            "at": time.monotonic(),
            "bytes": size,
            "headers": headers,
            "digest": hashlib.sha256(body).hexdigest(),
            **decoded(request),
        }
    )


class Metrics(service_grpc.MetricsServiceServicer):
    def __init__(self, answers):
        self.answers = answers

    def Export(self, request, context):
        answer = self.answers.next()
        headers = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        report("grpc", answer, headers, request, request.ByteSize())
        name, _, wait = answer.partition("=")
        if answer == "ok" or name == "partial":
            return partial(answer)
        code = getattr(grpc.StatusCode, name)
        if wait:
            info = error_details_pb2.RetryInfo(
                retry_delay=duration_pb2.Duration(seconds=int(wait))
            )
            detail = any_pb2.Any()
            detail.Pack(info)
            status = status_pb2.Status(code=code.value[0], message="as told", details=[detail])
            trailer = ("grpc-status-details-bin", status.SerializeToString())
            context.set_trailing_metadata((trailer,))
        context.abort(code, "as told")


class Traces(traces_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for of_resource in request.resource_spans:
            resource = attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    good = len(span.trace_id) == 16 and len(span.span_id) == 8
                    say(
                        {
                            "event": "span",
                            "service": resource.get("service.name"),
                            "name": span.name,
                            "trace_id": span.trace_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "nanos": span.end_time_unix_nano - span.start_time_unix_nano,
                            "problems": [] if good else ["ids of wrong length"],
                        }
                    )
        return traces.ExportTraceServiceResponse()


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers = None

    def do_POST(self):
        length = int(self.headers["content-length"])
        body = self.rfile.read(length)
        headers = {k.lower(): v for k, v in self.headers.items()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = service.ExportMetricsServiceRequest()
        if headers["content-type"] == "application/json":
            json_format.Parse(body, request)
        else:
            request.ParseFromString(body)
        answer = "404" if self.path != "/v1/metrics" else self.answers.next()
        report("http", answer, headers, request, length)
        name, _, wait = answer.partition("=")
        if answer == "ok" or name == "partial":
            return self.reply(200, partial(answer).SerializeToString())
        if not name.isdigit():
            name = "503" if name != "RESOURCE_EXHAUSTED" else "429" if wait else "400"
        self.reply(int(name), b"", wait)

    def reply(self, code, body, wait=""):
        self.send_response(code)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        if wait:
            self.send_header("retry-after", wait)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", default="")
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--plain", action="store_true", help="refuse compressed gRPC messages")
    given = parser.parse_args()
    answers = Answers(given.answers)
    options = [("grpc.max_receive_message_length", REQUEST_BYTES_MAX), ("grpc.so_reuseport", 0)]
    if given.plain:
        options.append(("grpc.compression_enabled_algorithms_bitset", 1))
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    service_grpc.add_MetricsServiceServicer_to_server(Metrics(answers), server)
    traces_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    if given.tls:
        chain, key = (open(file, "rb").read() for file in given.tls)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    Http.answers = answers
    web = ThreadingHTTPServer(("127.0.0.1", 0), Http)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    say({"event": "ready", "grpc": f"127.0.0.1:{port}", "http": f"127.0.0.1:{web.server_port}"})
    # Until whoever started it lets go.
    sys.stdin.read()


if __name__ == "__main__":
    main()
