# shellcheck shell=bash
# Tests each family of modems that take AT commands in all cases. For scenarios, after lib.sh.

# The network drivers must bind before option, which takes every interface of an ID in new_id.
modprobe -r option || true
modprobe -a qmi_wwan cdc_mbim cdc_ether cdc_ncm huawei_cdc_ncm rndis_host cdc_acm usb-storage
modprobe option
# Not every kernel version knows these IDs.
for id in '05c6 90d5' '05c6 9025' '0e8d 7126' '0e8d 7127' '2c7c 0900' '2cb7 0111' '2dee 4d57' '2dee 4d58' '305a 1404'; do
	echo "$id" >/sys/bus/usb-serial/drivers/option1/new_id
done
policy 'fcc-auth = false' 'switch = false'

# drivers_are NAME DRIVERS: the modem's interfaces have exactly these drivers, such as `cdc_mbim+option`.
drivers_are() {
	is "$(for interface in "$(sysfs_port "$1")"/*:1.*; do
		basename "$(readlink "$interface/driver")"
	done | sort -u | paste -sd+)" "$2"
}
ttys() { compgen -G "$(sysfs_port "$1")/*/tty/ttyACM*" || compgen -G "$(sysfs_port "$1")/*/ttyUSB*"; }

# fails REGEX ARGUMENT…: `composition` fails, and its output matches.
fails() {
	local why=$1 text
	shift
	text=$(wwan-quirks composition "$@" 2>&1) && fail "no failure: $*"
	echo "$text"
	expect grep -E "$why" <<<"$text"
}
# does TEXT ARGUMENT…: `composition` prints this result.
does() {
	local text=$1
	shift
	wwan-quirks composition "$@" >out || true
	cat out
	expect grep -F ": composition: $text" out
}
# ready NAME ID DRIVERS: waits until the modem is back with this ID, and its drivers are bound.
ready() {
	wait_for 20 identity_is "$1" "$2"
	wait_for 20 drivers_are "$1" "$3"
	wait_for 20 ttys "$1"
	settle
}
power_cycle() {
	modem "$1" unplug >/dev/null
	modem "$1" plug >/dev/null
}

# refuses VALUE REGEX [OPTION…]: the next family must refuse this value with a matching reason. Nothing is sent.
refusals=()
refuses() { refusals+=("$(printf '%q ' "$2" "$1" "${@:3}")"); }

# family MODEL FIRST-DRIVERS VALUE FUNCTIONS ID DRIVERS RESTART NAME: changes the factory value to VALUE and back.
# RESTART: by `request`, by `setting` the value, or `never`.
family() {
	local model=$1 first_drivers=$2 value=$3 functions=$4 id=$5 drivers=$6 restart=$7 name=$8
	local port first first_id back reset=--reset asked holder tty refusal began=$SECONDS
	modem_start "$model" "$model"
	ready "$model" "$(modem "$model" get identity)" "$first_drivers"
	port=$(basename "$(sysfs_port "$model")")
	first=$(modem "$model" get composition)
	first_id=$(identity "$model")
	[ "$restart" != never ] || reset=

	# Read the composition.
	wwan-quirks composition "$port" | tee shown
	expect grep -F ": composition $first (" shown
	expect grep -E "^  family: $name.*\((sure|likely)\); seen: ." shown
	wwan-quirks composition "$port" --json >json
	expect grep -E '"seen": ".' json
	expect grep -F "\"value\": \"$first\"" json

	# Values that are refused.
	case $restart in
	setting) refuses "$value" 'restarts when its composition is set; add --reset to allow the restart' ;;
	never) refuses "$value" 'no command is known that restarts this modem' --reset ;;
	esac
	for refusal in "${refusals[@]}"; do eval "set -- $refusal" && fails "$1" "$port" "${@:2}"; done
	refusals=()
	if grep -q '=?$' <(transcript "$model"); then
		modem "$model" fault no-test-command >/dev/null
		fails 'does not answer AT.*=\? with a list' "$port" "$value" $reset
		modem "$model" clear >/dev/null
	fi

	# A port that another program holds.
	mapfile -t ttys < <(ttys "$model")
	(
		for tty in "${ttys[@]}"; do exec {fd}<>"/dev/${tty##*/}"; done
		exec sleep infinity
	) &
	holder=$!
	wait_for 5 holds $holder "/dev/${ttys[-1]##*/}"
	asked=$(times_seen "$model" '^at>')
	fails "is held by sleep \($holder\); stop that program, or .*mmcli --inhibit-device" "$port" "$value" $reset
	expect is "$(times_seen "$model" '^at>')" "$asked"
	release
	expect not saw "$model" '^(reset|composition)'
	expect is "$(modem "$model" get composition)" "$first"

	# The modem answers OK, and changes nothing.
	modem "$model" fault composition-ignored >/dev/null
	if [ "$restart" = never ]; then
		does "done: $value (" "$port" "$value"
		expect grep -F "effective after the modem's next restart" out
		power_cycle "$model"
	else
		fails "came back as $first_id with its previous composition, although it accepted $value" "$port" "$value" $reset
	fi
	modem "$model" clear >/dev/null
	ready "$model" "$first_id" "$first_drivers"
	wwan-quirks composition "$port" | tee shown
	expect grep -F ": composition $first (" shown

	# Set the value, with a restart. Then revert it with the command that was printed.
	does "done: $value (" "$port" "$value" $reset
	if [ "$restart" = never ]; then power_cycle "$model"; else expect grep -F "; the modem came back with this composition as $id" out; fi
	back=$(sed -n 's/^to revert: //p' out)
	ready "$model" "$id" "$drivers"
	wwan-quirks composition "$port" | tee shown
	expect grep -E ": composition $value \($functions" shown
	expect is "$back" "wwan-quirks composition $port $(quoted "$first")${reset:+ $reset}"
	bash -c "$back" | tee out
	expect grep -F ": composition: done: $first (" out
	if [ "$restart" = never ]; then power_cycle "$model"; else expect grep -F "; the modem came back with this composition as $first_id" out; fi
	ready "$model" "$first_id" "$first_drivers"

	# The modem loses power in between.
	if [ "$restart" = setting ]; then
		modem "$model" fault never-back >/dev/null
		wwan-quirks composition "$port" "$value" --reset >out &
		wait_for 20 not plugged "$model"
		modem "$model" clear >/dev/null
		modem "$model" plug >/dev/null
		wait $!
		expect grep -F "; the modem came back with this composition as $id" out
	else
		does "done: $value (" "$port" "$value"
		expect grep -F "effective after the modem's next restart" out
		power_cycle "$model"
	fi
	ready "$model" "$id" "$drivers"
	does "nothing to do: $value (" "$port" "$value"
	expect grep -F 'is already set' out

	# The modem comes back without an AT port. The program waits for the port while the next family is tested.
	if [ "$restart" != never ]; then
		modem "$model" fault loses-at-port >/dev/null
		fails "came back as $first_id without an AT port" "$port" "$first" --reset &
		waiting+=($!)
	fi
	families+=("$model $((SECONDS - began)) s")
}
quoted() { case $1 in *\;*) echo "'$1'" ;; *) echo "$1" ;; esac }

waiting=() families=()
# end: waits for the runs that are still active, and prints the seconds of each family.
end() {
	for pid in "${waiting[@]}"; do wait "$pid" || fail "an AT port that is lost was not reported"; done
	printf 'note: %s\n' "${families[@]}"
}
