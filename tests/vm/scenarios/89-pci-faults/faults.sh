# shellcheck shell=bash
# Functions for the scenarios of PCI modems with faults.

# The faults of each modem, one after the other, for all modems at the same time.
MBIM='indications stale garbage duplicate late=100 late=700 busy=1 fragments=64 flood=50 left-open mute-for=3000'
declare -A faults=(
	[em]=$MBIM
	[dms]=$MBIM
	[fox]=$MBIM
	[foxap]=$MBIM
	[at]='indications garbage split=5 late=100 late=700 busy=1 flood=50 mute-for=3000'
	[intel]=$MBIM
	[rpc]='indications garbage split=5 duplicate late=100 late=700 flood=50 mute-for=3000'
)
# How often each modem refuses: once per message, or once per key of the laptop and of the quirk.
declare -A refusals=([em]=1 [dms]=2 [fox]=1 [foxap]=1 [at]=5 [intel]=3 [rpc]=4)

# The radio of a modem with a challenge stays off until ModemManager switches it on.
is_served() {
	case $1 in
	at | intel | rpc) [ "$(modem "$1" get locked)" = false ] ;;
	*) online "$1" ;;
	esac && left_tidy "$1"
}

out() {
	for name; do modem "$name" unplug && modem "$name" clear; done >/dev/null
	still
	rm -rf /run/wwan-quirks
}

# together VERB [WORD…]: sends one command to all modems at the same time.
together() {
	local name sent=()
	for name in "${modems[@]}"; do
		modem "$name" "$@" >/dev/null &
		sent+=($!)
	done
	wait "${sent[@]}"
}

# put_through NAME…: tests up to four modems, because the test bed has four slots.
put_through() {
	modems=("$@")
	local name words round count=0 after
	for name; do
		read -ra words <<<"${faults[$name]}"
		[ ${#words[@]} -le $count ] || count=${#words[@]}
	done
	for ((round = 0; round < count; round++)); do
		out "$@"
		for name; do
			read -ra words <<<"${faults[$name]}"
			echo "$name with ${words[round]-no fault}"
			[ -z "${words[round]-}" ] || modem "$name" fault "${words[round]}" >/dev/null
		done
		together plug
		for name; do wait_for 40 is_served "$name"; done
	done
	# The modems leave after this number of messages, and come back.
	for after in 1 3 5; do
		echo "$* gone after $after"
		out "$@"
		together set transfers 0
		together fault gone-after=$after
		together plug
		for name; do wait_for 20 not plugged "$name"; done
		still
		together clear
		together plug
		for name; do wait_for 40 is_served "$name"; done
	done
	# The modems lock again, and a person runs `apply`.
	together relock
	wwan-quirks apply >applied || fail "apply: $(cat applied)"
	for name; do expect is_served "$name"; done
	# The modems refuse the unlock. Each message is sent once, and each key is used once.
	out "$@"
	declare -A refused
	for name; do refused[$name]=$(modem "$name" get refused); done
	together set oem-string OTHERFCCLOCK00
	together fault refuse=28
	together plug
	for name; do
		wait_for 40 refuses "$name"
		refused[$name]=$((refused[$name] + refusals[$name]))
		expect is "$(modem "$name" get refused)" "${refused[$name]}"
	done
	# The modems never answer. The unit gives up without using a key.
	out "$@"
	together fault mute
	policy '[timeouts]' 'modem-ready = 4'
	together plug
	for name; do wait_for 60 unit_gave_up "$name"; done
	wait_for 10 no_unit
	rm /etc/wwan-quirks/config.toml
	still
	for name; do
		expect is "$(modem "$name" get locked)" true
		expect is "$(modem "$name" get refused)" "${refused[$name]}"
		modem "$name" quit >/dev/null
	done
	settle
}
# The event says that the unit continues, and the unit does not.
unit_gave_up() { last_result "$1" 'not finished: no answer' && ! last_result "$1" '.*continues$'; }
no_unit() { ! systemctl list-units --plain --no-legend 'wwan-quirks@*' | grep -q ' activ'; }

# last_result NAME REGEX: the last result of the modem matches.
last_result() { journal | grep -F "$(modem "$1" get port) " | tail -n 1 | grep -qE "fcc-auth: $2"; }
refuses() {
	last_result "$1" 'failed: the modem refused (the request|every known key)' &&
		[ "$(modem "$1" get locked)" = true ] && left_tidy "$1"
}

