# shellcheck shell=bash
# Functions for scenarios. Each scenario runs in its own directory, $SCENARIO, and starts without leftovers of others.
set -euo pipefail
shopt -s inherit_errexit

cleanups=()
trap run_cleanups EXIT
run_cleanups() {
	local status=$? command
	set +e
	for command in ${cleanups[@]+"${cleanups[@]}"}; do
		eval "$command" || { echo "FAIL: at the end: $command" && status=1; }
	done
	exit $status
}

fail() {
	echo "FAIL: $*"
	exit 1
}

# at_end COMMAND: runs the command when the scenario ends, however it ends.
at_end() { cleanups=("$1" ${cleanups[@]+"${cleanups[@]}"}); }

not() { ! "$@"; }

# expect CONDITION…: a command that must succeed now.
expect() { "$@" >/dev/null || fail "expected: $*"; }

# slowness: prints how slow this machine is now, in percent: 100 if 25 subshells take a quarter of a second, as in TCG on
# an idle host with two cores, and 300 if they take three times as long. The guest stores it in SLOW before each scenario.
slowness() {
	local began=${EPOCHREALTIME/./} percent
	for _ in {1..25}; do (:); done
	percent=$(((${EPOCHREALTIME/./} - began) / 2500))
	echo $((percent > 100 ? percent : 100))
}
# slower: measures again, because the load of the host changes. Whether the machine has become slower.
slower() {
	local now
	now=$(slowness)
	[ "$now" -gt "$SLOW" ] && SLOW=$now
}
# slow: whether a limit that does not scale, such as one of another program, may be too short on this machine.
slow() { [ "$SLOW" -gt 300 ]; }

# scaled N [MOST]: prints N for an idle machine, and more for a slow one, but at most MOST.
scaled() {
	local n=$(($1 * SLOW / 100))
	echo $((n < ${2:-n} ? n : ${2:-n}))
}

# wait_for SECONDS CONDITION…: a command that must succeed within this number of (whole) seconds, scaled.
wait_for() {
	local limit=$1 from=${EPOCHREALTIME/./} extended=''
	shift
	until "$@" >/dev/null 2>&1; do
		if [ $((${EPOCHREALTIME/./} - from)) -ge $((limit * SLOW * 10000)) ]; then
			if [ -n "$extended" ] || ! slower; then fail "not within $limit s, at $SLOW % of the usual time: $*"; fi
			extended=1
		fi
		sleep 0.02
	done
}

# expect_soon CONDITION…: a command that must succeed now, although it has a time limit that does not scale. Only a slow
# machine may try it again.
expect_soon() {
	"$@" >/dev/null || { { slow || { slower && slow; }; } && wait_for 30 "$@"; } || fail "expected: $*"
}

# expect_below MS TOOK: a time that must be below this limit, scaled. Both are in milliseconds.
expect_below() {
	[ "$2" -lt "$(scaled "$1")" ] || { slower && [ "$2" -lt "$(scaled "$1")" ]; } ||
		fail "took $2 ms, and not less than $1 ms, at $SLOW % of the usual time"
}

is() { [ "$1" = "$2" ] || { echo "is '$1', not '$2'" && return 1; }; }

# The modems of the scenario. ------------------------------------------------------------------------------

# modem_start NAME MODEL [OPTION…]: plugs a software modem into the next port. A model with a slash is the file of a
# report.
next_port=0
declare -A port_of pid_of
modem_start() {
	local name=$1 model=$2
	shift 2
	[[ $model != */* ]] || set -- --report "$model" "$@"
	[[ $model == */* ]] || set -- "$model" "$@"
	port_of[$name]=$next_port
	next_port=$((next_port + 1))
	modem_process "$name" "$@" --port "${port_of[$name]}"
}

# pci_modem_start NAME MODEL [OPTION…]: plugs a software modem into a PCI root port of its own.
pci_modem_start() {
	[ -e /dev/pci-modem ] || { modprobe wwan && insmod /vm/pci_modem.ko; }
	modem_process "$@"
	wait_for 5 pci_function "$1"
}

modem_process() {
	local name=$1
	shift
	/vm/bin/modem run "$@" --control "$SCENARIO/$name.sock" --transcript "$SCENARIO/$name.transcript" >"$name.out" 2>&1 &
	pid_of[$name]=$!
	wait_for 5 plugged_or_gone "$name"
	saw "$name" '^plug' || fail "modem $name did not start: $(cat "$name.out")"
}
# modem_killed NAME: kills the modem's process, which unplugs the modem.
modem_killed() { kill -KILL "${pid_of[$1]}"; }
plugged_or_gone() { saw "$1" '^plug' || ! kill -0 "${pid_of[$1]}"; }

# modem NAME COMMAND…: sends a command to the modem's control socket and prints the answer.
modem() { /vm/bin/modem ask "$SCENARIO/$1.sock" "${@:2}"; }

# transcript NAME: prints `KIND TEXT` per line, without the times.
transcript() { [ ! -f "$SCENARIO/$1.transcript" ] || cut -d' ' -f2- "$SCENARIO/$1.transcript"; }
# saw NAME REGEX: whether the transcript has a matching line; `times_seen NAME REGEX` prints how many.
saw() { [ "$(times_seen "$1" "$2")" -gt 0 ]; }
times_seen() { transcript "$1" | grep -cE -- "$2" || true; }
# when_seen NAME REGEX: prints the epoch of the first matching line, in microseconds.
when_seen() { sed 's/\.//' "$SCENARIO/$1.transcript" | awk -v re="$2" '{ t = $1; $1 = ""; if (substr($0, 2) ~ re) { print t; exit } }'; }

# Patterns for transcripts: Sierra's switch, and Sierra's unlock, which may also be QMI inside MBIM.
SWITCH='^control 400b010000000000'
UNLOCK='^qmi> .* DMS Set FCC Authentication$'
export SWITCH UNLOCK

plugged() { [ "$(modem "$1" get plugged)" = true ]; }
online() { [ "$(modem "$1" get mode)" = online ]; }

# left_tidy NAME: the modem has no CID and no MBIM session.
left_tidy() {
	is "$(modem "$1" get cids)" 0 && is "$(modem "$1" get mbim-open)" false
}

# sysfs_port NAME: the modem's directory in sysfs, as `…/1-1`. Ports of vhci are numbered from 1 on its high-speed hub.
sysfs_port() {
	local bus
	bus=$(grep -lx 480 /sys/devices/platform/vhci_hcd.0/usb*/speed | head -n 1)
	bus=${bus%/speed}
	echo "$bus/${bus##*/usb}-$((port_of[$1] + 1))"
}
# attribute NAME ATTRIBUTE: an attribute of the modem in sysfs; prints nothing if it is missing.
attribute() { cat "$(sysfs_port "$1")/$2" 2>/dev/null || true; }
identity() { echo "$(attribute "$1" idVendor):$(attribute "$1" idProduct)"; }
identity_is() { [ "$(identity "$1")" = "$2" ]; }
configured() { [ -n "$(attribute "$1" bConfigurationValue)" ]; }
configuration_is() { [ "$(attribute "$1" bConfigurationValue)" = "$2" ]; }
# wdm NAME: prints the modem's /dev/cdc-wdmN.
wdm() {
	local path
	path=$(compgen -G "$(sysfs_port "$1")/*/usbmisc/cdc-wdm*" | head -n 1) || return 1
	echo "/dev/${path##*/}"
}

# pci_function NAME: the PCI modem's directory in sysfs, as `/sys/devices/pci0001:00/0001:00:1c.0/0001:08:00.0`.
pci_function() {
	local name
	name=$(modem "$1" get port) && [[ $name == *:* ]] && readlink -e "/sys/bus/pci/devices/$name"
}
# wwan_port NAME TYPE: prints the modem's WWAN port, such as /dev/wwan0mbim0 for mbim.
wwan_port() {
	local path
	path=$(compgen -G "$(pci_function "$1")/wwan/wwan*/wwan*$2[0-9]") ||
		path=$(compgen -G "$(pci_function "$1")/mhi*/wwan/wwan*/wwan*$2[0-9]") || return 1
	path=${path%%$'\n'*}
	echo "/dev/${path##*/}"
}

# What the program reported and did. ---------------------------------------------------------------------------

# journal: the program's messages since the scenario began. Complete after `settle`.
journal() {
	if [ -d /run/systemd/system ]; then
		journalctl -q -o cat -t wwan-quirks --since "@$BEGAN"
	else
		tail -n "+$((LOGGED + 1))" /run/vm/messages | sed -n 's/^.* wwan-quirks\[[0-9]*\]: //p'
	fi
}
times_said() { journal | grep -cE -- "$1" || true; }
said() { [ "$(times_said "$1")" -gt 0 ]; }

# policy TEXT…: writes the administrator's config.toml, one line per argument. On a slow machine, a text without timeouts
# gets the default ones, scaled. The guest calls this before each scenario on a slow machine.
policy() {
	if slow && [[ $* != *timeouts* ]]; then
		set -- "$@" '[timeouts]' "hook = $(scaled 2 30)" "modem-ready = $(scaled 60 600)"
	fi
	exact_policy "$@"
}
# exact_policy TEXT…: the same, with the same text on every machine.
exact_policy() {
	mkdir -p /etc/wwan-quirks
	printf '%s\n' "$@" >/etc/wwan-quirks/config.toml
}

# trigger ACTION NAME: runs `udevadm trigger` for one modem, and returns when udev is done.
trigger() {
	udevadm trigger --action="$1" --settle "$(sysfs_port "$2")"
	settle
}

# settle: waits until udev, mdev or procd has handled all events and the journal has their messages.
settle() {
	if [ -f /run/vm/seqnum ]; then
		wait_for 30 procd_is_done
	elif pidof mdev >/dev/null; then
		wait_for 30 mdev_is_done
	else
		settle_udev 30
	fi
	[ ! -d /run/systemd/system ] || journalctl --sync
}
# settle_udev SECONDS: waits until udev has handled all events, but at most for this number of seconds, scaled.
settle_udev() {
	udevadm settle --timeout="$(scaled "$1")" || { slower && udevadm settle --timeout="$(scaled "$1")"; } ||
		fail "udev is not done within $1 s, at $SLOW % of the usual time"
}
procd_is_done() { is "$(cat /run/vm/seqnum)" "$(cat /sys/kernel/uevent_seqnum)"; }
# True if mdev waits, and its netlink socket for uevents (15) has no data (Rmem).
mdev_is_done() {
	local pid
	pid=$(pidof mdev)
	grep -q skb_wait "/proc/$pid/wchan" && awk -v pid="$pid" '$2 == 15 && $3 == pid { exit $5 != 0 }' /proc/net/netlink
}

# holds PID PATH: whether a program has a device node open.
holds() { find "/proc/$1/fd" -lname "$2" | grep .; }
# hold PATH: starts a program that holds a device node, and sets `holder` to its PID. release: ends it.
hold() {
	sleep infinity <>"$1" &
	holder=$!
	at_end release
	wait_for 5 is_sleep $holder
}
is_sleep() { [ "$(cat "/proc/$1/comm")" = sleep ]; }
release() {
	[ -n "$holder" ] || return 0
	kill "$holder" || true
	wait "$holder" || true
	holder=
}

# Invariants. ----------------------------------------------------------------

# long: whether to try all cases instead of a sample (VM_LONG, see tests/vm/run).
long() { [ -e /vm/long ]; }

# watch_events: starts to measure udev's events. slowest_event prints the milliseconds of the slowest one, from the
# kernel's event to udev's, including the wait for earlier events.
watch_events() {
	udevadm monitor --kernel --udev >events &
	at_end "kill $!"
	# udevadm prints this when it listens.
	wait_for 5 grep -q '^KERNEL - ' events
}
slowest_event() {
	awk '
		match($1, /\[[0-9.]+\]/) || match($2, /\[[0-9.]+\]/) {
			text = $0; match(text, /\[[0-9.]+\]/); time = substr(text, RSTART + 1, RLENGTH - 2)
			what = substr(text, RSTART + RLENGTH)
			if (/^KERNEL/) began[what] = time
			else if (what in began) {
				if (time - began[what] > most) { most = time - began[what]; which = what }
				# The monitor may miss a line. The next event of udev then belongs to another event of the kernel.
				delete began[what]
			}
		}
		END { printf "%d\n", 1000 * most; print "slowest event:" which >"/dev/stderr" }' events
}

# still: waits until udev is idle and no run of the program is left. Units may continue. A late event of the kernel
# starts another run, which also gets time to end.
still() {
	settle
	wait_for 5 no_run_in_udev
	settle
}
# no_run: whether no run of the program is left, units included. A unit reads the policy when it starts, so a scenario
# that changes the policy of a modem waits for it.
no_run() { ! pgrep -x wwan-quirks >/dev/null; }
no_run_in_udev() {
	local run
	for run in $(pgrep -x wwan-quirks || true); do
		if grep -q systemd-udevd "/proc/$run/cgroup"; then return 1; fi
	done
}

# kernel_time: prints the time of the kernel's last message. kernel_messages TIME: prints the messages after that time.
# The kernel drops old messages, so their number says nothing.
kernel_time() { dmesg | sed -n '$s/^\[ *\([0-9.]*\)\].*/\1/p'; }
kernel_messages() { dmesg | awk -v since="$1" '{ time = $0; gsub(/^\[ *|\].*/, "", time) } time + 0 > since + 0'; }

# crashed: whether the program crashed; prints the kernel's messages about it. The guest sets print-fatal-signals. A panic
# aborts the process. Linux 6.1 names the process only in the line after that about the signal.
crashed() { kernel_messages "${KERNEL_TIME:-0}" | grep -A 1 'potentially unexpected fatal signal' | grep -F wwan-quirks; }

# served NAME: plugs the modem in again without faults. It comes online, and no CID or session remains.
served() {
	modem "$1" unplug >/dev/null
	still
	modem "$1" clear >/dev/null
	modem "$1" plug >/dev/null
	wait_for 60 online "$1"
	settle
	wait_for 10 left_tidy "$1"
}

# out_after NAME N: plugs in a modem that leaves after the Nth transfer. Waits until it left or needed fewer transfers.
out_after() {
	modem "$1" unplug
	still
	modem "$1" set transfers 0
	modem "$1" fault gone-after="$2"
	modem "$1" plug
	outs=$(times_seen "$1" '^fault gone-after=')
	wait_for 20 out_or_through "$1"
} >/dev/null
out_or_through() { [ "$(times_seen "$1" '^fault gone-after=')" -gt "$outs" ] || online "$1"; }

unload() { modprobe -r "$@"; }
