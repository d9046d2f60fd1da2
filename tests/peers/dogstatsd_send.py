"""Sends latencies with the DogStatsD client, as a search node that has it would.

    dogstatsd_send.py HOW ADDRESS COUNT SEED

HOW: udp or unix; ADDRESS: host:port or a path. Prints one line of JSON: the values sent, in
nanoseconds. Twenty more go through the client's own timer.
"""

import json
import random
import sys
import time

from datadog.dogstatsd import DogStatsd

how, address, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if how == "udp":
    host, port = address.rsplit(":", 1)
    where = {"host": host, "port": int(port)}
else:
    where = {"socket_path": address}
tags = ["lens.repo_type:backend", "lens.language:rust", "lens.size:small", "env:test"]
client = DogStatsd(constant_tags=tags, telemetry_min_flush_interval=0, **where)
choose = random.Random(seed)
values = [round(choose.lognormvariate(0.7, 0.6) * 1e6) for _ in range(count)]
for place, nanos in enumerate(values):
    if place % 2:
        client.distribution("lens.stage_b", nanos / 1e6)
    else:
        client.timing("lens.stage_b", nanos / 1e6)
    # As a node would, not as fast as a loop can.
    if place % 50 == 0:
        client.flush()
        time.sleep(0.002)
client.increment("lens.requests")
client.histogram("lens.stage_c", 7)


@client.timed("lens.search")
def search():
    time.sleep(0.003)


for _ in range(20):
    search()
client.flush()
print(json.dumps({"values": values}))
