"""Reads OpenMetrics from standard input with the parser of prometheus_client, and prints how many
samples each family has, as JSON."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = text_string_to_metric_families(sys.stdin.read())
print(json.dumps({family.name: len(family.samples) for family in families}))
