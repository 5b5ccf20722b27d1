# Fairway. "make" alone prints the targets. Each of them sets up what it needs.

GO := scripts/with-go go
# One set of flags for the programs, the tests and the tools: what one has
# compiled the others find in the cache.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -buildvcs=false $(GOFLAGS)

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## install what is missing on this machine (Debian, as root)
	@scripts/setup

# The CNI plugin has an entry point of its own, see docs/design/plugin.md.
LDFLAGS := -ldflags "-s -w" -ldflags "./cmd/fairway-ipam=-s -w -E fairway_start"

.PHONY: build
build: setup ## build the programs into bin/
	@mkdir -p bin/cni
	$(GO) build $(LDFLAGS) -o bin/ ./cmd/... ./integration/lab/cmd/lab ./integration/demo/roadside
	$(GO) build $(LDFLAGS) -o bin/cni/ ./cmd/fairway-ipam \
		$$($(GO) list tool | grep -F containernetworking/plugins/)

# The name of the container image, and what builds it: docker, podman or buildah.
IMAGE ?= fairway
BUILDER ?= docker

.PHONY: image
image: build ## build the container image IMAGE (fairway) with BUILDER (docker)
	@rm -rf bin/image && mkdir -p bin/image
	cp bin/fairway bin/fairway-controller bin/fairway-ipam bin/fairway-speaker bin/image/
	$(BUILDER) build -t $(IMAGE) -f deploy/image/Containerfile bin/image

.PHONY: demo
demo: build ## bring up two nodes, a router, pods; show the road; take it down
	$(GO) run ./integration/demo

.PHONY: lab
lab: build ## the same, but leave it up and print what to try
	$(GO) run ./integration/demo -keep

.PHONY: lab-down
lab-down: setup ## take down what make lab left up
	$(GO) run ./integration/demo -down

.PHONY: kube
kube: setup ## build a Kubernetes control plane for the tests into bin/kube/
	@scripts/kube

.PHONY: kube-up
kube-up: kube ## bring up a Kubernetes control plane until Control-C
	@$(GO) run ./integration/kube/cmd/controlplane

.PHONY: test
test: build kube ## run all tests
	@scripts/test

.PHONY: check
check: setup ## formatting, vet, staticcheck, imports, go.mod, generated files
	@scripts/check

.PHONY: bench
bench: build ## measure against other IPAM plugins and daemons
	$(GO) run ./integration/bench

.PHONY: fuzz
fuzz: setup ## run each fuzz target for FUZZTIME (10s)
	@scripts/fuzz

.PHONY: soak
soak: setup ## run the simulation of the exchange for SOAKTIME (10m)
	SOAKTIME=$${SOAKTIME:-10m} $(GO) test -count=1 -timeout 0 -v -run '^TestSimulation$$' ./pools/exchange

.PHONY: mutate
mutate: setup ## break the rules of the exchange one by one; its simulation, or else another of its tests, must notice each (10 min)
	$(GO) run ./scripts/mutate

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
