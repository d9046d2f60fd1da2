"""What recording costs in Python, beside a pair of clock reads and prometheus_client, in one run.

    target/test-peers/bin/python benches/clients/record.py

Medians of 15 rounds; nanoseconds a call, and ratios to each peer.
"""

import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "agent/clients/python"))

from lens_recorder import Recorder  # noqa: E402
from prometheus_client import CollectorRegistry, Histogram  # noqa: E402

ROUNDS, CALLS = 15, 50_000
VALUES = [1_000 + (n * 7919) % 50_000_000 for n in range(CALLS)]


def each(call):
    begin = time.perf_counter_ns()
    for value in VALUES:
        call(value)
    return (time.perf_counter_ns() - begin) / CALLS


def main():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        node = Recorder.create(directory, service="bench", version="1", instance="py")
        series = node.series("backend/python/large", "stage_a")
        registry = CollectorRegistry()
        classic = Histogram("seconds", "of", ["slice", "stage"], registry=registry)
        child = classic.labels("backend/python/large", "stage_a")
        ways = {
            "nothing": lambda value: None,
            "record": series.record,
            "prometheus_client, child in hand": child.observe,
            "two clock reads": lambda value: time.perf_counter_ns() - time.perf_counter_ns(),
        }
        rounds = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, call in ways.items():
                rounds[name].append(each(call))
        nanos = {name: statistics.median(times) for name, times in rounds.items()}
        node.close()
    for name, cost in nanos.items():
        print(f"{name:34} {cost:8.0f} ns   record is {nanos['record'] / cost:5.2f} of it")


main()
