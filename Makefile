# Everything a developer runs. CI runs `make test` and nothing else.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo release test check deny contrib bench fmt tools

CARGO ?= cargo
BIN := $(or $(CARGO_TARGET_DIR),target)/release/jailgate
SHIPPED := $(or $(CARGO_TARGET_DIR),target)/pgo/jailgate

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

include benches/bench.mk

demo: ## build, then show attackers being banned and an honest client passing (KEEP=1 leaves it running)
	$(CARGO) build --locked --release
	KEEP=$(KEEP) demo/demo.sh $(BIN)

release: $(SHIPPED) ## the program as it is shipped, built by the profile of its own work: target/pgo/jailgate

$(SHIPPED): Cargo.toml Cargo.lock rust-toolchain.toml $(wildcard contrib/pgo/*) $(shell find src -type f)
	contrib/pgo/build.sh

test: check tools ## everything CI holds: format, lints, docs, all tests
	$(CARGO) test --locked

check: ## format, lints, docs, and dependencies when cargo-deny is there
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(MAKE) --no-print-directory deny; \
	else echo "cargo-deny is not installed: licences, bans and sources not checked"; fi

deny: ## licences, duplicates and sources of dependencies (ADVISORIES=advisories also asks the advisory database)
	$(CARGO) deny --locked check bans licenses sources $(ADVISORIES)

contrib: ## rate the systemd unit, lint the alert rules and the Helm chart, with those tools that are there
	@unit=$$(mktemp -d); trap 'rm -r "$$unit"' EXIT; \
	if command -v systemd-analyze >/dev/null; then \
	    sed 's|/usr/bin/jailgate|/bin/true|' contrib/systemd/jailgate.service >"$$unit/jailgate.service"; \
	    systemd-analyze verify "$$unit/jailgate.service"; \
	    systemd-analyze security --offline=true --threshold=30 contrib/systemd/jailgate.service | tail -n 1; \
	else echo "systemd-analyze is not installed"; fi
	@if command -v promtool >/dev/null; then \
	    promtool check rules contrib/prometheus/jailgate.rules.yml; \
	    promtool test rules contrib/prometheus/jailgate.test.yml; \
	else echo "promtool is not installed"; fi
	@if command -v helm >/dev/null; then helm lint --strict contrib/helm/jailgate; \
	else echo "helm is not installed"; fi

bench: ## decide, proxy and the other micro benches
	$(CARGO) bench --locked

fmt: ## format
	$(CARGO) fmt

tools: ## the servers and clients that the tests talk to, installed when missing
	@tests/tools.sh
