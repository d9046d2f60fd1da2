"""Records known latencies with the Python client: four threads, then a forked child with two."""

import json
import os
import pathlib
import signal
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "agent/clients/python"))

from lens_recorder import Recorder  # noqa: E402

EDGES = [edge for bit in range(36) for edge in ((1 << bit) - 1, 1 << bit, (1 << bit) + 1)]
VALUES = EDGES + [1000 + n * n * 37 for n in range(2000)] + [(1 << 36) - 1, 1 << 36, 1 << 40]


def record_all(series):
    for nanos in VALUES:
        series.record(nanos)


def in_threads(count, series):
    threads = [threading.Thread(target=record_all, args=(series,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    # Two shards of their own for four threads: the others share the third.
    node = Recorder.create(service="lens", version="1.4.2", instance="py-node", threads=2)
    lexical = node.series("Backend/Python/large", "stage_a")
    if "--die" in sys.argv:
        for nanos in range(5000):
            lexical.record(nanos)
        print(5000, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    in_threads(4, lexical)
    child = os.fork()
    if child == 0:
        in_threads(2, lexical)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    rerank = node.series("backend/python/large", "stage_c", "canary")
    with rerank.time():
        pass
    timer = rerank.start()
    timer.lap(rerank)
    rerank.record("no number")
    rerank.record_traced(None, 7)
    symbols = node.series("backend/python/large", "stage_b")
    for nanos in (5_000_000, 9_000_000, 7_000_000):
        symbols.record_traced(nanos, 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7)
    symbols.record_traced(99_000_000, 0)  # no trace: counted all the same
    rerank.record(None)

    @rerank.timed
    def fails():
        raise KeyError("of its own")

    try:
        fails()
    except KeyError:
        pass
    requests = node.requests("backend/python/large")
    for _ in range(7):
        requests.ok()
    requests.error(2)
    node.gauge("span_coverage_percent").set(98.7)
    for wrong in (
        lambda: node.series("backend/python", "stage_a"),
        lambda: node.series("backend/python/large", "stage_d"),
        lambda: node.gauge("Span"),
    ):
        try:
            wrong()
        except ValueError:
            continue
        raise AssertionError("a wrong name was taken")
    print(
        json.dumps(
            {
                "quality_gating": node.flags.enabled("qualityGating"),
                "lru_caching": node.flags.enabled("stageB.lruCaching"),
                "arm": node.canary.arm("user-42"),
            }
        )
    )
    node.close()
    lexical.record(1)  # after the end: nothing, and no error


main()
