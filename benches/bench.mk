# Measurements beside the micro benches. Each installs its peers from Debian, is bounded, and ends
# what it started. Results are kept in benches/results/.
.PHONY: bench-peers

PYTHON ?= python3
QUICK ?=

bench-peers: ## CPU per request beside nginx, HAProxy and Caddy (QUICK=1: three minutes)
	$(PYTHON) benches/peers.py $(if $(QUICK),--quick)
