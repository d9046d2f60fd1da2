"""Reads a capture's Parquet file with Apache Arrow: what is in it, as one JSON object.

    captures.py FILE
"""

import json
import sys

import pyarrow.parquet as parquet

table = parquet.read_table(sys.argv[1])
# Nanoseconds do not fit a datetime: the instants are read as numbers.
rows = table.drop_columns(["t"]).to_pylist()
groups = {}
for row in rows:
    key = "/".join(row[name] for name in ("repo_type", "language", "size", "stage", "arm"))
    group = groups.setdefault(f"{key} {row['agent']} {row['instance']}", {})
    edges = f"{row['from_ns']}-{row['to_ns']}"
    group[edges] = group.get(edges, 0) + row["count"]
starts = table.column("t").cast("int64").to_pylist()
print(
    json.dumps(
        {
            "columns": {field.name: str(field.type) for field in table.schema},
            "rows": len(rows),
            "groups": groups,
            "first": min(starts, default=None),
            "last": max(starts, default=None),
            "durations": sorted({row["duration_ns"] for row in rows})[-3:],
        }
    )
)
