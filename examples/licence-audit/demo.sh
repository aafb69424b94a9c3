#!/usr/bin/env bash
# The licence audit of Selvedge's own dependencies, with three kills in its middle: `make demo`.
# It ends with 0 only if everything that it claims at the end is true.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

began=$(date +%s)
echo "== building selvedge"
cargo build -q -p selvedge --bin selvedge
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
echo "   built in $(($(date +%s) - began)) s; what follows is run time"

exec python3 examples/licence-audit/demo.py "$target/debug/selvedge" "$target/demo"
