"""Reads what the aggregator wrote with HdrHistogram's own Python implementation.

hdr.py DIR, with histogram.hdr (base64), log.hlog and table.hgrm in it. Prints counts and percentiles
in nanoseconds as one JSON object.
"""

import json
import pathlib
import re
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

QUANTILES = [50, 95, 99, 99.9, 100]


def summary(histogram):
    return {
        "count": histogram.get_total_count(),
        "percentiles": [histogram.get_value_at_percentile(q) for q in QUANTILES],
        "buckets": {
            item.value_iterated_to: item.count_added_in_this_iter_step
            for item in histogram.get_recorded_iterator()
        },
    }


def main():
    directory = pathlib.Path(sys.argv[1])
    whole = HdrHistogram.decode((directory / "histogram.hdr").read_text().strip())

    reference = HdrHistogram(1, (1 << 36) - 1, 2)
    reader = HistogramLogReader(str(directory / "log.hlog"), reference)
    logged = HdrHistogram(1, (1 << 36) - 1, 2)
    intervals, tags = 0, set()
    while (interval := reader.get_next_interval_histogram()) is not None:
        logged.add(interval)
        tags.add(interval.get_tag())
        intervals += 1

    table = (directory / "table.hgrm").read_text()
    lines = re.findall(r"^ *([0-9.]+) ([01]\.[0-9]+) +([0-9]+)", table, re.MULTILINE)
    total = re.search(r"Total count += +([0-9]+)\]", table)
    print(
        json.dumps(
            {
                "hdr": summary(whole),
                "hlog": summary(logged),
                "intervals": intervals,
                "tags": sorted(tags),
                "hgrm": {
                    "count": int(total[1]),
                    "lines": [[float(value), float(q), int(seen)] for value, q, seen in lines],
                },
            }
        )
    )


main()
