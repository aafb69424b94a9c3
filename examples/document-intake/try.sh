#!/usr/bin/env bash
# Real documents through the whole pipeline: killed in its middle, approved, escalated, and started by its schedule.
# It ends with 0 only if everything that it claims is true.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools/bin/need cargo cc python3 node
echo "== building selvedge"
cargo build -q -p selvedge --bin selvedge
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

exec python3 examples/document-intake/try.py "$target/debug/selvedge" "$target/document-intake"
