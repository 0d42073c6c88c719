# SPDX-License-Identifier: Apache-2.0
#
# A thin front: Meson builds, tests/run tests.
#
#	make            build the library and the command, into build/
#	make check      install what the tests need, build, pass every test
#	make check-openzfs  the ZFS tests on a kernel with OpenZFS, in a virtual machine; builds
#	                OpenZFS the first time; most of an hour
#	make soak       what takes hours: many kills, minutes of load; SOAK='load' limits it
#	make asan       the same under the address and undefined behaviour sanitizers
#	make fuzz       let each fuzz target look for new input, FUZZ_SECONDS each (60), with clang
#	make demo       install what it needs, build, tell the story with real figures
#	make bench      measure against the floors and the peers
#	make install    into PREFIX (/usr/local), below DESTDIR
#
# TESTS='unit conformance' limits check and asan to these suites or tests.

PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
ASAN_BUILD ?= build-asan
FUZZ_BUILD ?= build-fuzz
FUZZ_SECONDS ?= 60
TESTS ?=
SOAK ?=

NATIVE = --native-file tools/native-dev.ini

.PHONY: all check check-openzfs soak asan fuzz bench demo install clean

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	meson setup $(BUILD) --prefix $(PREFIX)

$(BUILD)-dev/build.ninja:
	meson setup $(BUILD)-dev $(NATIVE)

$(ASAN_BUILD)/build.ninja:
	meson setup $(ASAN_BUILD) -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false

# Warnings are errors here only: another compiler's new ones never keep anybody from
# building, and a sanitizer makes the compiler see some that are none. Hence a directory
# of its own. (Options of the native file come back whenever Meson sets up again.)
check:
	tools/deps test
	@$(MAKE) --no-print-directory $(BUILD)-dev/build.ninja
	ninja -C $(BUILD)-dev
	tests/run $(BUILD)-dev $(TESTS)

check-openzfs: export COPPICE_OPENZFS = all
check-openzfs:
	tools/deps test
	tests/tools/openzfs/build
	@$(MAKE) --no-print-directory $(BUILD)-dev/build.ninja
	ninja -C $(BUILD)-dev
	tests/run $(BUILD)-dev openzfs

soak:
	tools/deps test
	@$(MAKE) --no-print-directory $(BUILD)-dev/build.ninja
	ninja -C $(BUILD)-dev
	tests/soak $(BUILD)-dev $(SOAK)

asan: export ASAN_OPTIONS = detect_leaks=1:abort_on_error=0
asan: export UBSAN_OPTIONS = halt_on_error=1:print_stacktrace=1
asan:
	tools/deps test
	@$(MAKE) --no-print-directory $(ASAN_BUILD)/build.ninja
	ninja -C $(ASAN_BUILD)
	tests/run $(ASAN_BUILD) $(TESTS)

# Of a target only: FUZZ='tar names'. What it found is kept by tests/fuzz/run --keep.
fuzz:
	tools/deps fuzz
	@[ -e $(FUZZ_BUILD)/build.ninja ] || CC=clang-14 meson setup $(FUZZ_BUILD) -Dfuzz=true \
		-Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
	ninja -C $(FUZZ_BUILD) fuzzers
	tests/fuzz/run $(FUZZ_BUILD) $(FUZZ_SECONDS) $(FUZZ)

bench:
	tools/deps test
	@$(MAKE) --no-print-directory all
	@missed=0; \
	tests/bench/run $(BUILD) || missed=1; \
	COPPICE_LIBEXECDIR=$$PWD/$(BUILD)/src/image COPPICE_BUILD=$$PWD/$(BUILD) \
	tests/tools/with-uml -t 3600 -M dm-thin-pool,dm-snapshot -d 8192 \
		tests/tools/on-lvm /dev/ubda tests/bench/lvm $(BUILD)/src/cli/coppice || missed=1; \
	[ ! -e $(BUILD)/tests/bench/ceph-floor ] || \
		tests/tools/with-ceph -m tests/bench/ceph $(BUILD) || missed=1; \
	exit $$missed

demo:
	tools/deps demo
	@$(MAKE) --no-print-directory all
	tools/demo

# The prefix is part of what is built, so it is set again only when it is another.
install: all
	@[ "$$(meson introspect --buildoptions $(BUILD) | \
		sed -n 's/.*"name": "prefix", "value": "\([^"]*\)".*/\1/p')" = "$(PREFIX)" ] || \
		meson configure $(BUILD) --prefix $(PREFIX)
	meson install -C $(BUILD) $(if $(DESTDIR),--destdir "$(abspath $(DESTDIR))")

clean:
	rm -rf $(BUILD) $(BUILD)-dev $(ASAN_BUILD) $(FUZZ_BUILD)
