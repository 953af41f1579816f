#!/usr/bin/env bash
# Checks the alerts in deploy/ with Prometheus' own tool: their syntax, and the rule tests in
# .ci/alerts. What a test expects must be able to fail, so one alert is broken on purpose.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v promtool >/dev/null; then
  echo "alerts: skipped, promtool is not there: it is in Debian's package prometheus"
  exit 0
fi
promtool check rules deploy/alerts.yaml
promtool test rules .ci/alerts/test.yaml

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/deploy" "$scratch/.ci/alerts"
cp .ci/alerts/test.yaml "$scratch/.ci/alerts/"
sed 's/oci_proxy_ready == 0/oci_proxy_ready == 2/' deploy/alerts.yaml >"$scratch/deploy/alerts.yaml"
if promtool test rules "$scratch/.ci/alerts/test.yaml" >"$scratch/out" 2>&1; then
  echo "alerts: an alert that never fires passes its test"
  exit 1
fi
grep -q 'alertname: *OciProxyNotReady' "$scratch/out" || { cat "$scratch/out" && exit 1; }
echo "alerts: $(grep -c 'alert: ' deploy/alerts.yaml) alerts hold their tests"
