# The commands of this repository. `make` alone lists them.
#
# Everything is built with the one dev profile of Cargo.toml, so that tests, demo and bench share
# what was compiled.

CARGO  = scripts/with-cargo cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)
TIER0  = $(TARGET)/debug/tier0
# KEEP=1 leaves the demo's stack up.
KEEP_FLAG = $(if $(filter-out 0,$(KEEP)),--keep)
# Every test that starts servers wants both cores of a small machine to itself.
TEST_THREADS = $(or $(RUST_TEST_THREADS),2)
# Tests that cannot run on this machine note themselves there.
SKIPPED = $(abspath $(TARGET))/skipped
TEST = TIER0_SKIPPED=$(SKIPPED) $(CARGO) test --locked
# The one build of the tests has the places at which a test can end a role, so that nothing is compiled
# twice.
TESTS = $(TEST) --workspace --features tier0/failpoints
WHOLE_STACK = env $(TESTS) --test whole_stack
FAILPOINTS = tier0-failpoint feature "enabled"
ALL_BUT_WHOLE_STACK = $(TESTS) --lib --bins --test '[!mw]*'
SAY_SKIPPED = if [ -s $(SKIPPED) ]; then echo "$$(wc -l < $(SKIPPED)) SKIPPED:"; cat $(SKIPPED); fi

.PHONY: help setup setup-tests setup-bench build demo demo-specification test test-long proof mutants bench soak lint clean-lab

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile

setup: ## Install missing Debian packages (as root) and check the Rust toolchain
	@scripts/setup

setup-tests:
	@scripts/setup tests

setup-bench:
	@scripts/setup bench

build: setup ## Build the binary
	@$(CARGO) build --locked --bin tier0

demo: build ## Move a whole data tier there and back under traffic; KEEP=1 leaves it up
	@$(TIER0) lab demo $(KEEP_FLAG)

demo-specification: build ## The same traffic moved the specification's way, and what that loses
	@$(TIER0) lab demo --specification $(KEEP_FLAG)

# Every build of the tests is of the whole workspace, so that cargo chooses the same features of the
# libraries each time and compiles them once. Whole stacks are tested one at a time, and mutants are
# built anew; all other programs of tests have names that begin with another letter.
#
# What only computes, the lint too, runs beside them and takes what they leave of the processor.
test: setup-tests ## All tests, against real servers
	@rm -f $(SKIPPED)
	@tree=$$($(CARGO) tree --locked --workspace -e features -i tier0-failpoint) || exit 1; \
	case $$tree in \
		*'$(FAILPOINTS)'*) echo "a build that is not for tests has failpoints" >&2; exit 1;; \
		*'tier0-failpoint v'*) ;; \
		*) echo "cargo does not say whether a build has failpoints" >&2; exit 1;; esac
	@RUST_TEST_THREADS=$(TEST_THREADS) $(ALL_BUT_WHOLE_STACK) -- --skip bad_days__ --skip model__
	@$(WHOLE_STACK) --no-run
	@RUST_TEST_THREADS=1 scripts/beside 'make lint proof' $(WHOLE_STACK)
	@$(SAY_SKIPPED)

proof: mutants ## The simulator, the model and the mutants
	@$(TEST) --workspace --test random --test exhaustive -- bad_days__ model__

test-long: export TIER0_LONG = 1
test-long: test ## The same, and what takes many minutes

mutants: setup ## Take out each safety guard in turn: the simulator must notice
	@$(CARGO) test --locked --workspace --features tier0-core/mutants --test mutants

bench: build setup-bench ## Measure switches, failovers, outages, the backend and routes; BENCH=--quick or --large
	@$(TIER0) lab bench $(BENCH)
	@$(TIER0) lab bench --telemetry $(filter --quick,$(BENCH))
	@$(TIER0) lab bench --routes $(filter --quick,$(BENCH))

# Interrupt it at any time: the same command goes on. SOAK="--seed 7 --from-round 3" plays rounds again.
# The links are cut only where root can make network namespaces.
soak: build ## Draw faults on a real lab until its writer has moved N times in all; N=3000
	@$(TIER0) lab soak --moves $(or $(N),3000) $(if $(filter 0,$(shell id -u)),--netns) \
		--results bench/results/soak.jsonl $(SOAK)

lint: setup ## Formatting and clippy
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets --features tier0/failpoints --quiet -- --deny warnings

clean-lab: build ## Take down what a lab left behind
	@$(TIER0) lab down
