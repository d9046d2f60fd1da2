"""Checks a compose file's structure: what it mounts from the checkout is there, what a service
depends on is a service, named volumes are declared, images carry a version, and provisioning and
Alertmanager files are YAML of the right kind. Prints the names of the services."""

import pathlib
import sys

import yaml

path = pathlib.Path(sys.argv[1])
held = yaml.safe_load(path.read_text())
faults = []
for name, service in held["services"].items():
    print(name)
    tag = service["image"].rpartition(":")[2]
    if not (service["image"].startswith("${") or tag[:1].isdigit() or tag.startswith("v")):
        faults.append(f"{name}: {service['image']} has no version")
    if build := service.get("build"):
        if not (path.parent / build["context"] / build["dockerfile"]).exists():
            faults.append(f"{name} is built from {build['dockerfile']}, which is not there")
    for other in service.get("depends_on", []):
        if other not in held["services"]:
            faults.append(f"{name} depends on {other}, which is no service")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            if not (path.parent / source).exists():
                faults.append(f"{name} mounts {source}, which is not there")
        elif not volume.startswith("${") and source not in held["volumes"]:
            faults.append(f"{name} mounts {source}, which is not declared")

root = path.parent.parent
sources = yaml.safe_load((root / "grafana/provisioning/datasources/lens.yml").read_text())
if [source["type"] for source in sources["datasources"]] != ["prometheus"]:
    faults.append("the provisioned data source is not Prometheus")
providers = yaml.safe_load((root / "grafana/provisioning/dashboards/lens.yml").read_text())
mounts = [volume.split(":")[1] for volume in held["services"]["grafana"]["volumes"]]
for provider in providers["providers"]:
    if provider["options"]["path"] not in mounts:
        faults.append(f"dashboards are read from {provider['options']['path']}, which is not mounted")
alerting = yaml.safe_load((path.parent / "alertmanager.yml").read_text())
if alerting["route"]["receiver"] not in [one["name"] for one in alerting["receivers"]]:
    faults.append("the route of Alertmanager names no receiver")
for fault in faults:
    print(fault, file=sys.stderr)
sys.exit(1 if faults else 0)
