"""Holds Kubernetes documents against the published schemas, and a chart's values against its own.

manifests.py CONFIGS_DIR VALUES.yaml VALUES.schema.json FILE...

Prints one line a finding and exits with 1 when there is one. Configuration files found in ConfigMaps
are written to CONFIGS_DIR, for the programs themselves to read.
"""

import copy
import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

# Of the Prometheus operator, whose schemas are not among those of Kubernetes.
FOREIGN = {"monitoring.coreos.com/v1"}
VERSIONS = ["1.29", "1.34"]


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def findings_of(path, configs):
    found = []
    for document in documents(path):
        name = f"{path.name}: {document['kind']} {document['metadata']['name']}"
        if document["apiVersion"] in FOREIGN:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{name}: {version}: {error}")
        found += [f"{name}: {what}" for what in unlocked(document)]
        if document["kind"] == "ConfigMap":
            for file, text in document["data"].items():
                (configs / f"{path.stem}.{file}").write_text(text)
    return found


def unlocked(document):
    """What the restricted pod security standard would refuse."""
    spec = document.get("spec", {}).get("template", {}).get("spec")
    if spec is None:
        return
    if spec["securityContext"].get("runAsNonRoot") is not True:
        yield "may run as root"
    if spec["securityContext"].get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    mounted = {volume["name"] for volume in spec["volumes"]}
    mounted |= {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
    for container in spec["containers"] + spec.get("initContainers", []):
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']}: may gain privileges"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']}: keeps capabilities"
        if "memory" not in container["resources"].get("limits", {}):
            yield f"{container['name']}: memory is not bounded"
        for mount in container["volumeMounts"]:
            if mount["name"] not in mounted:
                yield f"{container['name']}: no volume {mount['name']}"


def findings_of_values(values, schema):
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    found = [f"values.yaml: {error.message}" for error in validator.iter_errors(values)]
    # What must be refused, so that the schema is known to refuse anything.
    for path, wrong in [
        (["agent", "enabled"], "yes"),
        (["aggregator", "storage", "size"], "50"),
        (["aggregator", "identitySecret"], ""),
        (["podSecurityContext", "runAsUser"], 0),
        (["image", "pullPolicy"], "Sometimes"),
        (["agent", "segmentsHostPath"], "dev/shm"),
        (["aggregater"], {}),
    ]:
        changed = copy.deepcopy(values)
        at = changed
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = wrong
        if validator.is_valid(changed):
            found.append(f"values.schema.json takes {'.'.join(path)} = {wrong!r}")
    return found


def main():
    configs, values, schema, *files = map(pathlib.Path, sys.argv[1:])
    found = findings_of_values(yaml.safe_load(values.read_text()), json.loads(schema.read_text()))
    for file in files:
        found += findings_of(file, configs)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
