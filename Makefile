# `make help` lists the targets. cargo and the scripts know what is out of date; make only gives the commands names.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

#: Where images are pushed to and pulled from
IMAGE_REPO ?= ghcr.io/reboot-operator
#: Tag of the images
VERSION ?= v$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
#: Image with cargo and a C compiler that the images are built in [default: as the Dockerfiles have it]
BUILDER_IMAGE ?=
#: Container engine [default: the first of docker, podman on PATH]
ENGINE ?= $(notdir $(firstword $(shell command -v docker podman)))
#: Certificates that image builds need where the network signs TLS anew [default: none]
CA_BUNDLE ?=
#: How often `make test-all` plays every scenario
REPEAT ?= 1
#: How many worlds `make simulate` plays
SEEDS ?= 10000
#: The one world whose story `make simulate` tells instead [default: none]
SEED ?=
#: Control plane of the demo: real, memory (an imitation), or auto: real where it is at hand or can be downloaded
CLUSTER ?= auto
#: Parts that `make bench` measures, of binaries,idle,cycle,fleet,real,drain [default: all]
BENCH ?=
#: 1 leaves out the tests on real nodes, which take root [default: they run]
SKIP_REAL_NODES ?=
#: Further flags of `cargo mutants`, such as `--shard 0/8`, `--iterate` or `--file PATH` [default: none]
MUTANTS_FLAGS ?=
#: How long `make fuzz` and `make test` run each fuzz target, in seconds
FUZZ_SECONDS ?= 60
#: Further flags of the engine's build command [default: none]
BUILD_FLAGS ?=

COMPONENTS := agent controller
IMAGES := $(COMPONENTS:%=image-%)
BINARIES := $(COMPONENTS:%=bin/reboot-%)
RENDERED := target/manifests
TOOLS := $(CURDIR)/target/tools
DEV_BINARIES := $${CARGO_TARGET_DIR:-target}/debug
# A comma as such would end an argument of $(if).
, := ,
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: help all clean demo test test-all model simulate fuzz mutants bench lint control-plane nodes images push manifests
.PHONY: $(BINARIES) $(IMAGES) dev-binaries style engine dbus c++ prerequisites cargo

help: ## Print this
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile | expand -t 18
	@echo 'Variables:'
	@sed -n '/^#: /{s///;h;n;s/ .*//;G;s/\(.*\)\n\(.*\)/  \1\t\2/p}' Makefile | expand -t 18

all: $(BINARIES) ## Build bin/reboot-agent and bin/reboot-controller, small and static

clean: cargo ## Remove everything that was built here (a control plane in the cache directory stays)
	rm -rf bin
	cargo clean

# Where Kubernetes would have to be built first, the demo plays without it.
demo: dbus dev-binaries $(if $(filter real,$(NODES)),nodes) ## Watch five nodes reboot one after the other (NODES=real: real ones; KEEP=1 leaves the cluster up)
	@cluster=$(if $(filter real,$(NODES)),real,$(CLUSTER)); \
	if [ "$$cluster" = auto ]; then if tests/control-plane/control-plane.sh --at-hand; then cluster=real; else cluster=memory; fi; fi; \
	if [ "$$cluster" = real ]; then tests/control-plane/prerequisites.sh go kubectl; tests/control-plane/control-plane.sh; fi; \
	CLUSTER=$$cluster $(DEV_BINARIES)/demo

# The end-to-end tests start the two programs, which `cargo test` alone would not link.
test: c++ control-plane style dev-binaries $(if $(filter 1,$(SKIP_REAL_NODES)),,nodes) ## Run format check, lints and all tests, then the fuzz targets
	SKIP_REAL_NODES=$(SKIP_REAL_NODES) cargo test --locked --workspace
	@fuzz/run.sh $(FUZZ_SECONDS)

# The long scenarios, which take a quarter of an hour beside the others, are played in the first round only.
test-all: nodes ## Play every scenario on real nodes (REPEAT=10 times)
	@for round in $$(seq $(REPEAT)); do echo "round $$round of $(REPEAT)"; \
	SCENARIOS=$$([ $$round = 1 ] && echo long || echo all) cargo test --locked --workspace --test real; done

simulate: cargo ## Play SEEDS worlds in which everything goes wrong, or tell the story of SEED
	@cargo run --quiet --locked --release --bin simulate -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

model: cargo ## Search every state of the protocol's model (6 minutes), and find every way to break it
	@cargo bench --locked --quiet -p reboot-core --bench model-all

fuzz: c++ ## Run every parser on arbitrary input, for FUZZ_SECONDS each (the first time builds for some minutes)
	@fuzz/run.sh $(FUZZ_SECONDS)

# It works on copies of the source, which share one target directory: so only the core is built again.
mutants: cargo ## Break every decision in the core, and see that a test notices each (1 to 2 hours)
	@export PATH="$(TOOLS)/bin:$$PATH"; command -v cargo-mutants >/dev/null || \
	cargo install --locked --quiet --version 27.1.0 --root $(TOOLS) cargo-mutants
	@mkdir -p target/tmp
	@export PATH="$(TOOLS)/bin:$$PATH" TMPDIR=$(CURDIR)/target/tmp CARGO_TARGET_DIR=$(CURDIR)/target; \
	trap 'rm -rf target/tmp target/mutants/incremental target/mutants/deps/*reboot_core*' EXIT; \
	cargo mutants -p reboot-core $(MUTANTS_FLAGS)

bench: all control-plane dev-binaries ## Measure latency, memory and requests of the binaries under bin/
	@REBOOT_AGENT_BIN=bin/reboot-agent REBOOT_CONTROLLER_BIN=bin/reboot-controller $(DEV_BINARIES)/bench

# Advisories are left out: a new one would break a change that has nothing to do with it.
lint: style ## Check format, lints, licences, duplicate crates and shell scripts, as far as the tools are installed
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check licenses bans sources; \
	else echo 'not checked: licences and duplicate crates (cargo-deny is not installed)'; fi
	@if command -v shellcheck >/dev/null; then shellcheck $(wildcard .ci/run fuzz/*.sh tests/*/*.sh); \
	else echo 'not checked: shell scripts (shellcheck is not installed)'; fi

control-plane: prerequisites ## Make etcd, kube-apiserver and the like available for demo, test and bench
	@tests/control-plane/control-plane.sh

# Root file system, kubelet, kubectl for the nodes, and the programs for the images.
nodes: control-plane all ## Make what the nodes that really reboot are made of (root, Debian packages)
	@tests/control-plane/prerequisites.sh systemd-nspawn mmdebstrap ip unshare nsenter setpriv
	@tests/control-plane/control-plane.sh kubelet kubectl >/dev/null
	@tests/node/root-file-system.sh >/dev/null

images: $(IMAGES) ## Build both images

push: images manifests ## Push both images and print the command that deploys them
	@for c in $(COMPONENTS); do $(ENGINE) push $(IMAGE_REPO)/reboot-$$c:$(VERSION); done
	@echo 'kubectl apply -f $(RENDERED)/'

manifests: ## Write the manifests for IMAGE_REPO and VERSION to target/manifests
	@rm -rf $(RENDERED)
	@mkdir -p $(RENDERED)
	@for f in manifests/*.yaml; do sed 's|image: .*/\(reboot-[a-z]*\):.*|image: $(IMAGE_REPO)/\1:$(VERSION)|' "$$f" > "$(RENDERED)/$${f##*/}"; done
	@echo 'wrote $(RENDERED)/'

# What the targets above are made of.

# Named explicitly, the target keeps RUSTFLAGS away from build scripts and macros, which cannot be linked statically.
$(BINARIES): bin/%: cargo
	RUSTFLAGS='-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' cargo build --locked --profile dist --target $(HOST) -p $*
	@install -D "$${CARGO_TARGET_DIR:-target}/$(HOST)/dist/$*" $@

style: cargo
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --no-default-features --all-targets --target-dir "$${CARGO_TARGET_DIR:-target}" -- -D warnings

# Everything at once: chosen one by one, the packages would compile their dependencies anew for each choice of features.
dev-binaries: cargo
	cargo build --locked --workspace --bins

$(IMAGES): image-%: engine
	DOCKER_BUILDKIT=1 $(ENGINE) build $(BUILD_FLAGS) -f Dockerfile.$* -t $(IMAGE_REPO)/reboot-$*:$(VERSION) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
	  $(if $(BUILDER_IMAGE),--build-arg BUILDER_IMAGE=$(BUILDER_IMAGE)) $(if $(CA_BUNDLE),--secret id=ca-bundle$(,)src=$(CA_BUNDLE)) .

engine:
	@[ -n '$(ENGINE)' ] || { echo 'make: no container engine: neither docker nor podman is on PATH (ENGINE=... names another)' >&2; exit 1; }

c++: cargo
	@tests/control-plane/prerequisites.sh c++

dbus: cargo
	@tests/control-plane/prerequisites.sh cc dbus-daemon

prerequisites: cargo
	@tests/control-plane/prerequisites.sh cc go dbus-daemon kubectl

cargo:
	@command -v cargo >/dev/null || { echo 'make: cargo is not on PATH: install Rust with rustup, https://rustup.rs' >&2; exit 1; }
