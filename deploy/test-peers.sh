#!/usr/bin/env bash
# Installs what tests are held against or run beside, on Debian and its like: a real Alertmanager,
# the libraries of Standard Webhooks, Slack and PagerDuty, iptables, which drops packets, NGINX, and
# the messages and schemas of Envoy, the Gateway API and Argo Rollouts. Does nothing that is done
# already; a test that lacks one says so loudly.
#
#   deploy/test-peers.sh [DIR]     DIR holds the Python environment, target/test-peers by default
set -euo pipefail
cd "$(dirname "$0")/.."
dir="${1:-${LENS_TEST_PEERS:-target/test-peers}}"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

missing=()
command -v prometheus-alertmanager >/dev/null || missing+=(prometheus-alertmanager)
command -v iptables >/dev/null || missing+=(iptables)
command -v nginx >/dev/null || missing+=(nginx-light)
command -v curl >/dev/null || missing+=(curl)
command -v npm >/dev/null || missing+=(nodejs npm)
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

wanted=(hdrhistogram==0.10.8 jsonschema==4.26.0 kubernetes-validate==1.37.0 pagerduty==7.2.0 slack_sdk==3.48.0 standardwebhooks==1.1.0)
# An OTLP receiver by the official definitions.
wanted+=(googleapis-common-protos==1.76.0 grpcio==1.85.3 opentelemetry-proto==1.45.2)
# Envoy's messages, and what reads its example.
wanted+=(pyyaml==6.0.4 xds-protos==1.85.0)
if [ "$(cat "$dir/wanted" 2>/dev/null)" != "${wanted[*]}" ]; then
    python3 -m venv "$dir"
    "$dir/bin/pip" install --quiet --disable-pip-version-check "${wanted[@]}"
    printf '%s' "${wanted[*]}" >"$dir/wanted"
fi

schemas=(@kubernetes-models/gateway-api@2.0.0 @kubernetes-models/argo-rollouts@2.0.0)
if [ "$(cat "$dir/schemas" 2>/dev/null)" != "${schemas[*]}" ]; then
    npm install --silent --no-audit --no-fund --prefix "$dir" "${schemas[@]}"
    printf '%s' "${schemas[*]}" >"$dir/schemas"
fi
echo "test peers: $(command -v prometheus-alertmanager), $dir (${wanted[*]})"
