#!/usr/bin/env bash
# Installs what tests run beside lens, on Debian and its like; a test that lacks one says so loudly
# and tests nothing. One package a line.
set -euo pipefail

packages=(
    iptables # tests/tests/network.rs: packets dropped one way, both ways, at random
)

apt-get update
apt-get install --yes --no-install-recommends "${packages[@]}"
