# Measurements beside the micro benches. Each installs its peers from Debian, is bounded, and ends
# what it started. Results are kept in benches/results/. What the first three and `soak` run is the
# shipped program, made by `make release` where it is not up to date.
# JAILGATE=path measures another one (`cargo build --release` is enough to work on a bench), and the
# tables say so.
.PHONY: bench-peers bench-botnet bench-memory soak guard guard-accept

PYTHON ?= python3
QUICK ?=
MINUTES ?= 4
SOAK ?= 600
KILLS ?= 100

bench-peers: ## CPU per request beside nginx, HAProxy and Caddy (QUICK=1: twelve minutes)
	$(PYTHON) benches/peers.py $(if $(QUICK),--quick)

bench-botnet: ## 7,000 bots: jailgate live, fail2ban and crowdsec on the same attack's log (MINUTES=4)
	$(PYTHON) benches/botnet.py --minutes $(MINUTES)

bench-memory: ## RSS idle, at a million decisions, a million clients, and idle connections
	$(PYTHON) benches/memory.py

soak: tools ## mixed traffic, reloads and bans, memory stays flat (SOAK=600 seconds); KILLS=100 times kill -9 with a real LAPI
	$(PYTHON) benches/soak.py --seconds $(SOAK)
	KILLS=$(KILLS) $(CARGO) test --locked --release --test it -- kill:: --nocapture

guard: ## instructions per check, observe, request, connection and forwardAuth answer, against benches/instructions.toml
	$(PYTHON) benches/guard.py

test: guard

guard-accept: ## keep today's instruction counts as the numbers to hold
	$(PYTHON) benches/guard.py --accept
