# Measurements beside the micro benches. Each installs its peers from Debian, is bounded, and ends
# what it started. Results are kept in benches/results/.
.PHONY: bench-peers bench-botnet

PYTHON ?= python3
QUICK ?=

bench-peers: ## CPU per request beside nginx, HAProxy and Caddy (QUICK=1: three minutes)
	$(PYTHON) benches/peers.py $(if $(QUICK),--quick)

bench-botnet: ## 7,000 bots: jailgate live, fail2ban and crowdsec on the same attack's log (MINUTES=4)
	$(PYTHON) benches/botnet.py --minutes $(or $(MINUTES),4)
