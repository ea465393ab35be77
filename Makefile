# ZOS. `make run` and `make test` do everything on a fresh Debian machine; `make help` tells the rest.

.DEFAULT_GOAL := help
.PHONY: help setup image run test test-all fuzz powercut bench fmt openapi clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## Install what building and testing needs (asks first, unless YES=1 or CI)
	@scripts/setup

image: setup ## Build kernels, initramfs, UKI, USB stick and PXE tree into out/x86_64
	@cargo run -q -p image-builder -- image

run: image ## Boot a node in QEMU by iPXE, show its console, run a twin's VM on it; Ctrl-C ends it
	@cargo run -q -p qemu-tests --bin run

test: setup ## Every check and test that fits CI, with what took how long
	@scripts/check test

test-all: setup ## Every check and test
	@scripts/check test-all

fuzz: setup ## Fuzz what strangers reach in PID 1 and in the VMM; some seconds each
	@scripts/fuzz

powercut: image ## Cut a recorded node's power 10,000 times with one disk, 1,000 with two; the next run goes on (POWERCUT_RUNS, _SEED, _FROM, _DISKS)
	@cargo run -q -p qemu-tests --bin powercut

bench: image ## Measure boot, memory, VMs and their peers into target/bench, and show a table
	@cargo run -q -p qemu-tests --bin bench

fmt: ## Format the sources
	@cargo fmt --all

openapi: ## Write docs/openapi.json anew from the types
	@REGENERATE=1 cargo test -q -p apid --test openapi

clean: ## Remove what was built here; the cache in ~/.cache/zos stays
	@cargo clean
	@rm -rf out
