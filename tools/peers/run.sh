#!/usr/bin/env bash
# The same workloads on Selvedge and on Restate, interleaved in one run: `tools/peers/run.sh TARGET_DIR`. It takes about ten
# minutes, a package registry for npm (Restate's server, 220 MB) and one for cargo (its SDK). Nothing of it is a part of the project.
set -euo pipefail
target=${1:?say where to build, as in: tools/peers/run.sh target}
mkdir -p "$target/peers"
target=$(cd "$target" && pwd)
cd "$(dirname "$0")"
version=1.7.12

# The program itself, not npm's starter of it: who kills that leaves this one behind.
found() { find "$target/peers" -path '*/@restatedev/*/bin/restate-server' -type f 2>/dev/null | head -n 1; }
server=$(found)
if [ -z "$server" ]; then
  npm install --silent --no-audit --no-fund --prefix "$target/peers" "@restatedev/restate-server@$version" >&2
  server=$(found)
fi
[ -n "$server" ] || { echo "peers: npm has no Restate for this machine" >&2; exit 1; }
CARGO_TARGET_DIR="$target/peers/build" cargo build -q --release --locked
cd ../..
cargo build -q --release -p selvedge-bench
echo "$(date -u +%F), $(getconf _NPROCESSORS_ONLN) cores, $(uname -sr); Restate $version with its Rust SDK, defaults, one node; wrk with one thread"
"$target/release/selvedge-bench" "$target" peers "$server" "$target/peers/build/release/restate-service"
