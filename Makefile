# `make run` and `make test` need nothing but Rust, Go, Java with Maven, Node and Python.
CARGO ?= cargo
PROFILE = fast
WEIR = target/$(PROFILE)/weir

.PHONY: run build test unit e2e lint bench fuzz

run: build
	$(WEIR)

build:
	$(CARGO) build --profile $(PROFILE) -p weirmq-cli

test: lint unit

unit:
	$(CARGO) test --profile $(PROFILE) --workspace

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --profile $(PROFILE) --workspace --all-targets -- -D warnings
