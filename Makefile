# The project's commands. Each is one line; the work is in tools/.
.DEFAULT_GOAL := help
.PHONY: help setup up down fix check test e2e sanity bench

BIN := .venv/bin
ARGS ?=
# Most tests wait more than they work; PARALLEL= runs them one after the other.
PARALLEL ?= -n 3 --dist loadscope

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv with everything locked in requirements/ (a second run is instant)
	@tools/setup dev

up: ## Start Holdfast on this machine, then get a claim, a volume and a pod through it
	@tools/setup run && { $(BIN)/holdfast status >/dev/null 2>&1 || $(BIN)/holdfast up --detach $(ARGS); } && $(BIN)/holdfast demo

down: ## Stop Holdfast; volumes and their data stay
	@tools/setup run && $(BIN)/holdfast down

fix: ## Format the code and apply the linter's safe corrections
	@tools/setup dev && $(BIN)/ruff format . && $(BIN)/ruff check --fix .

check: ## Format, lint, types, layers and size limits: what a change must pass
	@tools/setup dev && tools/check

test: ## Unit, component and kubectl tests; ARGS="-k binder" selects
	@tools/setup dev && $(BIN)/pytest -m "not e2e" $(PARALLEL) $(ARGS)

e2e: ## Tests with the real file systems and servers; fails where one is missing
	@tools/setup e2e && KUBEBUILDER_ASSETS="$${KUBEBUILDER_ASSETS:-$$(tools/servers/kubernetes/build)}" \
		$(BIN)/pytest -m e2e $(PARALLEL) $(ARGS)

sanity: ## csi-sanity against the local backend: images and directories, mount and block
	@tools/setup dev && tools/servers/csi-sanity >/dev/null && $(BIN)/pytest -m e2e tests/e2e/test_csi_sanity.py $(ARGS)

bench: ## Print the benchmarks: claims per second, latencies, memory
	@tools/setup dev && $(BIN)/python -m benchmarks $(ARGS)
