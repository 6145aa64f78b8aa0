# `make run` and `make test` need nothing but Rust, Go, Java with Maven, Node and Python.
CARGO ?= cargo
PROFILE = fast
WEIR = target/$(PROFILE)/weir
SECONDS_EACH ?= 10
SEEDS ?= 2000..=20000

CRASH = e2e/crash/run.py
# Counts are of one program, so each commit has files of its own.
OF_COMMIT = -$(shell git describe --always --dirty).json
CRASH_RESULTS = --results e2e/crash/results/counts$(OF_COMMIT)

.PHONY: run build image test all-tests lint unit client store-format clients apache-store apache-store-long crash-short crash sim kube kube-if-built charts e2e e2e-smoke failover failover-short crds bench fuzz

run: build ## Builds `weir` and starts NameServer and Broker; data in ./weir-data
	$(WEIR)

build:
	$(CARGO) build --profile $(PROFILE) -p weirmq-cli

test: ## Everything that has to pass; says at its end what could not be checked here
	e2e/count-skips $(MAKE) all-tests

all-tests: lint unit image charts crash-short failover-short client store-format clients apache-store kube-if-built e2e-smoke

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --profile $(PROFILE) --workspace --all-targets -- -D warnings

unit: build
	$(CARGO) test --profile $(PROFILE) --workspace --exclude weirmq-client
	$(CARGO) test --profile $(PROFILE) -p weirmq-client --lib --test unruly_servers

image: build ## The image of all roles, of this build, in target/; a release has 37.5 MB of the 40 that it may have
	images/build --weir $(WEIR) --max-mb 60

client: build ## Our own Rust client against a fresh broker
	e2e/with_server.py $(WEIR) $(CARGO) test --profile $(PROFILE) -p weirmq-client --test against_a_server

store-format: build ## A reader made from docs/store-format.md alone, against a real directory
	e2e/store-format/check.py $(WEIR)

clients: build ## The official clients of five languages and mqadmin against a fresh broker
	e2e/clients/run.py --weir $(WEIR)

apache-store: build ## Apache's broker 4.9.4 and 5.5.0 and WeirMQ take turns with one store directory
	e2e/apache-store/run.py --weir $(WEIR)

apache-store-long: build ## The same after kill -9, with many and with expired segments; about 10 minutes
	e2e/apache-store/run.py --weir $(WEIR) --long

crash-short: build ## A few power cuts and kills of the real broker; skipped, with the reason, where there are no loop devices
	$(CRASH) cuts --weir $(WEIR) --count 15 --rounds 5
	$(CRASH) control --weir $(WEIR) --count 3
	$(CRASH) kills --weir $(WEIR) --count 16 --rounds 4
	e2e/crash/faults.py --weir $(WEIR)

crash: build ## Simulated crashes of ten draws, 1,000 power cuts, 100 as control, 1,000 kills, and all turns with Apache's broker; goes on where it was stopped
	WEIRMQ_TIMES=10 $(CARGO) test --profile $(PROFILE) -p weirmq-store --lib --test crash -- crash power_cut --nocapture
	$(CRASH) control --weir $(WEIR) --count 100 $(CRASH_RESULTS)
	$(CRASH) cuts --weir $(WEIR) --count 1000 $(CRASH_RESULTS)
	$(CRASH) kills --weir $(WEIR) --count 1000 $(CRASH_RESULTS)
	e2e/crash/faults.py --weir $(WEIR) $(CRASH_RESULTS)
	e2e/apache-store/run.py --weir $(WEIR) --long

STAND_IN = target/$(PROFILE)/kube-stand-in
FAILOVER = e2e/failover/run.py --weir $(WEIR) --stand-in $(STAND_IN)

$(STAND_IN): build
	$(CARGO) build --profile $(PROFILE) -p weirmq-kube-stand-in

failover-short: build $(STAND_IN) ## A few faults of a master under load; skipped, with the reason, without root
	$(FAILOVER) --count 1
	$(FAILOVER) --count 1 --faults kill,switch --clients java-4.9.8,java-5.5.0 --route-poll-ms 1000
	$(FAILOVER) --count 1 --faults kill,switch --clients java-4.9.8,java-5.5.0 --route-poll-ms 1000 --ordered
	e2e/failover/pair.py --weir $(WEIR) --clients java-5.5.0
	e2e/failover/emptied.py --weir $(WEIR) --stand-in $(STAND_IN)

failover: build $(STAND_IN) ## 100 faults of each kind and some with official clients, some four hours; goes on where it was stopped
	$(FAILOVER) --count 100 --results e2e/failover/results/campaign$(OF_COMMIT)
	$(FAILOVER) --count 100 --flush async --faults power,kill --results e2e/failover/results/replicated$(OF_COMMIT)
	$(FAILOVER) --count 10 --faults apart,thin,alone --results e2e/failover/results/apart$(OF_COMMIT)
	e2e/failover/test_promises.py
	$(FAILOVER) --count 20 --replication async --faults kill,double,freeze,cut,mute,api,apart,thin,alone,term,switch,stall,power --results e2e/failover/results/async$(OF_COMMIT)
	$(FAILOVER) --count 20 --replication async --flush async --faults kill,double,power,all,roll,blackout --results e2e/failover/results/relaxed$(OF_COMMIT)
	$(FAILOVER) --count 10 --faults again,all,roll --results e2e/failover/results/ends$(OF_COMMIT)
	$(FAILOVER) --count 10 --ack quorum --faults kill,double,freeze,cut,term,power,all,roll --results e2e/failover/results/quorum$(OF_COMMIT)
	for ms in 3000 1500; do \
		$(FAILOVER) --count 10 --lease-ms $$ms --faults kill,freeze,cut --results e2e/failover/results/lease-$$ms$(OF_COMMIT) || exit; done
	for min in 1 2; do \
		$(FAILOVER) --count 5 --replicas 2 --min-in-sync $$min --faults kill,freeze,cut,term,switch,all,power \
			--results e2e/failover/results/two-replicas-min-$$min$(OF_COMMIT) || exit; done
	$(FAILOVER) --count 20 --control --results e2e/failover/results/control$(OF_COMMIT)
	$(FAILOVER) --count 10 --faults kill,freeze,cut,mute,power --clients java-4.9.8,java-5.5.0,go --results e2e/failover/results/official$(OF_COMMIT)
	$(FAILOVER) --count 10 --faults kill,switch,roll --clients java-4.9.8,java-5.5.0 --route-poll-ms 1000 --ordered --results e2e/failover/results/ordered$(OF_COMMIT)
	e2e/failover/pair.py --weir $(WEIR)
	e2e/failover/mqadmin.py --weir $(WEIR) --stand-in $(STAND_IN)

sim: ## Simulated elections and failovers of the seeds in SEEDS (first..=last)
	SEEDS=$(SEEDS) $(CARGO) test --profile $(PROFILE) -p weirmq-authority --lib -- --ignored --nocapture given

# As in `unit`, so that nothing is built again.
KUBE_TESTS = $(CARGO) test --profile $(PROFILE) --workspace --exclude weirmq-client --test kubernetes -- \
	--include-ignored any_server answers rights plugin
ADMISSION = e2e/admission/run.py --weir $(WEIR)

kube: build ## What concerns Kubernetes against its real API server, which is built the first time: about 6 minutes
	e2e/kube/run.py -- $(KUBE_TESTS)
	e2e/kube/run.py -- $(ADMISSION)

kube-if-built: build ## The same, or a line that says that it was skipped
	e2e/kube/run.py --if-built -- $(KUBE_TESTS)
	e2e/kube/run.py --if-built -- $(ADMISSION)

E2E = target/$(PROFILE)/e2e-cluster run --weir $(WEIR) $(if $(BEFORE),--before $(BEFORE))

$(firstword $(E2E)): build
	$(CARGO) build --profile $(PROFILE) -p weirmq-e2e-cluster

# What is tested between two versions takes a `weir` of an earlier commit: BEFORE=PROGRAM. `e2e/failover/run.py --before` does, too.
e2e: $(firstword $(E2E)) ## Everything on a real Kubernetes of three nodes, which is built the first time: about 8 minutes
	$(E2E)

e2e-smoke: $(firstword $(E2E)) ## A few of these tests; skipped, with the reason, without root or where Kubernetes is not built
	$(E2E) --smoke --if-built

charts: build ## The Helm charts: lint, profiles, schemas, alerts; skipped, with the reason, where helm is not built
	charts/check --weir $(WEIR)

crds: build ## Writes crds/ and what the charts take from it again, after a change of a kind
	$(WEIR) crds > crds/weirmq.yaml
	charts/generate

bench: ## WeirMQ beside its peers; about an hour, results in bench/results and docs/benchmarks.md
	bench/run --page

fuzz: ## Each fuzz target for SECONDS_EACH seconds
	fuzz/run $(SECONDS_EACH)
