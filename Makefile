# Builds, tests, installs and packages wwan-quirks.
#
#   make            the program
#   make demo       a locked modem in install mode comes online, narrated, in a virtual machine
#   make test       format, clippy, unit and integration tests, scenarios in the virtual machine
#   make bench      speed and memory beside the peers' in the same virtual machine
#   make install    what a package holds, below DESTDIR; builds nothing
#   make deb        target/debian/wwan-quirks_*.deb

PREFIX ?= /usr
DESTDIR ?=
# `false` installs the shipped policy with unlocking off.
FCC_AUTH ?= true
CARGO ?= cargo
# The Debian of the virtual machine: this one, where it is one that is known.
SUITE ?= $(if $(findstring trixie,$(shell cat /etc/os-release)),trixie,bookworm)

# How many virtual machines run at once.
JOBS ?= $(shell nproc)

# udev, systemd and the database have their places below /usr, whatever PREFIX is.
UDEVDIR ?= $(PREFIX)/lib/udev
UNITDIR ?= $(PREFIX)/lib/systemd/system
DATADIR ?= $(PREFIX)/share

BIN = target/release/wwan-quirks
MODEM = target/release/modem
STAGE = target/stage

.PHONY: all build deps testbed demo test vm bench install deb rules clean

all: build

build:
	$(CARGO) build --release --locked

deps:
	tests/deps

# What the virtual machine is given: the tree that a package holds, and the software modem.
testbed: deps build
	$(CARGO) build --release --locked -p modem
	rm -rf $(STAGE)
	$(MAKE) --no-print-directory install DESTDIR=$(STAGE) PREFIX=/usr

demo: testbed
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/demo --suite $(SUITE)

test: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) test --workspace --locked
	$(MAKE) --no-print-directory vm

vm: testbed
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/run --suite $(SUITE) --jobs $(JOBS)

bench: testbed
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/bench --suite $(SUITE)
	tests/bench

install:
	@test -x $(BIN) || { echo "make install: $(BIN) is missing; run \`make\` first" >&2; exit 1; }
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/sbin/wwan-quirks
	install -d $(DESTDIR)$(DATADIR)/wwan-quirks/quirks.d
	install -m 644 config/quirks.d/*.toml $(DESTDIR)$(DATADIR)/wwan-quirks/quirks.d
	install -D -m 644 config/config.toml $(DESTDIR)$(DATADIR)/wwan-quirks/config.toml
	sed -i 's|^#* *fcc-auth = .*|fcc-auth = $(FCC_AUTH)|' $(DESTDIR)$(DATADIR)/wwan-quirks/config.toml
	install -D -m 644 udev-rules/85-wwan-quirks.rules $(DESTDIR)$(UDEVDIR)/rules.d/85-wwan-quirks.rules
	install -d $(DESTDIR)$(UNITDIR)
	install -m 644 packaging/systemd/*.service $(DESTDIR)$(UNITDIR)
	sed -i 's|/usr/sbin/wwan-quirks|$(PREFIX)/sbin/wwan-quirks|' \
		$(DESTDIR)$(UDEVDIR)/rules.d/85-wwan-quirks.rules $(DESTDIR)$(UNITDIR)/wwan-quirks*.service

deb: deps build
	packaging/deb

rules: testbed
	$(BIN) --root $(STAGE) rules > udev-rules/85-wwan-quirks.rules.new
	mv udev-rules/85-wwan-quirks.rules.new udev-rules/85-wwan-quirks.rules

clean:
	$(CARGO) clean
