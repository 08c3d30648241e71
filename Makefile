# Shorthand for the CMake build (CMakePresets.json). Everything works from a fresh clone on Debian 12: missing packages are
# installed first. JOBS sets the number of parallel compilations, PRESET the configuration, ARGS the program's arguments.

JOBS ?= 2
PRESET ?= release
PREFIX ?= /usr/local
ARGS ?=
BENCH_ARGS ?= --benchmark_repetitions=5 --benchmark_report_aggregates_only=true

# A build without tests needs fewer packages; a tree that is already configured stays as it is.
define configure_program
	@test -f build/build.ninja || cmake --preset $(PRESET) -DLATHE_BUILD_TESTS=OFF -DLATHE_BUILD_EXAMPLES=OFF \
	  --log-level=WARNING >&2
	@cmake --build build -j $(JOBS) --target lathe_cli liblathe >&2
endef

.PHONY: help build run test bench install format clean packages packages-test packages-check
.NOTPARALLEL:

help:
	@echo 'make build    build/lathe, the program'
	@echo 'make run      build it and start it with the default model; ARGS="-p TEXT" passes arguments'
	@echo 'make test     build everything and run all tests'
	@echo 'make bench    build and run the benchmarks'
	@echo 'make install  install under PREFIX (default /usr/local; DESTDIR is honoured)'
	@echo 'make format   format the sources with clang-format'
	@echo 'make clean    remove all build folders'

build: packages
	$(configure_program)

# Building leaves standard input and output to the program.
run: packages
	$(configure_program)
	@build/lathe run $(ARGS)

test: packages-test
	@cmake --preset $(PRESET) -DLATHE_BUILD_TESTS=ON -DLATHE_BUILD_EXAMPLES=ON --log-level=WARNING
	@cmake --build build -j $(JOBS)
	@ctest --test-dir build --output-on-failure --no-tests=error -j $(JOBS)

bench: packages-test
	@cmake --preset $(PRESET) -DLATHE_BUILD_BENCH=ON --log-level=WARNING
	@cmake --build build -j $(JOBS) --target lathe_cli bench/all
	@for name in kernels panels products constrain; do program="build/bench/$${name}_bench"; \
	  echo "$$program"; "$$program" --benchmark_out="$$program.json" $(BENCH_ARGS) || exit 1; \
	done
	@for name in stream train; do program="build/bench/$${name}_bench"; echo "$$program"; "$$program" || exit 1; done
	@build/lathe bench -m models/storyteller

install: build
	@cmake --install build --prefix $(PREFIX) >&2

format: packages-check
	@git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cpp' '*.c' | xargs -0 -r clang-format-16 -i

clean:
	@rm -rf build build-debug build-asan build-tsan build-tidy build-fuzz

packages:
	@tools/install_packages.sh build </dev/null >&2

packages-test:
	@tools/install_packages.sh build test </dev/null >&2

packages-check:
	@tools/install_packages.sh check </dev/null >&2
