# `make demo` shows it, `make test` proves it. Everything else is a part of one of them or a closer look.
# The same feature set in every recipe, so that nothing is built twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CYCLES ?= 200
SEED ?= 1
FUZZ_SECONDS ?= 30
SEEDS ?= 500
FROM ?= 1
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo newcomer test fmt lint shape coverage-of-words unit doc conformance kill sim bench bench-http bench-peers scale fuzz schedules package

help:
	@echo "make demo                     the licence audit of our own dependencies, with three kills in the middle"
	@echo "make newcomer                 the README's ten minutes in a fresh clone, as they stand there, with the time of each part"
	@echo "make test                     everything that must hold: format, lints, shape, tests, kill loop, demo"
	@echo "make shape                    does the tree look as DESIGN.md draws it?"
	@echo "make coverage-of-words        has each word of the design a test that names it?"
	@echo "make conformance              the HTTP API against its own document, by schemathesis, and a client made of it"
	@echo "make kill CYCLES=200 SEED=1   kill a bank and a pipeline at random moments, then audit them and a backup"
	@echo "make sim SEEDS=500 FROM=1     the engine in virtual time under faults, one history a seed; invariants after each"
	@echo "make bench                    speed, as ratios to the bare disk (release build)"
	@echo "make bench-http               the HTTP API under wrk, beside a bare axum handler; ten thousand idle subscribers; a tenant that floods"
	@echo "make bench-peers              the same workloads here and on Restate, interleaved in one run (needs npm)"
	@echo "make scale                    100 000 items, 1 000 000 timers, 100 000 calls, 10 000 senders and schedules: time, memory, disk, growth"
	@echo "make schedules                fires of schedules against cron-parser, every zone, 2020 to 2035 (needs npm)"
	@echo "make fuzz FUZZ_SECONDS=30     every fuzz target for so many seconds"
	@echo "make package                  a Debian package, the image, cargo install: built, and proven as far as this machine can"

demo:
	@tools/bin/need cargo cc python3
	@bash examples/licence-audit/demo.sh

# By hand: it builds twice, in a clone of what is committed. What needs no build of its own is a part of `make unit`.
newcomer:
	@tools/bin/need cargo cc git python3
	@tools/bin/newcomer

test: fmt lint shape unit doc
	@$(MAKE) --no-print-directory conformance
	@$(MAKE) --no-print-directory sim
	@$(MAKE) --no-print-directory kill
	@$(MAKE) --no-print-directory demo
	@if [ -f $(TARGET_DIR)/nextest.log ]; then echo "== tests, once more"; grep -E '^ *Summary|tests? run:' $(TARGET_DIR)/nextest.log; fi
	@echo "make test: all of it holds"

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets -- -D warnings

shape:
	cargo run -q -p selvedge-shape

# A part of the shape: docs/coverage-of-words.md, its tests, and the words that parsers and command line know.
coverage-of-words: shape

unit:
	@if cargo nextest --version >/dev/null 2>&1; then \
		mkdir -p $(TARGET_DIR); \
		echo "cargo nextest run --workspace"; \
		cargo nextest run --workspace --no-fail-fast 2>&1 | tee $(TARGET_DIR)/nextest.log; \
	else \
		echo "cargo test --workspace --lib --bins --tests"; \
		cargo test --workspace --lib --bins --tests; \
	fi

doc:
	cargo test --workspace --doc

# schemathesis asks a live server all that its document says, rightly and wrongly, from one seed; then an example is asked by a
# client that is made of that document. Both come from a package registry, once, into the target folder.
conformance:
	@tools/bin/need cargo cc python3 node python-tools
	cargo build -q --workspace --bin selvedge
	@python3 tools/conformance/try.py $(TARGET_DIR)/debug/selvedge $(TARGET_DIR)/python-tools/bin/schemathesis $(TARGET_DIR)/conformance
	@$(TARGET_DIR)/python-tools/bin/python tools/conformance/client.py $(TARGET_DIR)/debug/selvedge $(TARGET_DIR)/python-tools/bin/openapi-python-client $(TARGET_DIR)/conformance-client

kill:
	@tools/bin/need cargo cc python3
	cargo build -q -p selvedge -p selvedge-kill
	cargo run -q -p selvedge-kill -- --cycles $(CYCLES) --seed $(SEED) --dir $(TARGET_DIR)

# sim/ is a workspace of its own; one seed alone, with its history: `sim/target/release/selvedge-sim --seed N`.
sim:
	@tools/bin/need cargo
	@cd sim && cargo clippy -q --all-targets -- -D warnings && cargo test -q --release && cargo build -q --release && \
	"$${CARGO_TARGET_DIR:-target}/release/selvedge-sim" --seeds $(SEEDS) --from $(FROM)

# By hand: they take minutes, and print time, peak memory, bytes on disk, and how they grow.
scale:
	cargo run -q --release -p selvedge --example scale_runs
	cargo run -q --release -p selvedge --example scale_timers
	cargo run -q --release -p selvedge --example scale_actors

bench:
	cargo run -q --release -p selvedge-bench -- $(TARGET_DIR)

# By hand: minutes each.
bench-http:
	@tools/bin/need cargo wrk
	cargo run -q --release -p selvedge-bench -- $(TARGET_DIR) http

bench-peers:
	@tools/bin/need cargo node npm wrk
	@tools/peers/run.sh $(TARGET_DIR)

# By hand: it takes minutes and a package registry. Its results for some zones are a fixture, which `make unit` reads.
schedules:
	@tools/bin/need cargo node npm
	@tools/schedules/run.sh

# fuzz/ is a workspace of its own; libFuzzer works on the stable compiler, without a sanitizer.
fuzz: export RUSTFLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
fuzz:
	@tools/bin/need cargo g++
	@cd fuzz && host=$$(rustc -vV | sed -n 's/^host: //p') && cargo build --release --target "$$host" && \
	for source in fuzz_targets/*.rs; do \
		name=$$(basename "$$source" .rs); mkdir -p "corpus/$$name"; \
		echo "== $$name, $(FUZZ_SECONDS) s"; \
		"$${CARGO_TARGET_DIR:-target}/$$host/release/$$name" -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -verbosity=0 "corpus/$$name"; \
	done; \
	echo "fuzz: nothing found"

# By hand: two release builds at the first time. What the proofs want is installed where that is possible, and missed aloud where not.
package:
	@tools/bin/need cargo cc git python3 dpkg-deb
	@tools/bin/need shellcheck mmdebstrap systemd-nspawn || true
	@tools/package/all
