#!/usr/bin/env bash
# Compares schedules with cron-parser over every zone, and writes what cron-parser gives for some into the fixture that
# `make test` reads. Needs node and npm; cron-parser goes into the target folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
cargo build -q --release -p selvedge-kernel --example fires
mkdir -p "$target/schedules"
cp "$here/compare.mjs" "$target/schedules/"
cd "$target/schedules"
npm install --silent --no-audit --no-fund --no-save --prefix . cron-parser@5.10.6
node compare.mjs "$target/release/examples/fires" "$root/crates/kernel/tests/data/schedules/cron_parser.txt"
