#!/usr/bin/env bash
# A server, and workers in Python and Node that are killed, stalled, left without their server and sent away.
# It ends with 0 only if everything that it claims is true.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools/bin/need cargo cc python3 node
echo "== building selvedge"
cargo build -q -p selvedge --bin selvedge
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

exec python3 examples/workers/try.py "$target/debug/selvedge" "$target/workers"
