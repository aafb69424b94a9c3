#!/usr/bin/env bash
# Six orders of a small shop, one of them killed twice: what happens, and what must be true afterwards.
# It ends with 0 only if everything that it claims is true.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools/bin/need cargo cc python3
echo "== building selvedge"
cargo build -q -p selvedge --bin selvedge
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

exec python3 examples/order/try.py "$target/debug/selvedge" "$target/order"
