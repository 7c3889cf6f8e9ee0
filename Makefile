# One word per job; `make help` lists them. Every word gets the tools it needs by itself (see setup.sh).

CARGO ?= cargo

.NOTPARALLEL:
.PHONY: build test lint docs demo examples bench bench-mechanisms bench-against bench-cold soak fuzz asan tsan valgrind check-minimal \
        check-targets check-arm64 analyse matrix matrix-trixie matrix-sid ci clean help \
        test-core test-model test-injection test-eunit test-ct test-release test-properties test-consumers fault-tools

build:              ## compile the Erlang modules and the native library
	@./setup.sh build
	rebar3 compile

# What changes the limits of the system, or looks at what is free of it, runs alone on a machine, in whichever root.
alone := $(if $(and $(wildcard /dev/shm),$(shell command -v flock)),flock --close /dev/shm/iommap-tests-$(shell id -u).lock)

test:               ## run every test
	@./setup.sh test
	$(MAKE) --keep-going test-core test-model test-injection test-eunit test-ct test-release test-properties test-consumers

test-core:          ## cargo's tests of the core
	$(CARGO) test --locked --workspace --no-run
	$(alone) $(CARGO) test --locked --workspace --no-fail-fast

test-model:         ## the models of the lock and of a claim with more threads: millions of states
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
	rebar3 ct --compile_only
	$(alone) rebar3 ct --readable=true $(if $(SUITE),--suite=$(SUITE))

test-release:       ## EUnit, and the suites that an optimizer may break, with the library that users have
	rebar3 eunit
	$(MAKE) test-ct SUITE=$(subst $() ,$(comma),$(wildcard $(foreach suite,fault_matrix handlers upgrade,test/faults/iommap_$(suite)_SUITE.erl)))

comma := ,
test-properties:    ## PropEr: random operations against a plain file: make test-properties [RUNS=100]
	rebar3 ct --compile_only
	ERL_LIBS=_build/test/lib escript test/properties.escript _build/test/lib/iommap/test $(RUNS)

test-consumers:     ## a rebar3 and a mix project, built from scratch as users do
	test/consumers/run

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
	$(MAKE) analyse

analyse:            ## xref and dialyzer, warnings being errors
	rebar3 as lint do xref, dialyzer

docs: build         ## HTML pages of the public modules, in doc/
	rebar3 edoc > _build/edoc.log 2>&1; status=$$?; cat _build/edoc.log; exit $$status
	@! grep 'warning:' _build/edoc.log

demo: build         ## iommap at work on a real file: make demo [FILE=path]
	@ERL_LIBS=_build/default/lib escript examples/demo.escript "$(FILE)"

examples: export IOMMAP_PROFILE ?= dev
examples:           ## run the programs of examples/, with the processes that they share memory with
	@./setup.sh test
	rebar3 ct --readable=true --suite=test/iommap_examples_SUITE

bench: build        ## measure against file:pread and others; writes bench/results/
	@./setup.sh bench
	bench/run

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

asan:               ## the soak under AddressSanitizer: make asan [SECONDS=120]
	@./setup.sh sanitizers
	test/faults/asan.sh $(SECONDS)

tsan:               ## the core's threads under ThreadSanitizer: make tsan [SECONDS=30]
	@./setup.sh sanitizers
	test/faults/tsan.sh $(SECONDS)

valgrind:           ## the core's threads under valgrind: make valgrind [SECONDS=30]
	@./setup.sh sanitizers
	test/faults/valgrind.sh $(SECONDS)

check-targets:      ## type-check for other systems and processors, link for musl: make check-targets [TARGETS="..."]
	test/targets/check

check-arm64:        ## build for aarch64 across, run the tests in qemu: make check-arm64 [WORDS="cross core eunit ct 16k"]
	test/targets/arm64 $(WORDS)

matrix: matrix-trixie matrix-sid ## all of this on Debian 13 and on unstable, in roots: make matrix-sid [WORDS="test-ct"]
matrix-trixie matrix-sid: matrix-%:
	@./setup.sh matrix
	SOAK_SECONDS=$(or $(SECONDS),120) test/matrix.sh $* $(WORDS)

ci:                 ## what continuous integration runs
	.ci/run

clean:              ## remove everything that was built
	rm -rf _build doc test/faults/build
	native/build.sh clean

help:               ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1 \2/p' Makefile | \
	    while read -r word job; do printf '  %-17s %s\n' "$$word" "$$job"; done
