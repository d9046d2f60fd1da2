"""Holds the Envoy example against Envoy's own messages: every field known, every type right."""

import sys

import yaml
from google.protobuf import json_format
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401, registers the type
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2,
)

with open(sys.argv[1], encoding="utf-8") as file:
    bootstrap = json_format.ParseDict(yaml.safe_load(file), bootstrap_pb2.Bootstrap())
clusters = [cluster.name for cluster in bootstrap.static_resources.clusters]
assert clusters == ["stable", "canary"], clusters
broken = json_format.MessageToDict(bootstrap, preserving_proto_field_name=True)
broken["static_resources"]["clusters"][0]["connect_timout"] = "1s"
try:
    json_format.ParseDict(broken, bootstrap_pb2.Bootstrap())
except json_format.ParseError:
    print(f"envoy: {bootstrap.ByteSize()} bytes of Bootstrap")
else:
    sys.exit("a misspelt field was not noticed")
