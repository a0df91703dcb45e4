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
SUITE ?= $(shell . /etc/os-release 2>/dev/null; echo "$${VERSION_CODENAME:-bookworm}")

# udev, systemd and the database have their places below /usr, whatever PREFIX is.
UDEVDIR ?= $(PREFIX)/lib/udev
UNITDIR ?= $(PREFIX)/lib/systemd/system
DATADIR ?= $(PREFIX)/share

BIN = target/release/wwan-quirks
MODEM = target/release/modem
STAGE = target/stage

.PHONY: all build deps demo test check-format clippy unit vm bench install deb rules clean

all: build

build:
	$(CARGO) build --release --locked

deps:
	tests/deps

demo: deps build $(STAGE)
	tests/vm/demo

test: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) test --workspace --locked
	$(MAKE) --no-print-directory vm

vm: deps build $(STAGE)
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/run --suite $(SUITE)

bench: deps build $(STAGE)
	STAGE=$(STAGE) MODEM=$(MODEM) tests/vm/run --suite $(SUITE) --bench
	tests/bench

.PHONY: $(STAGE)
$(STAGE): build
	rm -rf $@
	$(MAKE) --no-print-directory install DESTDIR=$@ PREFIX=/usr

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

deb: build
	packaging/deb

rules: build $(STAGE)
	$(BIN) --root $(STAGE) rules > udev-rules/85-wwan-quirks.rules.new
	mv udev-rules/85-wwan-quirks.rules.new udev-rules/85-wwan-quirks.rules

clean:
	$(CARGO) clean
