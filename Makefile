# One target per job; `make help` lists them. Every target gets the tools it needs by itself (see setup.sh).

CARGO ?= cargo

.NOTPARALLEL:
.PHONY: build test lint docs demo examples bench bench-count bench-mechanisms bench-against bench-cold soak fuzz asan tsan ubsan valgrind check-minimal check-instructions \
        check-targets check-arm64 analyse durability cluster mutants cover matrix matrix-trixie matrix-sid ci clean help \
        test-core test-model test-injection test-eunit test-ct test-release test-properties test-consumers test-offline \
        fault-tools prebuilt dist release-check

build:              ## compile the Erlang modules and the native library
	@./setup.sh build
	rebar3 compile

test:               ## run every test
	@./setup.sh test
	$(MAKE) --keep-going test-core test-model test-injection test-eunit test-ct test-release test-properties test-consumers \
	    test-offline

test-core:          ## cargo's tests of the core
	$(CARGO) test --locked --workspace --no-fail-fast

test-model:         ## the lock itself, by loom, and the models of lock and claim with more threads: millions of states
	$(CARGO) test --locked --release --manifest-path test/loom/Cargo.toml --target-dir target/loom
	$(CARGO) test --locked --release -p iommap_core --test lock_model --test thread_data_model -- --ignored

test-injection:     ## failure at every system call, on four file systems
	test/injection.sh

# A library that checks itself, and is built in two seconds; IOMMAP_PROFILE=release tests what users have.
test-eunit test-ct: export IOMMAP_PROFILE ?= dev
test-release: export IOMMAP_PROFILE = release

test-eunit:         ## EUnit: one case for one promise
	rebar3 eunit

test-ct: fault-tools ## Common Test: other OS processes, concurrency, full disks, faults: make test-ct [SUITE=...]
	rm -rf _build/test/lib/iommap/test
	rebar3 ct --readable=true $(if $(SUITE),--suite=$(SUITE))

test-release:       ## EUnit, and the suites that an optimizer may break, with the library that users have
	rebar3 eunit
	$(MAKE) test-ct SUITE=$(subst $() ,$(comma),$(wildcard $(foreach suite,fault_matrix handlers upgrade,test/faults/iommap_$(suite)_SUITE.erl)))

comma := ,
test-properties: fault-tools ## PropEr: random operations against plain files and models: make test-properties [RUNS=100 [SEED=...]]
	rebar3 ct --compile_only
	ERL_LIBS=_build/test/lib escript test/properties.escript _build/test/lib/iommap/test $(or $(RUNS),100) $(SEED)

test-consumers:     ## a rebar3 and a mix project, built from scratch as users do
	test/consumers/run

test-offline: export IOMMAP_PROFILE ?= dev
test-offline: dist  ## the same two projects, built of the archive of `make dist` where there is no network
	test/consumers/offline

fault-tools:
	$(MAKE) -C test/faults all alternate_layout unknown_abi

check-minimal:      ## compile with the lowest versions that Cargo.toml allows
	@./setup.sh build
	rm -rf _build/minimal && mkdir -p _build/minimal && cp -R Cargo.toml native c_src _build/minimal
	cd _build/minimal && RUSTC_BOOTSTRAP=1 $(CARGO) update -Z direct-minimal-versions
	cd _build/minimal && export CARGO_TARGET_DIR="$(CURDIR)/target/minimal" && \
	    $(CARGO) check --locked --workspace --all-targets

lint:               ## formatting, clippy, circles of imports, xref and dialyzer, warnings being errors
	@./setup.sh build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --workspace --all-targets --features iommap_nif/alternate_layout -- -D warnings
	$(CARGO) clippy --locked --workspace --all-targets --features iommap_nif/unknown_abi -- -D warnings
	native/check_imports native/iommap_core native/iommap_nif
	bench/mechanisms check
	$(CARGO) fmt --manifest-path test/faults/stress/Cargo.toml --check
	$(CARGO) clippy --locked --manifest-path test/faults/stress/Cargo.toml --all-targets --target-dir target/faults/stress -- -D warnings
	$(CARGO) fmt --manifest-path test/loom/Cargo.toml --check
	$(CARGO) clippy --locked --manifest-path test/loom/Cargo.toml --all-targets --target-dir target/loom -- -D warnings
	$(MAKE) analyse

analyse:            ## xref and dialyzer, warnings being errors
	rebar3 as lint do xref, dialyzer

docs: build         ## a site of the guides and of the public modules' pages, in doc/
	@./setup.sh docs
	rm -rf doc
	rebar3 edoc > _build/edoc.log 2>&1; status=$$?; cat _build/edoc.log; exit $$status
	@! grep 'warning:' _build/edoc.log
	@$$(for python in python3 /usr/bin/python3; do $$python -c 'import markdown_it' 2>/dev/null && echo $$python && break; done) release/site

# The name goes through the environment, so that neither make nor the shell reads it.
unexport FILE
demo: export DEMO_FILE = $(value FILE)
demo: build         ## iommap at work on a real file: make demo [FILE=path]
	@ERL_LIBS=_build/default/lib escript examples/demo.escript "$$DEMO_FILE"

examples: export IOMMAP_PROFILE ?= dev
examples:           ## run the programs of examples/, with the processes that they share memory with
	@./setup.sh test
	rebar3 ct --readable=true --suite=test/iommap_examples_SUITE

bench: build        ## measure against file:pread and others; writes bench/results/
	@./setup.sh bench
	bench/run

bench-count: build  ## the instructions of a call, and how they grow; no clock is read
	@./setup.sh bench
	bench/count

check-instructions: build ## whether few instructions lie between the cache misses of two reads; no clock is read
	@./setup.sh test
	bench/count check

bench-mechanisms: build ## what each mechanism for speed saves, on and off: ten minutes
	@./setup.sh bench
	bench/mechanisms

bench-against: build ## the library of these sources and that of another commit in turn: make bench-against REV=...
	@./setup.sh bench
	bench/against $(REV)

bench-cold: build   ## what others wait for while one reads a cold file, on a local and on a slow disk
	@./setup.sh bench
	bench/cold

soak:               ## everything at once for half an hour: make soak [SECONDS=1800]
	@./setup.sh build
	test/faults/soak.sh $(SECONDS)

fuzz:               ## random calls against a model while files change: make fuzz [SECONDS=600] [SEED=...] [FS=...]
	@./setup.sh test
	test/faults/fuzz.sh $(or $(SECONDS),600) $(or $(SEED),random) $(or $(FS),all)

durability:         ## a machine and a VM that end in the middle of writes, growth and syncs: make durability [ROUNDS=200]
	@./setup.sh test
	ROUNDS=$(or $(ROUNDS),200) $(MAKE) -C test/faults check SUITE=iommap_durability_SUITE

cluster: export IOMMAP_PROFILE ?= release
cluster:            ## the examples of clusters on three nodes that are killed, paused, cut off: make cluster [ROUNDS=20] [SIZE=1024]
	@./setup.sh cluster
	ERL_LIBS="$(CURDIR)/_build/cluster/lib" ROUNDS=$(or $(ROUNDS),20) SIZE=$(or $(SIZE),1024) \
	    rebar3 ct --readable=true --suite=test/cluster/iommap_cluster_SUITE

mutants:            ## small faults in a copy, one at a time: which test notices? make mutants [ONLY="range lock-"] [BY=properties]
	@./setup.sh test
	test/mutants/run $(ONLY)

cover:              ## which lines of Erlang, Rust and C does no test reach? (make cover REPORT=report: as measured last)
	@./setup.sh cover
	test/cover/run $(REPORT)

asan:               ## the soak under AddressSanitizer: make asan [SECONDS=120]
	@./setup.sh sanitizers
	test/faults/asan.sh $(SECONDS)

tsan:               ## the core's threads under ThreadSanitizer: make tsan [SECONDS=30]
	@./setup.sh sanitizers
	test/faults/tsan.sh $(SECONDS)

ubsan:              ## cargo's tests of the core, with the C under UndefinedBehaviorSanitizer
	@./setup.sh sanitizers
	test/faults/ubsan.sh

valgrind:           ## the core's threads under valgrind: make valgrind [SECONDS=30]
	@./setup.sh sanitizers
	test/faults/valgrind.sh $(SECONDS)

check-targets:      ## type-check for other systems and processors, link for musl: make check-targets [TARGETS="..."]
	@./setup.sh roots
	test/targets/check

check-arm64:        ## build for aarch64 across, run the tests in qemu: make check-arm64 [PARTS="cross core eunit ct 16k"]
	@./setup.sh roots
	test/targets/arm64 $(PARTS)

dist:               ## a source archive that builds without network, in _build/dist
	@./setup.sh build
	release/dist

prebuilt:           ## libraries for those without Rust, in _build/prebuilt, and their sums: make prebuilt [TARGETS="..."]
	@./setup.sh roots
	release/prebuilt

release-check:      ## do versions, changelog, docs, metadata, sums and tag agree?
	@release/check

matrix: matrix-trixie matrix-sid ## all of this on Debian 13 and on unstable, in roots: make matrix-sid [ONLY="test-ct"]
matrix-trixie matrix-sid: matrix-%:
	@./setup.sh roots
	SOAK_SECONDS=$(or $(SECONDS),120) test/matrix.sh $* $(ONLY)

ci:                 ## what continuous integration runs
	.ci/run

clean:              ## remove everything that was built
	rm -rf _build doc test/faults/build
	rm -f rebar.lock
	native/build.sh clean

help:               ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1 \2/p' Makefile | \
	    while read -r target job; do printf '  %-17s %s\n' "$$target" "$$job"; done
