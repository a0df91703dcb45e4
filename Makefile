# Builds, tests, installs and packages wwan-quirks.
#
#   make            builds the program
#   make demo       shows in a virtual machine, with timestamps, how a locked modem in install mode comes online
#   make check      clippy, unit and integration tests, packages, reproducible, fleets, minimal, fuzz, and, if rustup is
#                   installed, targets
#   make test       `make check`, then `make vm`; `lint`, `fresh`, `soak`, `bench`, `page` and `peers` are separate
#   make unit       runs unit and integration tests; as root, also those with libqmi's and libmbim's proxies
#   make lint       checks formatting and lints, and treats warnings as errors; CI runs it with Debian 13's Rust
#   make fresh      runs make targets in a clone on a fresh Debian 13, as the README describes; FRESH='demo test' names the targets
#   make targets    builds for other processors and C libraries, and runs those tests that this machine can run or emulate
#   make vm         runs the scenarios; with ARCH=arm64, a few of them on an arm64 machine; vm-mdev and
#                   vm-openwrt run those without udev on a busybox machine; vm-udevd runs a few without systemd;
#                   vm-selinux runs the one with SELinux
#                   JOBS sets how many machines run at once; JUNIT=FILE.xml writes the results of the machines with systemd as JUnit XML,
#                   and those of the others to FILE-mdev.xml, FILE-openwrt.xml, FILE-selinux.xml, FILE-udevd.xml, FILE-arm64.xml
#   make minimal    builds and runs the unit tests with the lowest dependency versions that Cargo.toml allows
#   make fleets     tests what docs/fleets.md describes, with Ansible and systemd-journal-remote
#   make fuzz       fuzzes every parser for FUZZ_SECONDS each (default: 3)
#   make soak       runs random modems, faults and reruns in the virtual machine: SOAK=SECONDS[:SEED] (default: one hour)
#   make bench      compares speed and memory use with those of other programs in the same virtual machine
#   make install    installs everything that a package contains below DESTDIR; builds nothing
#   make uninstall  removes what `make install` with the same variables installed
#   make deb        builds target/debian/wwan-quirks_*.deb; package-lint checks it with lintian and appstreamcli
#   make rpm        builds target/rpm/wwan-quirks-*.rpm on Debian; elsewhere, run packaging/rpm
#   make dist       creates target/dist/wwan-quirks-VERSION.tar.gz with the crates that it needs, and package files with its checksum
#   make pages      generates the man page, completions, metainfo and device lists from the command line and the database
#   make peers      lists devices that are in the tables of other projects, as packaged by Debian, but not in the database
#   make page       searches docs/devices.html with Chromium, and takes the screenshot in docs
#   make reproducible   builds the package twice, in two directories, and compares the bytes

# The recipes read what other programs print.
export LC_ALL = C.UTF-8

PREFIX ?= /usr
DESTDIR ?=
# Quotes its argument as one shell word.
quote = '$(subst ','\'',$1)'
# `false` installs the shipped policy with unlocking off.
FCC_AUTH ?= true
ifeq ($(findstring |$(FCC_AUTH)|,|true|false|),)
$(error FCC_AUTH must be true or false, got "$(FCC_AUTH)")
endif
CARGO ?= cargo
STRIP ?= strip
FUZZ_SECONDS ?= 3
SOAK ?= 3600
FRESH ?= demo test
# The Debian release of the virtual machine: trixie on trixie, otherwise bookworm.
SUITE ?= $(if $(findstring trixie,$(shell cat /etc/os-release)),trixie,bookworm)

# How many virtual machines run at once.
# Each machine has two processors.
JOBS ?= $(shell echo $$(( ($$(nproc) + 1) / 2 )))

# udev and systemd read /usr/lib and /usr/local/lib. For another PREFIX, either set UDEVDIR and UNITDIR to directories that they
# read, or follow what `wwan-quirks doctor` prints.
SBINDIR ?= $(PREFIX)/sbin
UDEVDIR ?= $(PREFIX)/lib/udev
UNITDIR ?= $(PREFIX)/lib/systemd/system
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
BASHDIR ?= $(DATADIR)/bash-completion/completions
ZSHDIR ?= $(DATADIR)/zsh/site-functions
FISHDIR ?= $(DATADIR)/fish/vendor_completions.d

# udev, systemd and mdev split commands at spaces.
DIRECTORIES = SBINDIR UDEVDIR UNITDIR DATADIR MANDIR BASHDIR ZSHDIR FISHDIR
$(foreach name,$(DIRECTORIES),$(if $(word 2,$($(name))),$(error $(name) must not contain a space, got "$($(name))")))
# All other characters have a special meaning in make, the shell, sed, udev or systemd.
BAD_CHARACTER := $(shell printf %s $(call quote,$(foreach name,$(DIRECTORIES),$($(name)))) | tr -d 'A-Za-z0-9/._+,:@=~ -' | cut -c1)
$(if $(BAD_CHARACTER),$(error directories may contain only letters, digits and / . _ + , : @ = ~ -, and not $(BAD_CHARACTER)))
# Some shells do not expand the `~` of `NAME=~/directory`.
$(foreach name,DESTDIR $(DIRECTORIES),$(if $(filter ~%,$(firstword $($(name)))),$(error $(name) must not begin with ~, got "$($(name))")))
# The program prints its own path without `//`, so the rules must do the same.
$(foreach name,$(DIRECTORIES),$(eval override $(name) := $(abspath $($(name)))))
DEST = $(call quote,$(DESTDIR))

METAINFO = $(DEST)$(DATADIR)/metainfo/$(shell sed -n 's/^APPSTREAM_ID="\(.*\)"/\1/p' packaging/project.env).metainfo.xml

# Where the program looks for its database and policy: relative to its own path. `/sbin` belongs to /usr.
PROGRAM_DATADIR = $(patsubst /,/usr,$(abspath $(SBINDIR)/..))/share
# Installed files contain the paths at which the program and its data are installed.
PATHS = -e 's|/usr/sbin/wwan-quirks|$(SBINDIR)/wwan-quirks|g' -e 's|/usr/share/wwan\(\\*\)-quirks|$(DATADIR)/wwan\1-quirks|g'

# Links for ModemManager's own unlock mechanism. An administrator enables one by linking to it.
UNLOCKDIR = $(DEST)$(DATADIR)/wwan-quirks/fcc-unlock.available.d

BUILT = $(or $(CARGO_TARGET_DIR),$(CARGO_BUILD_TARGET_DIR),target)
# A configuration file of Cargo may name another directory.
TARGET_DIR = --target-dir $(call quote,$(BUILT))
# CARGO_BUILD_TARGET names Cargo's directory for another processor.
BIN = $(BUILT)/$(CARGO_BUILD_TARGET:%=%/)release/wwan-quirks
PROGRAM = $(call quote,$(BIN))
USES_LIBUSB = grep -qsF libusb-1.0.so $(PROGRAM)
MODEM = $(BUILT)/$(CARGO_BUILD_TARGET:%=%/)release/modem
STAGE = target/stage
# Static programs, for the busybox machines: with musl, or with glibc if this Rust has no musl.
STATIC_CPU = $(shell rustc -vV | sed -n 's/^host: \([^-]*\).*/\1/p')
STATIC_TARGET = $(STATIC_CPU)-unknown-linux-$(if $(wildcard $(shell rustc --print sysroot)/lib/rustlib/$(STATIC_CPU)-unknown-linux-musl),musl,gnu)
STATIC = $(BUILT)/$(STATIC_TARGET)/release

# The program contains no path of the machine that built it. RUSTFLAGS separates flags by spaces, so a path that contains a
# space stays.
CARGO_HOME ?= $(HOME)/.cargo
REMAP = $(if $(word 3,$(CURDIR) $(CARGO_HOME)),,--remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(CARGO_HOME)=/cargo)
# Distributions pass their linker flags in LDFLAGS. FEATURES=vendored links in the libusb that its crate contains.
FEATURES ?=
VENDORED = $(findstring vendored,$(FEATURES))
LINK = $(LDFLAGS:%=-Clink-arg=%)

.PHONY: all build static deps testbed demo test unit lint fresh targets minimal fleets vm vm-all vm-arm64 vm-udevd vm-selinux vm-mdev vm-openwrt soak fuzz bench peers page install uninstall install-program install-etc install-udev install-systemd install-modemmanager install-pages \
	install-openwrt install-mdev install-openrc deb package-lint rpm dist packages reproducible pages rules clean check-libusb check-program

# Cargo and the virtual machines already run in parallel.
.NOTPARALLEL:

all: build

build: FLAGS = $(REMAP) $(LINK)
static: FLAGS = $(REMAP) $(LINK) -Ctarget-feature=+crt-static
# Cargo reads only the first of CARGO_ENCODED_RUSTFLAGS, RUSTFLAGS, and the `target` tables of its configuration, to which
# CARGO_TARGET_…_RUSTFLAGS belongs. It reads an empty variable, too. The flags join those that Cargo would read, except
# `build.rustflags` of a configuration file. `override`: the builder may set the variables on the command line.
ifdef CARGO_ENCODED_RUSTFLAGS
ENCODED := $(CARGO_ENCODED_RUSTFLAGS)
SEPARATOR := $(shell printf '\037')
build static: override export CARGO_ENCODED_RUSTFLAGS = $(ENCODED)$(subst $() ,,$(addprefix $(SEPARATOR),$(FLAGS)))
else ifdef RUSTFLAGS
unexport CARGO_ENCODED_RUSTFLAGS
build static: override export RUSTFLAGS += $(FLAGS)
else
unexport CARGO_ENCODED_RUSTFLAGS RUSTFLAGS
COMMA = ,
TOML = $(patsubst %,"%"$(COMMA),$(subst ",\",$(subst \,\\,$(CARGO_BUILD_RUSTFLAGS) $(FLAGS))))
CONFIG = --config $(call quote,target."cfg(all())".rustflags=[$(TOML)])
endif

build:
	@$(if $(VENDORED)$(CARGO_BUILD_TARGET),true,$(or $(PKG_CONFIG),pkg-config) --exists libusb-1.0) || { \
		echo "make: pkg-config does not find libusb-1.0: install both (on Debian pkgconf and libusb-1.0-0-dev)," \
			"or set FEATURES=vendored to link in the libusb of its crate" >&2; exit 1; }
	$(CARGO) build --release --locked $(TARGET_DIR) $(CONFIG) $(FEATURES:%=--features %)
	$(if $(VENDORED),,@$(MAKE) --no-print-directory check-libusb)

# Cargo silently links in the libusb of its crate if pkg-config does not find one for the target.
check-libusb: check-program
	@$(USES_LIBUSB) || { \
		echo "make: $(BIN) contains a libusb instead of using the system's library: pkg-config found no libusb-1.0, or only a static one." \
			"For another processor, set PKG_CONFIG_ALLOW_CROSS=1 and PKG_CONFIG_LIBDIR. Then run \`make clean\` and \`make\`." \
			"FEATURES=vendored accepts such a program" >&2; exit 1; }

check-program:
	@test -x $(PROGRAM) || { \
		echo "make: $(BIN) is missing: run \`make\` first. If Cargo builds in another directory, name the program:" \
			"\`make BIN=PATH\`, \`make install BIN=PATH\`. sudo drops CARGO_TARGET_DIR and CARGO_BUILD_TARGET" >&2; exit 1; }

deps:
	tests/deps

# What the virtual machine needs: the installed files of a package, and the software modem.
testbed: deps build
	$(CARGO) build --release --locked $(TARGET_DIR) -p modem
	rm -rf $(STAGE)
	$(MAKE) --no-print-directory install DESTDIR=$(STAGE) PREFIX=/usr
	$(STRIP) $(STAGE)/usr/sbin/wwan-quirks

# Only for the kernel's headers: musl's own headers come first.
static: export TARGET_CFLAGS ?= -idirafter /usr/include -idirafter /usr/include/$(STATIC_CPU)-linux-gnu
# The libusb of a static program needs no libudev, and must not use the one of this machine.
static: export LIBUDEV_NO_PKG_CONFIG = 1
static: deps
	@$(if $(STATIC_TARGET:%gnu=),true,echo "warning: this Rust has no musl: the static programs use glibc" >&2)
	$(CARGO) build --release --locked $(TARGET_DIR) $(CONFIG) --features vendored --target $(STATIC_TARGET)
	$(CARGO) build --release --locked $(TARGET_DIR) $(CONFIG) -p modem --target $(STATIC_TARGET)

demo: testbed
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/demo --suite $(SUITE)

check: deps unit
	$(CARGO) clippy --workspace --all-targets --locked
	@if command -v cargo-deny >/dev/null; then cargo-deny --offline check licenses bans sources; else echo "SKIPPED: cargo-deny is not installed"; fi
	$(MAKE) --no-print-directory packages reproducible fleets minimal fuzz
	@if command -v rustup >/dev/null && [ "$$(uname -m)" = x86_64 ]; then \
		$(MAKE) --no-print-directory targets; \
	else \
		echo "SKIPPED: make targets needs rustup and an x86_64 processor"; \
	fi

test: check
	$(MAKE) --no-print-directory vm

# libqmi's and libmbim's proxies serve only root.
unit: ROOT = $(filter 0,$(shell id -u))
unit:
	umask 022 && $(CARGO) test --workspace --locked
	umask 022 && $(CARGO) test --locked --test security $(if $(ROOT),--test proxies) -- --ignored
	@$(if $(ROOT),,echo "SKIPPED: the tests with libqmi's and libmbim's proxies need root")

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

fresh:
	tests/fresh $(FRESH:%='make %')

targets:
	tests/targets

# The option that writes the results of a machine to its own file.
junit = $(if $(JUNIT),--junit $(call quote,$(basename $(JUNIT))$(1)$(suffix $(JUNIT))))

vm: $(if $(filter arm64,$(ARCH)),vm-arm64,vm-all)

vm-all: testbed deb vm-mdev vm-openwrt vm-selinux vm-udevd
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/run --suite $(SUITE) --jobs $(JOBS) $(junit)

# udev without systemd.
vm-udevd: testbed
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/run --suite $(SUITE) --init udevd $(call junit,-udevd) \
		02-whole-trip 08-other-makers 24-other-switches 35-quectel 70-rolling-tty

vm-selinux: testbed
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/run --suite $(SUITE) --init selinux $(call junit,-selinux)

# Runs the arm64 package on an arm64 machine: from install mode to online, both unlocks, and a stick.
vm-arm64: export ARCH = arm64
vm-arm64: deps
	packaging/deb target/debian-arm64
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc $(CARGO) build --release --locked $(TARGET_DIR) -p modem --target aarch64-unknown-linux-gnu
	DEB=$$(echo target/debian-arm64/wwan-quirks_*.deb) MODEM=$(BUILT)/aarch64-unknown-linux-gnu/release/modem \
		tests/vm/run --suite $(SUITE) --arch arm64 $(call junit,-arm64) 02-whole-trip 08-other-makers 24-other-switches 35-quectel

vm-mdev: static
	rm -rf $(STAGE)-mdev
	$(MAKE) --no-print-directory install-program install-mdev install-openrc DESTDIR=$(STAGE)-mdev BIN=$(STATIC)/wwan-quirks
	STAGE=$(STAGE)-mdev MODEM=$(STATIC)/modem tests/vm/run --suite $(SUITE) --init mdev $(call junit,-mdev)

vm-openwrt: static
	rm -rf $(STAGE)-openwrt
	$(MAKE) --no-print-directory install-openwrt DESTDIR=$(STAGE)-openwrt BIN=$(STATIC)/wwan-quirks
	STAGE=$(STAGE)-openwrt MODEM=$(STATIC)/modem tests/vm/run --suite $(SUITE) --init procd $(call junit,-openwrt)

soak: testbed
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/run --suite $(SUITE) --soak $(SOAK)

minimal:
	tests/minimal/run

fleets: testbed
	tests/install ansible-core systemd-journal-remote jq
	tests/fleets $(STAGE)

fuzz:
	command -v c++ >/dev/null || tests/install g++
	fuzz/run $(FUZZ_SECONDS)

bench: testbed static
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/bench --suite $(SUITE)
	LIBUDEV_NO_PKG_CONFIG=1 $(CARGO) build --release --locked --features vendored --target-dir target/vendored
	VENDORED=target/vendored/$(CARGO_BUILD_TARGET:%=%/)release/wwan-quirks PROGRAM=$(PROGRAM) STATIC=$(STATIC)/wwan-quirks tests/bench

peers: build
	PROGRAM=$(PROGRAM) tests/peers

page:
	tests/page

install: install-program install-etc install-udev install-systemd install-modemmanager install-pages

# Removes the quirks of an earlier version, because they would still apply. A udev event in between finds those of this version.
install-program: check-program
ifneq ($(DATADIR),$(PROGRAM_DATADIR))
	@test ! -d $(DEST)$(PROGRAM_DATADIR)/wwan-quirks || test -L $(DEST)$(PROGRAM_DATADIR)/wwan-quirks || { \
		echo "make: $(PROGRAM_DATADIR)/wwan-quirks is a directory, but must be a link to $(DATADIR)/wwan-quirks:" \
			"remove the earlier installation first" >&2; exit 1; }
endif
	install -D -m 755 $(PROGRAM) $(DEST)$(SBINDIR)/wwan-quirks
	install -d $(DEST)$(DATADIR)/wwan-quirks/quirks.d
	install -m 644 config/quirks.d/*.toml $(DEST)$(DATADIR)/wwan-quirks/quirks.d
	for file in $(DEST)$(DATADIR)/wwan-quirks/quirks.d/*.toml; do \
		test -e config/quirks.d/"$${file##*/}" || rm -f "$$file" || exit; \
	done
	install -D -m 644 config/config.toml $(DEST)$(DATADIR)/wwan-quirks/config.toml
	install -m 644 config/compositions.toml $(DEST)$(DATADIR)/wwan-quirks/compositions.toml
	sed -i 's|^#* *fcc-auth = .*|fcc-auth = $(FCC_AUTH)|' $(DEST)$(DATADIR)/wwan-quirks/config.toml
ifneq ($(DATADIR),$(PROGRAM_DATADIR))
	install -d $(DEST)$(PROGRAM_DATADIR)
	ln -srfT $(DEST)$(DATADIR)/wwan-quirks $(DEST)$(PROGRAM_DATADIR)/wwan-quirks
endif

# For the policy and the quirks of the administrator.
install-etc:
	install -d $(DEST)/etc/wwan-quirks/config.d $(DEST)/etc/wwan-quirks/quirks.d

install-udev:
	install -D -m 644 udev-rules/85-wwan-quirks.rules $(DEST)$(UDEVDIR)/rules.d/85-wwan-quirks.rules
	sed -i $(PATHS) $(DEST)$(UDEVDIR)/rules.d/85-wwan-quirks.rules

install-systemd:
	install -D -m 644 packaging/selinux/wwan-quirks.cil $(DEST)$(DATADIR)/wwan-quirks/wwan-quirks.cil
	install -d $(DEST)$(UNITDIR)
	install -m 644 packaging/systemd/*.service $(DEST)$(UNITDIR)
	install -D -m 644 packaging/systemd/usb_modeswitch@.service.d/wwan-quirks.conf \
		$(DEST)$(UNITDIR)/usb_modeswitch@.service.d/wwan-quirks.conf
	install -d $(DEST)$(UNITDIR)/sleep.target.wants
	ln -sf ../wwan-quirks-sleep.service $(DEST)$(UNITDIR)/sleep.target.wants
	for target in suspend hibernate hybrid-sleep suspend-then-hibernate; do \
		install -d $(DEST)$(UNITDIR)/$$target.target.wants && \
		ln -sf ../wwan-quirks-resume.service $(DEST)$(UNITDIR)/$$target.target.wants || exit; \
	done
	sed -i $(PATHS) $(DEST)$(UNITDIR)/wwan-quirks*.service

install-modemmanager:
	rm -rf $(UNLOCKDIR)
	install -d $(UNLOCKDIR)
	sed -En -e '/^LABEL="wwan_quirks_(port|tty)"/,/^GOTO/ s/.*\{idVendor\}=="(.*)", .*\{idProduct\}=="(.*)", .*/\1 \2/p' \
		-e '/^LABEL="wwan_quirks_wwan_.*"/,/^GOTO/ s/.*\{vendor\}=="([^"]*)", .*\{device\}=="([^"]*)", .*/\1 \2/p' \
		udev-rules/85-wwan-quirks.rules | sed 's/0x//g' | tr '|' ' ' | while read -r vendor products; do \
		for product in $$products; do \
			ln -srf $(DEST)$(SBINDIR)/wwan-quirks $(UNLOCKDIR)/$$vendor:$$product || exit; \
		done; \
	done

install-pages:
	install -d $(DEST)$(MANDIR)/man5 $(DEST)$(MANDIR)/man8 $(DEST)$(DATADIR)/metainfo
	install -m 644 packaging/man/*.5 $(DEST)$(MANDIR)/man5
	install -m 644 packaging/man/*.8 $(DEST)$(MANDIR)/man8
	sed -i $(PATHS) $(DEST)$(MANDIR)/man[58]/wwan-quirks*
	install -D -m 644 packaging/completions/wwan-quirks.bash $(DEST)$(BASHDIR)/wwan-quirks
	install -D -m 644 packaging/completions/_wwan-quirks $(DEST)$(ZSHDIR)/_wwan-quirks
	install -D -m 644 packaging/completions/wwan-quirks.fish $(DEST)$(FISHDIR)/wwan-quirks.fish
	install -m 644 packaging/metainfo/wwan-quirks.metainfo.xml $(METAINFO)
	packaging/fill $(METAINFO)
	$(USES_LIBUSB) || [ $$? != 1 ] || sed -i 's|<project_license>MIT|& AND LGPL-2.1-or-later|' $(METAINFO)

# OpenWrt has procd instead of udev and systemd, and too little space for manual pages.
install-openwrt: install-program install-etc
	for kind in usb block usbmisc tty wwan; do \
		install -D -m 644 packaging/openwrt/wwan-quirks.hotplug $(DEST)/etc/hotplug.d/$$kind/20-wwan-quirks || exit; \
	done
	install -D -m 755 packaging/openwrt/wwan-quirks.init $(DEST)/etc/init.d/wwan-quirks
	sed -i $(PATHS) $(DEST)/etc/hotplug.d/*/20-wwan-quirks $(DEST)/etc/init.d/wwan-quirks

# Lines for the mdev.conf of systems that have busybox's mdev instead of udev.
install-mdev:
	install -D -m 644 packaging/mdev/mdev.conf $(DEST)$(DATADIR)/wwan-quirks/mdev.conf
	sed -i $(PATHS) $(DEST)$(DATADIR)/wwan-quirks/mdev.conf

# Alpine's init. docs/mdev.md says how to enable the script.
install-openrc:
	install -D -m 755 packaging/openrc/wwan-quirks $(DEST)/etc/init.d/wwan-quirks
	sed -i $(PATHS) $(DEST)/etc/init.d/wwan-quirks

# Also removes what the other `install-` targets installed. Files in /etc/wwan-quirks stay.
uninstall:
	rm -rf $(DEST)$(DATADIR)/wwan-quirks
ifneq ($(DATADIR),$(PROGRAM_DATADIR))
	test ! -L $(DEST)$(PROGRAM_DATADIR)/wwan-quirks || rm $(DEST)$(PROGRAM_DATADIR)/wwan-quirks
endif
	rm -f $(DEST)$(SBINDIR)/wwan-quirks $(DEST)$(UDEVDIR)/rules.d/85-wwan-quirks.rules
	for unit in wwan-quirks@ wwan-quirks-resume wwan-quirks-sleep; do \
		rm -f $(DEST)$(UNITDIR)/$$unit.service $(DEST)$(UNITDIR)/*.target.wants/$$unit.service || exit; \
	done
	rm -f $(DEST)$(UNITDIR)/usb_modeswitch@.service.d/wwan-quirks.conf
	rm -f $(DEST)$(MANDIR)/man5/wwan-quirks-config.5 $(DEST)$(MANDIR)/man5/wwan-quirks-quirks.5 $(DEST)$(MANDIR)/man8/wwan-quirks.8
	rm -f $(DEST)$(BASHDIR)/wwan-quirks $(DEST)$(ZSHDIR)/_wwan-quirks $(DEST)$(FISHDIR)/wwan-quirks.fish $(METAINFO)
	rm -f $(DEST)/etc/init.d/wwan-quirks $(DEST)/etc/hotplug.d/*/20-wwan-quirks

deb: deps
	packaging/deb

package-lint: deb
	tests/package-lint target/debian/*.deb

rpm: deps
	packaging/rpm

# Checks the files of each package, and that two builds have the same bytes.
packages: deps
	tests/packages

dist:
	packaging/dist

reproducible: deps
	tests/reproducible

pages:
	$(CARGO) run --quiet --locked -p pages

rules: build
	rm -rf target/rules
	$(MAKE) --no-print-directory install-program DESTDIR=target/rules PREFIX=/usr
	$(PROGRAM) --root target/rules rules > udev-rules/85-wwan-quirks.rules.new
	mv udev-rules/85-wwan-quirks.rules.new udev-rules/85-wwan-quirks.rules

clean:
	$(CARGO) clean
