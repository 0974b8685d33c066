# Every command a person types. The work is in the scripts; each target installs
# what it needs from Debian's packages and the Go module proxy, as root.

# deps.sh puts a Go toolchain in build/cache/go where the machine's is too old.
export PATH := $(CURDIR)/build/cache/go/bin:$(PATH):/usr/local/go/bin
export GOTOOLCHAIN := local

LINTER := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
linter := build/cache/bin/$(notdir $(LINTER))
E2E := go test -v -count=1 -timeout 40m $(if $(RUN),-run '$(RUN)') ./e2e/...

.PHONY: help install uninstall bundle verify-bundle test unit e2e bench lint fmt push
.DEFAULT_GOAL := help

help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

install: ## build, install (or upgrade) seaway:latest on this engine, and prove it
	@rootfs-build/deps.sh install
	@rootfs-build/rootfs.sh
	@install/install.sh

uninstall: ## disable and remove it, and all it had in the kernel (FORCE=1: though networks exist)
	@FORCE='$(FORCE)' install/uninstall.sh

bundle: ## build/bundle/: config.json and rootfs/, ready for docker plugin create
	@rootfs-build/deps.sh bundle
	@rootfs-build/rootfs.sh

verify-bundle: ## build the bundle twice and compare every byte
	@rootfs-build/deps.sh bundle
	@rootfs-build/verify.sh

test: unit bundle ## every test: unit, kernel, real engines old and new on simulated hosts
	ENGINE=debian $(E2E)
	ENGINE=modern $(E2E)

unit: # not in help: the part of test that needs no engine
	@rootfs-build/deps.sh test
	go vet ./...
	go test -race -count=1 -timeout 40m ./plugin/... ./rootfs-build/...

e2e: bundle ## real engines on simulated hosts (RUN=regexp picks tests, ENGINE=debian or modern)
	@rootfs-build/deps.sh test
	ENGINE=$(or $(ENGINE),debian) $(E2E)

bench: bundle ## what Seaway costs, as ratios to the bridge driver: a table, and build/bench.json
	@rootfs-build/deps.sh test
	ENGINE=$(or $(ENGINE),debian) go run ./bench -json build/bench.json

lint: $(linter) ## formatting, vet, module file, linters, shell scripts
	@! gofmt -l $$(git ls-files -co --exclude-standard '*.go') | grep .
	go vet ./...
	go mod tidy -diff
	$(linter) run ./...
	@if command -v shellcheck >/dev/null; then git ls-files '*.sh' .ci/run | xargs shellcheck -x; fi

fmt: $(linter) ## format all Go code
	$(linter) fmt ./...

$(linter):
	@rootfs-build/deps.sh bundle
	cd / && GOBIN=$(CURDIR)/$(dir $@) go install $(LINTER)
	mv $(dir $@)golangci-lint $@

push: bundle ## push the plugin of this architecture: REPO=registry/name:tag
	@test -n '$(REPO)' || { echo 'make push REPO=registry/name:tag' >&2; exit 1; }
	docker plugin create $(REPO)-$$(go env GOARCH) build/bundle
	docker plugin push $(REPO)-$$(go env GOARCH)
	docker plugin rm $(REPO)-$$(go env GOARCH)
