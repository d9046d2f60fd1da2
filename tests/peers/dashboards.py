"""Checks Grafana dashboards without Grafana: their structure, that Grafana's own models hold all of
them, and that every query of every panel, variable and annotation returns series from a Prometheus.

    dashboards.py DIRECTORY PROMETHEUS

Prints one line of JSON: how much was checked. Every fault is a line on standard error; exit code 1.
"""

import json
import pathlib
import re
import sys
import time
import urllib.parse
import urllib.request

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# What Grafana puts in place, for a scrape every second.
BUILT_IN = {"$__rate_interval": "10s", "$__interval": "5s", "$__range": "60s"}
LABEL_VALUES = re.compile(r"label_values\((.+),\s*([a-z_]+)\)$")

register_default_plugins()


class Check:
    def __init__(self, prometheus):
        self.prometheus = prometheus
        self.faults = []
        self.counts = {"dashboards": 0, "panels": 0, "queries": 0, "variables": 0, "annotations": 0}

    def fault(self, where, what):
        self.faults.append(f"{where}: {what}")

    def ask(self, path, **question):
        query = urllib.parse.urlencode(question, doseq=True)
        with urllib.request.urlopen(f"http://{self.prometheus}{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def series(self, where, expression):
        """The series of an expression over the last minute; none is a fault."""
        now = time.time()
        try:
            found = self.ask("/api/v1/query_range", query=expression, start=now - 60, end=now, step=2)
        except urllib.error.HTTPError as error:
            self.fault(where, f"{expression}: {error.read().decode()}")
            return []
        if not found["result"]:
            self.fault(where, f"no series: {expression}")
        return found["result"]

    def dashboard(self, path):
        held = json.loads(path.read_text())
        where = path.name
        self.counts["dashboards"] += 1
        self.models(where, held)
        self.structure(where, held)
        chosen = self.variables(where, held)
        for panel in held["panels"]:
            for target in panel.get("targets", []):
                self.target(f"{where}, {panel['title']}, {target['refId']}", target, chosen)
        for annotation in held["annotations"]["list"]:
            if "expr" in annotation:
                self.annotation(f"{where}, annotation {annotation['name']}", annotation, chosen)

    def models(self, where, held):
        """Whatever Grafana's models drop or change would be lost on the way into Grafana."""
        back = json.loads(json.dumps(Dashboard.from_json(held), cls=JSONEncoder))
        for path, want, got in differences("", held, back):
            self.fault(where, f"{path} is {want!r} and comes back as {got!r}")

    def structure(self, where, held):
        if held.get("apiVersion") or held.get("schemaVersion") != 39:
            self.fault(where, "is not a classic dashboard of schema version 39")
        identities = [panel["id"] for panel in held["panels"]]
        if len(identities) != len(set(identities)):
            self.fault(where, "two panels have one id")
        taken = {}
        for panel in held["panels"]:
            self.counts["panels"] += panel["type"] != "row"
            place, name = panel["gridPos"], f"{where}, {panel.get('title')}"
            if not panel.get("title"):
                self.fault(name, "has no title")
            if place["x"] < 0 or place["x"] + place["w"] > 24 or place["h"] < 1:
                self.fault(name, f"lies outside the grid: {place}")
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    other = taken.setdefault((x, y), panel["title"])
                    if other != panel["title"]:
                        return self.fault(name, f"overlaps {other}")
            if panel["type"] == "row":
                continue
            if not panel["targets"] or not panel["description"]:
                self.fault(name, "has no query or no description")
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            if any(source != {"type": "prometheus", "uid": "${datasource}"} for source in sources):
                self.fault(name, "is bound to a data source of its own")

    def variables(self, where, held):
        """The first value of each variable, in order, since later ones may depend on it."""
        chosen = {}
        for variable in held["templating"]["list"]:
            self.counts["variables"] += 1
            if variable["type"] == "datasource":
                continue
            name = f"{where}, variable {variable['name']}"
            question = LABEL_VALUES.match(substitute(variable["query"]["query"], chosen))
            if not question:
                self.fault(name, "asks for no label's values")
                continue
            selector, label = question.groups()
            values = self.ask(f"/api/v1/label/{label}/values", **{"match[]": selector})
            if not values:
                self.fault(name, "has no values")
            several = variable["includeAll"]
            chosen[variable["name"]] = "|".join(map(re.escape, values)) if several else values[0]
        return chosen

    def target(self, where, target, chosen):
        self.counts["queries"] += 1
        expression = substitute(target["expr"], chosen)
        series = self.series(where, expression)
        for label in re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]):
            if any(label not in one["metric"] for one in series):
                self.fault(where, f"no label {label} for the legend")

    def annotation(self, where, annotation, chosen):
        self.counts["annotations"] += 1
        self.series(where, substitute(annotation["expr"], chosen))


def substitute(expression, chosen):
    for name, value in BUILT_IN.items():
        expression = expression.replace(name, value)
    for name, value in chosen.items():
        # A regular expression stands within a string, where a backslash is doubled.
        expression = expression.replace(f"${name}", value.replace("\\", "\\\\"))
    if "$" in expression:
        raise ValueError(f"a variable without value in {expression}")
    return expression


def differences(path, want, got):
    """Places where `got` lacks or changes what `want` has."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key, value in want.items():
            yield from differences(f"{path}.{key}", value, got.get(key))
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for at, (one, other) in enumerate(zip(want, got)):
            yield from differences(f"{path}[{at}]", one, other)
    elif want != got and want not in (None, [], {}):
        yield path, want, got


def main(directory, prometheus):
    check = Check(prometheus)
    for path in sorted(pathlib.Path(directory).glob("*.json")):
        check.dashboard(path)
    print(json.dumps(check.counts))
    for fault in check.faults:
        print(fault, file=sys.stderr)
    return 1 if check.faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
