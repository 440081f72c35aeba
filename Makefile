# `make help` lists the targets. CI calls these and nothing else. Each installs what it needs (scripts/setup).

MACHETE_VERSION := 0.9.2
DENY_VERSION := 0.20.2
DEB_VERSION := 3.8.0
TOOLS := target/tools

export CATALOG QUERIES FORMAT FOR SEED

# The engine that scripts run on: quickjs or v8. V8's library is downloaded by its crate, or taken from RUSTY_V8_ARCHIVE.
ENGINE := quickjs
DIST := $(CURDIR)/target/dist
ifneq ($(ENGINE),quickjs)
DIST := $(CURDIR)/target/$(ENGINE)/dist
ENGINE_FLAGS := --no-default-features --features $(ENGINE) --target-dir target/$(ENGINE)
endif

.PHONY: help demo run test test-docker test-code chaos escape check catalog bench eval conformance clients man optimize deb image packages-check clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

demo: ## Play a conversation of an agent with the broker
	@scripts/setup test
	cargo build --bin mcp-broker --example fixture-server --example demo
	target/debug/examples/demo

run: ## Serve on 127.0.0.1:8811
	@scripts/setup build
	cargo run --release --bin mcp-broker -- serve

test: clients ## Run every test
	cargo test --workspace --no-fail-fast

test-docker: ## Run the container stories against a real Docker Engine, started if none runs
	@scripts/setup docker
	cargo build --bin mcp-broker --example fixture-server
	tests/docker/run

chaos: ## Kill the broker and fill its disk at random instants: FOR=60 seconds, SEED=number
	@scripts/setup test
	cargo build --bin mcp-broker --example fixture-server
	cargo test --test it -- --ignored --nocapture chaos

check: $(TOOLS)/bin/cargo-machete $(TOOLS)/bin/cargo-deny ## Formatting, lints, documentation, dependencies
	@scripts/setup build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items
	$(TOOLS)/bin/cargo-machete --skip-target-dir
	$(TOOLS)/bin/cargo-deny check bans licenses sources
	cargo run --quiet --example catalog-build -- --check

catalog: ## Make the built-in catalog from facts (MCP_BROKER_TEST_DATA) and our own words
	cargo run --example catalog-build

test-code: ## Run the tests of scripts and their workers (ENGINE=v8: on V8)
	@scripts/setup test
	cargo build --bin mcp-broker --example fixture-server $(ENGINE_FLAGS)
	cargo test -p js-runtime $(ENGINE_FLAGS)
	cargo test --test it $(ENGINE_FLAGS) -- code_mode scripts workers

escape: ## Try to get out of the sandbox that scripts run in (ENGINE=v8: on V8)
	@scripts/setup build
	cargo test -p js-runtime --test escape $(ENGINE_FLAGS)

bench: ## Measure what the program of packages costs, beside the same calls without it (PARTS=scripts ENGINE=v8 PROGRAM=another)
	@scripts/setup build
	$(if $(PROGRAM),,$(MAKE) optimize)
	cargo build --release --bin mcp-broker --example fixture-server $(ENGINE_FLAGS)
	MCP_BROKER_BENCH_PROGRAM="$(or $(PROGRAM),$(DIST)/mcp-broker)" cargo bench --bench load $(ENGINE_FLAGS) -- $(PARTS)

eval: ## Measure the search: CATALOG=file QUERIES=file FORMAT=json for a catalog and queries of your own
	@scripts/setup build >&2
	@cargo bench --quiet --bench eval

conformance: clients ## Run both requirement sets of the official conformance suite through the broker
	cargo build --bin mcp-broker --example fixture-server
	tests/clients/conformance

man: ## Write manual pages and completions to target/packages
	@scripts/setup build
	cargo build --bin mcp-broker
	packaging/files target/debug/mcp-broker

optimize: ## Build the program of packages, target/dist/mcp-broker, by a profile of what it does: half an hour on two cores
	@scripts/setup optimize
	scripts/optimize $(ENGINE_FLAGS)

deb: $(TOOLS)/bin/cargo-deb ## Make a Debian package in target/debian
	@scripts/setup packages
	@scripts/setup optimize
	scripts/optimize
	packaging/files target/dist/mcp-broker
	$(TOOLS)/bin/cargo-deb deb --no-build --profile dist --output target/debian/

image: ## Build the Docker image `mcp-broker`
	docker build --file packaging/docker/Dockerfile --tag mcp-broker .

packages-check: $(TOOLS)/bin/cargo-deb ## Make every package with a debug build, and try each as far as it can be here
	@scripts/setup packages
	cargo build --bin mcp-broker
	packaging/check target/debug/mcp-broker

# Official clients, for tests.
clients:
	@scripts/setup test
	@tests/clients/setup

$(TOOLS)/bin/cargo-machete:
	cargo install --quiet --locked --debug --root $(TOOLS) cargo-machete@$(MACHETE_VERSION)

$(TOOLS)/bin/cargo-deny:
	cargo install --quiet --locked --debug --root $(TOOLS) cargo-deny@$(DENY_VERSION)

$(TOOLS)/bin/cargo-deb:
	cargo install --quiet --locked --debug --no-default-features --root $(TOOLS) cargo-deb@$(DEB_VERSION)

clean: ## Remove everything that was built
	cargo clean
