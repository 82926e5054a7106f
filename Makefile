# SPDX-License-Identifier: Apache-2.0
#
# make help lists the targets. Every target that needs packages or a Go
# toolchain gets them through .ci/setup, which does nothing if they are there.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE   := $(or $(UPDATERD_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/updaterd)
# A release tarball has no history but a file that says what it is.
VERSION ?= $(shell cat VERSION 2>/dev/null || git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The toolchain that .ci/setup found or fetched comes first on the path.
export PATH        := $(CACHE)/go/bin:$(PATH)
export CGO_ENABLED := 0
export GOTOOLCHAIN := local
export GOFLAGS     := -buildvcs=false
# A packaging has its own toolchain, and may strip by itself: GO=..., STRIPPED= .
GO       ?= go
STRIPPED ?= -s -w
LDFLAGS := $(STRIPPED) -buildid= -X main.version=$(VERSION)
BUILD   := $(GO) build -trimpath -ldflags '$(LDFLAGS)'
# The device binary speaks HTTP/1.1 alone, and what is never hot is not inlined,
# such as what the signature library drags in: both save flash (10 % together).
COLD := google.golang.org/... golang.org/x/crypto/... github.com/sigstore/... vendor/... \
	crypto/ecdh crypto/ecdsa crypto/hmac crypto/hpke crypto/rsa crypto/tls crypto/x509 encoding/asn1 encoding/json encoding/xml \
	$(addprefix crypto/internal/fips140/,bigmod drbg ecdh ecdsa ed25519 edwards25519/... hkdf hmac mlkem nistec/... rsa tls12 tls13) \
	context flag fmt log/slog math/big mime/... net net/http net/netip net/textproto net/url os os/exec path/... reflect \
	regexp/... sort strconv strings text/... time unicode/... \
	github.com/BurntSushi/toml github.com/cavaliergopher/grab/... github.com/godbus/dbus/... \
	$(addprefix github.com/updaterd/updaterd/,bootctl/... sign/... bundle/canonical bundle/channel bundle/fsmap updaterd \
	$(addprefix updaterd/,client ctl $(addprefix internal/,check config fetch health install machine poll server update)))
# Of what is cold, this is hot: it opens every chunk of an encrypted bundle.
HOT := $(addprefix golang.org/x/crypto/,chacha20 chacha20poly1305 internal/alias internal/poly1305)
DEVICE_BUILD := $(BUILD) -tags nethttpomithttp2 $(COLD:%=-gcflags=%=-l) $(HOT:%=-gcflags=%=)
DEVICE_ARCHES := arm64 arm riscv64 amd64

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@latest

# Where make install puts things; the packagings set DESTDIR.
DESTDIR    ?=
PREFIX     ?= /usr
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
INITDIR    ?= $(SYSCONFDIR)/init.d
# What starts the daemon: systemd, sysvinit (BusyBox's init as well), both, or none.
INIT       ?= systemd
INITSCRIPT ?= updaterd

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install the Debian packages and the Go toolchain that the rest needs
	@.ci/setup

.PHONY: build
build: setup tools ## build everything for this machine into bin/
	$(BUILD) -o bin/updaterd ./updaterd
	@ln -sf updaterd bin/updaterctl
	@ln -sf updaterd bin/updater-bootctl

# Like device, this needs nothing but Go: packagings call it.
.PHONY: tools
TOOLS ?= bin
tools: ## build the build host's tools into bin/
	@mkdir -p "$(TOOLS)"
	$(BUILD) -o "$(TOOLS)/updater-bundle" ./bundle/cmd/updater-bundle
	$(BUILD) -o "$(TOOLS)/updater-sign" ./sign/cmd/updater-sign
	$(BUILD) -o "$(TOOLS)/sigstore-kms-pkcs11" ./sign/cmd/sigstore-kms-pkcs11

.PHONY: device
ARCH ?= arm64
OUT  ?= bin/updaterd-linux-$(ARCH)
device: ## build the device binary for ARCH (arm64) as OUT
	GOOS=linux GOARCH=$(ARCH) $(DEVICE_BUILD) -o "$(OUT)" ./updaterd

.PHONY: cross
cross: setup ## build the device binary for every supported architecture into bin/
	@mkdir -p bin
	@for arch in $(DEVICE_ARCHES); do \
		$(MAKE) --no-print-directory -s device ARCH=$$arch; \
		printf '%-28s %9d bytes\n' bin/updaterd-linux-$$arch "$$(stat -c %s bin/updaterd-linux-$$arch)"; \
	done

.PHONY: lint
lint: setup ## gofmt, vet, staticcheck, tidy go.mod
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted: $$unformatted"; exit 1; }
	go vet ./...
	go vet -tags qemu ./qemu/...
	go run $(STATICCHECK) -tags qemu ./...
	go mod tidy -diff

.PHONY: unit
unit: setup proof ## unit, property, fuzz-seed and command-line tests
	go test -timeout 10m $$(go list ./... | grep -v '/internal/proof$$')

.PHONY: proof
proof: setup ## cut the power after every step of an update, in memory, and say how often
	@go test -timeout 10m -v ./updaterd/internal/proof | grep -v '^ *\(===\|--- PASS\|PASS\)'

.PHONY: check
check: lint cross unit ## everything that needs no QEMU, in 10 to 15 minutes

.PHONY: assets
assets: setup ## build U-Boot, the kernel and the root file systems into the cache
	go run ./qemu/cmd/assets

# Two boards at a time: each keeps one core busy.
.PHONY: scenarios
scenarios: assets ## whole updates in QEMU, with the plug pulled
	go test -tags qemu -count=1 -v -p 1 -parallel 2 -timeout 75m ./qemu/assets/... ./qemu/flash/... ./qemu/scenario/...

.PHONY: soak
SOAK ?= 200
SEED ?= 0
SOAK_COUNTS ?= $(CACHE)/soak.json
soak: assets ## cut the power of a board in QEMU SOAK (200) times; goes on where it was stopped, or anew with SEED
	go test -tags qemu -count=1 -v -run '^TestSoak$$' -timeout 24h ./qemu/scenario \
		-args -soak=$(SOAK) -soak.seed=$(SEED) -soak.counts=$(SOAK_COUNTS)

.PHONY: test
test: check scenarios ## every test there is

.PHONY: test-integration
test-integration: ## Yocto and Buildroot, with the checkouts in OECORE_DIR, BITBAKE_DIR and BUILDROOT_DIR
	@.ci/setup integration
	OECORE_DIR='$(OECORE_DIR)' BITBAKE_DIR='$(BITBAKE_DIR)' BUILDROOT_DIR='$(BUILDROOT_DIR)' \
		go test -count=1 -v -timeout 6h $$(go list ./... | grep -E '/(yocto|buildroot)$$')

.PHONY: demo
demo: build ## two updates of a Debian arm64 system in QEMU, one good and one bad
	go run ./qemu/cmd/demo

.PHONY: shell
shell: build ## a console on the device that make demo left
	go run ./qemu/cmd/demo -shell

.PHONY: bench
bench: bench-parts bench-peers ## measure the parts, and the whole against other tools

.PHONY: bench-parts
bench-parts: setup ## measure the parts
	go test -run '^$$' -bench . -benchtime 2s ./bundle/... ./bootctl/... ./updaterd/...

# BENCH=quick leaves out what is slow, BENCH=fresh measures again what is kept
# in the cache, BENCH=all takes hours.
.PHONY: bench-peers
BENCH       ?=
BENCH_FLAGS ?=
bench-peers: setup ## build, apply and install updates, as other tools do (docs/benchmark.md)
	@.ci/setup bench
	@mkdir -p bin/bench
	@# Without a version: results are kept as long as the programs are the same.
	go build -trimpath -ldflags '-s -w -buildid=' -o bin/bench/ ./bundle/cmd/updater-bundle ./sign/cmd/updater-sign ./updaterd/internal/installbench ./bundle/bench
	@bin/bench/bench -cache $(CACHE)/bench -bin bin/bench -out bin/bench -mode '$(BENCH)' $(BENCH_FLAGS)

.PHONY: bench-docs
bench-docs: ## the same, and bring docs/benchmark.* up to date
	@$(MAKE) --no-print-directory bench-peers BENCH_FLAGS='-docs docs'

# What was found lies in the cache and is where the next run begins.
.PHONY: fuzz
FUZZTIME     ?= 30s
FUZZ         ?= .
FUZZPARALLEL ?= 2
fuzz: setup ## run every fuzz target that matches FUZZ (all) for FUZZTIME (30s), and count executions
	@grep -rho --include=*_test.go -H '^func Fuzz[A-Za-z]*' . | sort | sed 's#^\./##; s#/[^/]*:func # #' | grep -E '$(FUZZ)' | \
	while read -r package target; do \
		go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -parallel $(FUZZPARALLEL) -fuzzminimizetime 100x ./$$package \
			-args -test.fuzzcachedir=$(CACHE)/fuzz/$$package < /dev/null > $(CACHE)/fuzz.log 2>&1 || { cat $(CACHE)/fuzz.log; exit 1; }; \
		awk -v t="$$package $$target" '/execs:/ {time = $$3; execs = $$5} END {print t, "elapsed", time, "executions", execs}' $(CACHE)/fuzz.log; \
	done

.PHONY: vulncheck
vulncheck: setup ## look the dependencies up in Go's vulnerability database (needs the internet)
	go run $(GOVULNCHECK) ./...

.PHONY: install
BINARY ?= bin/updaterd-linux-$(ARCH)
install: have-binary install-init ## install what a device needs under DESTDIR; BINARY is the device binary, INIT systemd or sysvinit
	install -D -m 0755 "$(BINARY)" "$(DESTDIR)$(PREFIX)/bin/updaterd"
	ln -sf updaterd "$(DESTDIR)$(PREFIX)/bin/updaterctl"
	ln -sf updaterd "$(DESTDIR)$(PREFIX)/bin/updater-bootctl"
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/dbus-1/system.d" updaterd/data/org.updaterd.Updater1.conf
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/dbus-1/interfaces" updaterd/data/org.updaterd.Updater1.xml
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/polkit-1/actions" updaterd/data/org.updaterd.policy
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/man/man1" updaterd/data/man/*.1
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/man/man8" updaterd/data/man/*.8
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" updaterd/data/completion/*
	install -d -m 0755 "$(DESTDIR)$(SYSCONFDIR)/updaterd/keys"

# Said before anything is installed.
.PHONY: have-binary
have-binary:
	@test -f "$(BINARY)" || { echo "make install: there is no device binary $(BINARY); make device ARCH=$(ARCH) builds one, and BINARY=FILE names another" >&2; exit 1; }

# Of it, what starts the daemon. The activation file asks systemd to do so:
# without systemd, that there is no such name is the better answer.
.PHONY: install-init
install-init:
	@test -z '$(filter-out systemd sysvinit none,$(INIT))' || { echo "make install: INIT is \"$(INIT)\", and only systemd, sysvinit and none are known" >&2; exit 1; }
ifneq ($(filter systemd,$(INIT)),)
	install -D -m 0644 updaterd/data/updaterd.service "$(DESTDIR)$(UNITDIR)/updaterd.service"
	install -D -m 0644 updaterd/data/updaterd-trial.service "$(DESTDIR)$(UNITDIR)/updaterd-trial.service"
	for target in sysinit emergency; do \
		install -d -m 0755 "$(DESTDIR)$(UNITDIR)/$$target.target.wants" && \
		ln -sf ../updaterd-trial.service "$(DESTDIR)$(UNITDIR)/$$target.target.wants/" || exit 1; \
	done
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/dbus-1/system-services" updaterd/data/org.updaterd.Updater1.service
endif
ifneq ($(filter sysvinit,$(INIT)),)
	install -D -m 0755 updaterd/data/updaterd.init "$(DESTDIR)$(INITDIR)/$(INITSCRIPT)"
endif

.PHONY: install-tools
install-tools: ## install what a build host needs under DESTDIR, after make tools
	install -D -m 0755 -t "$(DESTDIR)$(PREFIX)/bin" "$(TOOLS)/updater-bundle" "$(TOOLS)/updater-sign" "$(TOOLS)/sigstore-kms-pkcs11"
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/man/man1" docs/man/*.1
	install -D -m 0644 -t "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" docs/completion/*

# The same commit gives the same bytes. What is only of use in a checkout stays
# out (.gitattributes): the packagings too, because they state the sum of this.
.PHONY: dist
DIST_NAME = updaterd-$(VERSION)
dist: setup ## write dist/updaterd-VERSION.tar.gz: what is committed, with vendor/, to be built without a network
	@rm -rf dist/$(DIST_NAME) && mkdir -p dist
	git archive --prefix=$(DIST_NAME)/ HEAD | tar -x -C dist
	cd dist/$(DIST_NAME) && go mod vendor && echo $(VERSION) > VERSION
	tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=ustar \
		--mtime=@$$(git log -1 --format=%ct) -C dist -c $(DIST_NAME) | gzip -9n > dist/$(DIST_NAME).tar.gz
	@rm -rf dist/$(DIST_NAME)
	@cd dist && sha256sum $(DIST_NAME).tar.gz | tee $(DIST_NAME).tar.gz.sha256

.PHONY: release-sums
release-sums: dist ## write VERSION and the sum of its tarball into the recipes for Yocto and Buildroot
	@.ci/release-sums $(VERSION) dist/$(DIST_NAME).tar.gz

# Needs Go, and dpkg-deb; the tree of a release tarball will do.
.PHONY: deb
DEB_ARCHES       ?= amd64 arm64 armhf riscv64
DEB_TOOLS_ARCHES ?= amd64 arm64
DEB_OUT          ?= dist
deb: ## write Debian packages of the daemon and of the build host's tools into dist/
	@for arch in $(DEB_ARCHES); do GO='$(GO)' packaging/debian/build '$(VERSION)' '$(DEB_OUT)' updaterd $$arch; done
	@for arch in $(DEB_TOOLS_ARCHES); do GO='$(GO)' packaging/debian/build '$(VERSION)' '$(DEB_OUT)' updater-tools $$arch; done

.PHONY: clean
clean: ## remove what was built here; the cache of assets stays
	rm -rf bin dist
