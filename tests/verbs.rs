//! Tests the whole program on roots of its own: its output, its exit status, and what it leaves untouched.

mod fake;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fake::{Root, configuration, install_mode, interface, mc7710};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use wwan_quirks::bus::Port;
use wwan_quirks::host::deadline::Deadline;
use wwan_quirks::host::root;
use wwan_quirks::host::state::{Holder, PortState, Task};

const PATH: &str = "/devices/pci0000:00/usb1/1-1";

/// A busy machine needs longer than an event has by default.
const PATIENT: &str = "[timeouts]\nhook = 30\n";

fn device_event(devpath: &str) -> [(&str, &str); 4] {
    [("ACTION", "add"), ("DEVPATH", devpath), ("SUBSYSTEM", "usb"), ("DEVTYPE", "usb_device")]
}

#[test]
fn the_preferred_function_is_found_in_the_descriptors() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    let value = format!("{device}/bConfigurationValue");
    root.policy(PATIENT);
    // The default is MBIM, if the modem has it.
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    assert_eq!(root.read(&value).trim(), "2");
    root.policy(&format!("prefer = \"qmi\"\n{PATIENT}"));
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    assert_eq!(root.read(&value).trim(), "1");
    root.policy(&format!("prefer = \"keep\"\n{PATIENT}"));
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    assert_eq!(root.read(&value).trim(), "1");
}

/// Like the calls by udev and by ModemManager, these name no other root: they see the `/sys` of this machine.
#[test]
fn udev_and_modem_manager_have_their_own_entry_points() {
    let ended = |mut command: Command, environment: &[(&str, &str)]| {
        let output = command.env_clear().envs(environment.iter().copied()).output().unwrap();
        assert_eq!(output.stdout, b"", "{output:?}");
        output.status.code()
    };
    let hook = |environment: &[_]| {
        let mut command = fake::program();
        command.arg("hook");
        ended(command, environment)
    };
    let gone = "/devices/pci0000:00/usb254/254-1";
    assert_eq!(hook(&device_event(gone)), Some(0));
    assert_eq!(hook(&[&[("ACTION", "remove")], &device_event(gone)[1..]].concat()), Some(0));

    let root = Root::new();
    let link = root.0.join("1199:9079");
    symlink(env!("CARGO_BIN_EXE_wwan-quirks"), &link).unwrap();
    let mut command = fake::command(&link);
    command.args(["/org/freedesktop/ModemManager1/Modem/0", "wwan254mbim0"]);
    // The command line would say that its usage is wrong.
    assert_eq!(ended(command, &[]), Some(1));
}

/// The guard against loops counts a modem that returns within seconds of a verified configuration. It then crashed.
#[test]
fn a_verified_configuration_is_recorded_for_the_guard() {
    let root = Root::new();
    root.plug("1-1", "1199:68a2", &mc7710());
    root.policy("[timeouts]\nhook = 30\n");
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    let record: serde_json::Value = serde_json::from_str(&root.read("run/wwan-quirks/lock/1-1")).unwrap();
    let until = record["acted"]["configuration"]["until"].as_f64().unwrap();
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let now: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    assert!(until - now <= 10.1, "{until} {now}");
}

/// A refusal restores the earlier configuration, and so creates new ports. If the modem then needs a unit for the unlock,
/// the unit does not start again.
#[test]
fn a_unit_does_not_repeat_a_refused_configuration() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    let value = format!("{device}/bConfigurationValue");
    root.policy("[timeouts]\nhook = 30\nmodem-ready = 2\n");
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    assert_eq!(root.read(&value).trim(), "2");
    let state = root.read("run/wwan-quirks/state/1-1");
    assert!(state.contains(r#""outcome":"done""#), "{state}");
    // Without a configuration, the modem has no port, and must get one.
    for (run, before, after) in [("unit", "1\n", "1"), ("unit", "\n", "2"), ("unit", "1\n", "1"), ("event", "1\n", "2")]
    {
        root.write("run/wwan-quirks/state/1-1", state.replace(r#""outcome":"done""#, r#""outcome":"failed""#));
        root.write(&value, before);
        match run {
            "unit" => root.run(&["apply", "--unit", "1-1"]),
            _ => root.hook(&device_event(PATH)),
        };
        assert_eq!(root.read(&value).trim(), after, "{run} {before:?}");
    }
}

/// Its port has already had its event, which left the unlock to the unit.
#[test]
fn a_unit_that_does_not_repeat_a_configuration_unlocks_the_modem() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.control_port("1-1", "1.8", "qmi_wwan", "cdc-wdm0");
    root.write("/dev/cdc-wdm0", "no port");
    fs::create_dir(root.0.join("proc")).unwrap();
    root.write(
        "/etc/wwan-quirks/quirks.d/own.toml",
        "schema = 1\n[[device]]\nid = \"1199:68a2\"\nname = \"X\"\n\
         steps = [{ configuration = \"preferred\" }, { fcc-auth = \"sierra\" }]\n",
    );
    root.policy("[timeouts]\nhook = 30\nmodem-ready = 2\n");
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    let state = root.read("run/wwan-quirks/state/1-1");
    root.write("run/wwan-quirks/state/1-1", state.replace(r#""outcome":"done""#, r#""outcome":"failed""#));
    root.write(&format!("{device}/bConfigurationValue"), "1\n");
    let ended = root.run(&["apply", "--unit", "1-1"]);
    assert!(ended.code == 1 && ended.stdout.contains("/dev/cdc-wdm0 is not the character device"), "{ended:?}");
    assert!(!ended.stdout.contains("configuration"), "{ended:?}");
    // The same if it sets the configuration: the event of the new port may have given up waiting for the lock.
    root.write("run/wwan-quirks/state/1-1", "");
    let ended = root.run(&["apply", "--unit", "1-1"]);
    assert!(ended.code == 1 && ended.stdout.contains("/dev/cdc-wdm0 is not the character device"), "{ended:?}");
    assert!(ended.stdout.contains("configuration: done"), "{ended:?}");
}

/// A hardened shell of root may be the first to create the directory.
#[test]
fn all_users_can_read_the_results_of_a_run_with_another_umask() {
    let root = Root::new();
    root.plug("1-1", "1199:68a2", &mc7710());
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077 && exec \"$@\"", "sh"]).arg(fake::program().get_program());
    command.args(fake::program().get_args()).arg("--root").arg(&root.0).args(["apply", "1-1"]);
    assert!(command.status().unwrap().success());
    let mode = |path: &str| fs::metadata(root.0.join("run/wwan-quirks").join(path)).unwrap().mode() & 0o777;
    assert_eq!([mode(""), mode("state"), mode("state/1-1")], [0o755, 0o755, 0o644]);
    assert_eq!([mode("lock"), mode("lock/1-1")], [0o700, 0o600]);
}

#[test]
fn a_unit_waits_for_a_run_with_the_same_task() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.policy("[timeouts]\nmodem-ready = 1\n");
    let enumeration = fs::metadata(root.0.join(&device[1..])).unwrap().ino();
    let holder = Holder { enumeration, task: Task::All };
    let (port, deadline) = (Port::new("1-1").unwrap(), Deadline::after(Duration::from_secs(60)));
    let _lock = PortState::lock(&root::Root::new(&root.0), &port, &holder, deadline).unwrap();
    let begun = Instant::now();
    let ended = root.run(&["apply", "--unit", "1-1"]);
    assert!(ended.code == 1 && ended.stdout.contains("busy: another run"), "{ended:?}");
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[test]
fn an_administrators_entry_for_one_modem_comes_first() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.policy(&format!(
        "prefer = \"keep\"\n{PATIENT}[[device]]\nmatch = {{ serial = \"LF53920000010\", port = \"1-1\" }}\nprefer = \"mbim\"\n",
    ));
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "2");
    let explained = root.run(&["explain", "1-1"]).stdout;
    assert!(explained.contains("prefer = mbim  (/etc/wwan-quirks/config.toml:6, [[device]])"), "{explained}");
    assert!(!explained.contains("other "), "{explained}");
    root.policy("[[device]]\nmatch = { serial = \"another\" }\nprefer = \"qmi\"\n");
    let explained = root.run(&["explain", "1-1"]).stdout;
    assert!(explained.contains("prefer = mbim  (/usr/share/wwan-quirks/config.toml:8)"), "{explained}");
    let other = "  other   [[device]] (/etc/wwan-quirks/config.toml:2), for serial \"another\"\n  \
                 device  serial \"LF53920000010\"\n";
    assert!(explained.ends_with(other), "{explained}");
    // The policy of a fleet.
    let table = |serial: usize| format!("[[device]]\nmatch = {{ serial = \"{serial}\" }}\nprefer = \"qmi\"\n");
    for (count, expected) in [(3, None), (4, Some("… and 1 more [[device]]")), (9, Some("… and 6 more [[device]]"))]
    {
        root.policy(&(1..=count).map(table).collect::<String>());
        let explained = root.run(&["explain", "1-1"]).stdout;
        let others: Vec<&str> = explained.lines().filter_map(|line| line.strip_prefix("  other   ")).collect();
        assert_eq!(others.iter().filter(|other| other.starts_with("[[device]] (")).count(), 3, "{explained}");
        assert_eq!(others.get(3).copied(), expected, "{explained}");
        let json: serde_json::Value = serde_json::from_str(&root.run(&["explain", "1-1", "--json"]).stdout).unwrap();
        assert_eq!(json["devices"][0]["others"].as_array().unwrap().len(), count);
    }
}

#[test]
fn the_em7355_keeps_its_configuration_regardless_of_the_global_preference() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:901f", &mc7710());
    root.policy("prefer = \"mbim\"\n");
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "1");
    assert!(root.run(&["explain", "1-1"]).stdout.contains("left alone"));
}

#[test]
fn a_dry_run_prints_the_plan_and_touches_nothing() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.plug("1-2", "1199:0fff", &install_mode());
    let ended = root.run(&["apply", "--dry-run"]);
    assert_eq!(ended.code, 0);
    assert_eq!(
        ended.stdout,
        "1-1 1199:68a2 Sierra Wireless MC7710\n  configuration: write 2 to bConfigurationValue instead of 1\n\
         1-2 1199:0fff Sierra Wireless, TRU-Install mode\n  switch: sierra: control 40 0b 0001 0000, no data\n"
    );
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "1");
    assert!(!root.0.join("run/wwan-quirks").exists());
}

#[test]
fn an_invalid_environment_is_wrong_usage() {
    let root = Root::new();
    let ended = root.hook(&[]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("ACTION is not set"), "{}", ended.stderr);
    for devpath in ["/devices/../etc", "devices/x/1-1", "/class/usb/1-1", "/devices/a//1-1", "/devices/pci0000:00"] {
        let ended = root.hook(&device_event(devpath));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{devpath}: {}", ended.stderr);
        assert!(ended.stderr.contains("DEVPATH"), "{}", ended.stderr);
    }
}

#[test]
fn a_devpath_through_a_link_is_refused() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    std::os::unix::fs::symlink("usb1", root.0.join("sys/devices/pci0000:00/usb9")).unwrap();
    let ended = root.hook(&device_event("/devices/pci0000:00/usb9/1-1"));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "1");
}

#[test]
fn unrelated_events_are_ignored_without_a_message() {
    let root = Root::new();
    root.plug("1-1", "1199:68a2", &mc7710());
    for (name, value) in
        [("ACTION", "change"), ("ACTION", "remove"), ("SUBSYSTEM", "net"), ("DEVTYPE", "usb_interface")]
    {
        let mut event = device_event(PATH).to_vec();
        event.iter_mut().filter(|(key, _)| *key == name).for_each(|pair| pair.1 = value);
        let ended = root.hook(&event);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""), "{name}={value}");
    }
    // The device left before the hook read it.
    let ended = root.hook(&device_event("/devices/pci0000:00/usb1/1-7"));
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[test]
fn a_node_of_another_device_is_refused() {
    let root = Root::new();
    root.plug("1-1", "1199:0fff", &install_mode());
    root.write("/dev/bus/usb/001/005", "not a device");
    let ended = root.hook(&device_event(PATH));
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("that sysfs names"), "{}", ended.stderr);
}

/// Without udev, a device that is authorized later only has events of its interfaces.
#[test]
fn a_new_interface_serves_a_device_that_was_blocked() {
    let root = Root::new();
    root.policy(PATIENT);
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    let interface = format!("{PATH}/1-1:1.0");
    let mut event = device_event(&interface);
    event[3].1 = "usb_interface";
    let configuration = || root.read(&format!("{device}/bConfigurationValue"));
    root.write(&format!("{device}/authorized"), "0\n");
    assert_eq!(root.hook(&event).stdout, "");
    assert!(root.hook(&device_event(PATH)).stdout.contains("WWAN_QUIRKS=not-authorized"));
    root.write(&format!("{device}/authorized"), "1\n");
    assert!(root.hook(&event).stdout.contains("WWAN_QUIRKS=done"));
    assert_eq!(configuration(), "2\n");
    // The other interfaces of the device start no second run.
    root.write(&format!("{device}/bConfigurationValue"), "1\n");
    assert_eq!((root.hook(&event).stdout.as_str(), configuration().as_str()), ("", "1\n"));
}

#[test]
fn a_starved_event_sends_no_switch_message_and_the_unit_sends_it() {
    let root = Root::new();
    root.plug("1-1", "1199:0fff", &install_mode());
    root.write("/run/systemd/system/unit", "");
    root.policy("[timeouts]\nhook = 0.1\n");
    let ended = root.hook(&device_event(PATH));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("WWAN_QUIRKS=unfinished"), "{}", ended.stdout);
    assert!(ended.stderr.contains("too little time left; wwan-quirks@1-1.service continues"), "{}", ended.stderr);
    // The unit does not take the message for sent.
    let ended = root.run(&["apply", "--unit", "1-1"]);
    assert!(ended.code == 1 && ended.stderr.contains("/dev/bus/usb/001/005"), "{ended:?}");
}

#[test]
fn a_missing_node_does_not_mean_that_the_device_left() {
    let root = Root::new();
    root.plug("1-1", "1199:0fff", &install_mode());
    root.plug("1-2", "1199:9071", &mc7710());
    root.control_port("1-2", "1.12", "cdc_mbim", "cdc-wdm0");
    let port = [
        ("ACTION", "add"),
        ("DEVPATH", "/devices/pci0000:00/usb1/1-2/1-2:1.12/usbmisc/cdc-wdm0"),
        ("SUBSYSTEM", "usbmisc"),
    ];
    for (event, step) in [(&device_event(PATH)[..], "switch"), (&port[..], "fcc-auth")] {
        let ended = root.hook(event);
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        let failed = format!("{step}: failed: {}", root.0.join("dev").display());
        assert!(ended.stderr.contains(&failed), "{}", ended.stderr);
    }
}

#[test]
fn a_modem_is_found_among_more_devices_than_a_process_may_open() {
    let root = Root::new();
    for port in 1..=80 {
        root.plug(&format!("1-{port}"), "1d6b:0002", &install_mode());
    }
    root.plug("9-1", "1199:68a2", &mc7710());
    for arguments in [&["status"][..], &["apply", "--dry-run"], &["report", "1199:68a2"]] {
        let ended = root.run(arguments);
        assert!(ended.stdout.contains("9-1"), "{arguments:?}: {ended:?}");
    }
    // All of them can also have the same ID.
    for port in 1..=80 {
        root.plug(&format!("2-{port}"), "1199:9071", &mc7710());
    }
    for verb in ["status", "explain"] {
        let ended = root.run(&[verb, "1199:9071"]);
        assert!((1..=80).all(|port| ended.stdout.contains(&format!("2-{port}"))), "{ended:?}");
    }
}

#[test]
fn malformed_descriptors_are_reported_and_nothing_is_written() {
    let root = Root::new();
    let mut descriptors = mc7710();
    descriptors.truncate(60);
    let device = root.plug("1-1", "1199:68a2", &descriptors);
    let ended = root.hook(&device_event(PATH));
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("malformed"), "{}", ended.stderr);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "1");
}

#[test]
fn strings_of_a_device_are_data() {
    let root = Root::new();
    root.policy(PATIENT);
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.write(&format!("{device}/product"), b"\x1b[2J\xff\xfe\n\n");
    root.write(
        "/etc/wwan-quirks/quirks.d/own.toml",
        "schema = 1\n[[device]]\nid = \"1199:68a2\"\nname = \"a\\u001Bb\"\nproduct = \"[2J\"\nsteps = [{ configuration = 2 }]\n",
    );
    let ended = root.hook(&device_event(PATH));
    assert_eq!(ended.code, 0);
    assert!(ended.stderr.contains("a\\u{1b}b") && !ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "2");
}

#[test]
fn a_broken_file_is_reported_with_its_location_and_its_devices_are_left_alone() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.write(
        "/etc/wwan-quirks/quirks.d/own.toml",
        "schema = 1\n[[device]]\nid = \"1199:68a2\"\nnam = \"x\"\nsteps = []\n",
    );
    let ended = root.run(&["check"]);
    assert_eq!(ended.code, 3);
    let place = "/etc/wwan-quirks/quirks.d/own.toml:4:1: unknown field `nam`";
    assert!(ended.stdout.starts_with(place), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("4 | nam = \"x\"\n  | ^^^\n"), "{}", ended.stdout);
    let ended = root.hook(&device_event(PATH));
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains(place), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("; no action: fix the database or policy first\n"), "{}", ended.stderr);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "1");
    let ended = root.run(&["apply", "--dry-run", "1-1"]);
    assert!(ended.stdout.contains("no action: fix the database or policy first"), "{}", ended.stdout);
    // Several modems have the error in common.
    root.plug("1-2", "1199:68a2", &mc7710());
    for arguments in [&["status"][..], &["explain", "1199:68a2"], &["apply", "--dry-run"], &["apply"]] {
        let ended = root.run(arguments);
        assert_eq!(ended.stderr.matches("own.toml:4:1").count(), 1, "{arguments:?}: {ended:?}");
        assert_eq!(ended.code, 3, "{arguments:?}");
    }
    let ended = root.run(&["report", "1-1"]);
    assert!(ended.code == 3 && ended.stdout.contains("error = /etc/wwan-quirks/quirks.d/own.toml:4:1"), "{ended:?}");
    // The file does not concern other devices.
    assert_eq!(root.run(&["explain", "1199:9071"]).code, 0);
}

/// An error outside of any entry may concern every device of the machine.
#[test]
fn a_broken_file_is_reported_once_and_only_known_modems_are() {
    let root = Root::new();
    root.plug("1-1", "046d:c31c", &install_mode());
    root.plug("1-2", "1d6b:0002", &install_mode());
    root.pci("0000:08:00.0", "10ec:8168 17aa:5082", "");
    root.write("etc/wwan-quirks/quirks.d/own.toml", "schema = 1\nid = \"1199:68a2\"\nname = \"x\"\n");
    let place = "own.toml:2:1: ";
    let ended = root.run(&["apply"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, "no known modem is plugged in\n"), "{ended:?}");
    assert!(ended.stderr.matches(place).count() == 1 && !ended.stderr.contains("no action"), "{ended:?}");
    let ended = root.run(&["apply", "--unit"]);
    assert!(ended.code == 1 && ended.stderr.matches(place).count() == 1, "{ended:?}");
    root.plug("1-3", "1199:68a2", &mc7710());
    let ended = root.run(&["apply", "--unit"]);
    assert!(ended.code == 1 && ended.stderr.contains("1-3 1199:68a2: "), "{ended:?}");
    let ended = root.run(&["apply"]);
    let no_action: Vec<_> = ended.stderr.lines().filter(|line| line.contains("no action")).collect();
    assert!(matches!(no_action.as_slice(), [line] if line.contains("1-3 1199:68a2")), "{ended:?}");
    assert_eq!((ended.code, ended.stderr.matches(place).count()), (3, 1), "{ended:?}");
    // A named device may be meant by the file.
    let ended = root.run(&["apply", "1-1"]);
    assert!(ended.code == 3 && ended.stderr.contains("1-1 046d:c31c: no action"), "{ended:?}");
}

/// JSON is UTF-8, and file names need not be.
#[test]
fn file_names_that_are_not_text_can_be_reported() {
    use std::os::unix::ffi::OsStrExt;
    let name = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
    let root = Root::new();
    root.plug("1-1", "1199:68a2", &mc7710());
    let folder = root.0.join("etc/wwan-quirks");
    fs::create_dir_all(folder.join("config.d")).unwrap();
    fs::write(folder.join("config.d").join(name(b"\xff.toml")), "prefer = \"qmi\"\n").unwrap();
    let entry = "schema = 1\n[[device]]\nid = \"1199:68a2\"\nname = \"Own\"\nsteps = []\n";
    fs::write(folder.join("quirks.d").join(name(b"\xfe.toml")), entry).unwrap();
    for verb in [&["list"][..], &["explain", "1-1"], &["status"], &["check"], &["apply", "1-1"]] {
        let ended = root.run(&[verb, &["--json"]].concat());
        assert_eq!(ended.code, 0, "{verb:?} {ended:?}");
    }
    fs::write(folder.join("quirks.d").join(name(b"\xfe.toml")), "x = 1\n").unwrap();
    for verb in [&["explain", "1-1"][..], &["status"], &["check"], &["apply", "1-1"]] {
        let ended = root.run(&[verb, &["--json"]].concat());
        assert_eq!(ended.code, 3, "{verb:?} {ended:?}");
        assert!(serde_json::from_str::<serde_json::Value>(&ended.stdout).is_ok(), "{verb:?}");
    }
}

#[test]
fn the_shipped_files_are_valid_and_match_the_rules() {
    let root = Root::new();
    let ended = root.run(&["check"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "no errors\n"), "{}", ended.stderr);
    let rules =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/udev-rules/85-wwan-quirks.rules")).unwrap();
    assert_eq!(root.run(&["rules"]).stdout, rules, "run `make rules`");
}

#[test]
fn status_shows_the_other_modems_if_one_cannot_be_read() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.plug("1-2", "1199:68a2", &mc7710());
    fs::remove_file(root.0.join(format!("{}/bConfigurationValue", &device[1..]))).unwrap();
    let ended = root.run(&["status"]);
    assert!(ended.code == 1 && ended.stderr.contains("1-1/bConfigurationValue"), "{ended:?}");
    assert!(ended.stdout.contains("1-2"), "{ended:?}");
}

#[test]
fn a_wrong_root_is_an_error() {
    let root = Root::new();
    for verb in ["check", "rules", "status"] {
        let ended = fake::program().arg("--root").arg(root.0.join("nowhere")).arg(verb).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{verb}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("not a directory"), "{verb}: {ended:?}");
    }
}

#[test]
fn a_missing_or_empty_database_is_an_error() {
    let root = Root::new();
    root.plug("1-1", "1199:9079", &mc7710());
    let shipped = root.0.join("usr/share/wwan-quirks/quirks.d");
    let (missing, empty) =
        ("the database is missing: there is no such directory", "the database is empty: no file here");
    for cause in [missing, empty] {
        fs::remove_dir_all(&shipped).unwrap();
        if cause == empty {
            fs::create_dir(&shipped).unwrap();
        }
        for arguments in [
            &["check"][..],
            &["list"],
            &["rules"],
            &["export", "ids"],
            &["export", "json"],
            &["explain", "1199:9079"],
            &["status"],
            &["status", "1-1"],
            &["apply"],
            &["apply", "1-1"],
            &["apply", "--dry-run"],
            &["report"],
        ] {
            let ended = root.run(arguments);
            let said = [ended.stdout.as_str(), &ended.stderr].concat();
            assert_eq!(ended.code, 3, "{arguments:?}: {said}");
            assert!(said.contains(&format!("/usr/share/wwan-quirks/quirks.d: {cause}")), "{arguments:?}: {said}");
        }
        // The journal.
        let unit = root.run(&["apply", "--unit"]);
        let line = unit.stderr.lines().find(|line| line.contains(cause)).unwrap_or_default();
        assert!(unit.code == 1 && line.ends_with("; reinstall the package"), "{unit:?}");
        fs::create_dir_all(&shipped).unwrap();
    }
    // The package is complete.
    let quirk = "schema = 1\n[[device]]\nid = \"1199:9079\"\nname = \"A\"\nsteps = []\n";
    root.write("/usr/share/wwan-quirks/quirks.d/1199-x.toml", quirk);
    root.write("/etc/wwan-quirks/quirks.d/1199-x.toml", "");
    for verb in ["check", "doctor"] {
        let said = root.run(&[verb]).stdout;
        assert!(
            said.contains(" masked") && said.contains("remove the masks in /etc/wwan-quirks/quirks.d and /run/"),
            "{said}"
        );
        assert!(!said.contains("reinstall the package; "), "{said}");
    }
    fs::remove_file(root.0.join("etc/wwan-quirks/quirks.d/1199-x.toml")).unwrap();
    fs::remove_file(root.0.join("usr/share/wwan-quirks/quirks.d/1199-x.toml")).unwrap();
    // An administrator's entry is a database, too.
    root.write(
        "/etc/wwan-quirks/quirks.d/own.toml",
        "schema = 1\n[[device]]\nid = \"1199:9079\"\nname = \"A\"\nsteps = []\n",
    );
    for arguments in [&["check"][..], &["list"], &["rules"], &["export", "ids"], &["explain", "1199:9079"]] {
        assert_eq!(root.run(arguments).code, 0, "{arguments:?}");
    }
}

#[test]
fn layers_override_and_mask() {
    let root = Root::new();
    root.write(
        "/run/wwan-quirks/quirks.d/1199-sierra.toml",
        "schema = 1\n[[device]]\nid = \"1199:9071\"\nname = \"R\"\nsteps = []\n",
    );
    let explained = root.run(&["explain", "1199:0fff"]).stdout;
    let hidden = "no quirk applies\n  hidden  Sierra Wireless, TRU-Install mode (/usr/share/wwan-quirks/quirks.d/1199-sierra.toml:";
    assert!(explained.contains(hidden), "{explained}");
    assert!(explained.ends_with("): replaced by /run/wwan-quirks/quirks.d/1199-sierra.toml\n"), "{explained}");
    assert!(root.run(&["explain", "1199:9071"]).stdout.contains("1199:9071 (not plugged in): R"));
    std::os::unix::fs::symlink("/dev/null", root.0.join("etc/wwan-quirks/quirks.d/1199-sierra.toml")).unwrap();
    let explained = root.run(&["explain", "1199:9071"]).stdout;
    assert!(explained.contains("no quirk applies\n"), "{explained}");
    for name in ["R (/run/wwan-quirks/quirks.d/1199-sierra.toml:2)", "1199-sierra.toml:"] {
        let hidden = explained.lines().find(|line| line.starts_with("  hidden  ") && line.contains(name));
        assert!(hidden.unwrap().ends_with(": masked by /etc/wwan-quirks/quirks.d/1199-sierra.toml"), "{explained}");
    }
    root.write("/etc/real.toml", "schema = 1\n[[device]]\nid = \"1199:9071\"\nname = \"L\"\nsteps = []\n");
    std::os::unix::fs::symlink("/etc/real.toml", root.0.join("etc/wwan-quirks/quirks.d/zz.toml")).unwrap();
    assert!(root.run(&["explain", "1199:9071"]).stdout.contains("(not plugged in): L"));
}

#[test]
fn a_unit_reports_a_device_that_left_before_it_started() {
    let root = Root::new();
    let ended = root.run(&["apply", "--unit", "1-1"]);
    assert_eq!(ended.code, 0);
    assert!(ended.stderr.contains("1-1: the device disconnected before its unit started"), "{}", ended.stderr);
    assert_ne!(root.run(&["apply", "1-1"]).code, 0, "without --unit, a missing device is an error");
}

#[test]
fn a_modem_is_served_without_state() {
    let root = Root::new();
    root.policy(PATIENT);
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.write("/run/wwan-quirks/state", "in the way");
    root.write("/run/systemd/system/unit", "");
    // The kernel does not count how long the modem has been connected. A process that can wait continues.
    let ended = root.hook(&device_event(PATH));
    assert!(ended.code == 0 && ended.stdout.contains("WWAN_QUIRKS=unfinished"), "{ended:?}");
    root.write(&format!("{device}/power/connected_duration"), "6000\n");
    assert_eq!(root.hook(&device_event(PATH)).code, 0);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "2");
}

#[test]
fn a_modem_that_is_unlocked_on_a_tty_is_asked_only_there() {
    let root = Root::new();
    root.plug("1-1", "33f8:01a8", &mc7710());
    root.control_port("1-1", "1.0", "cdc_mbim", "cdc-wdm0");
    root.tty("1-1", "1.2", "ttyUSB0");
    let plan = || root.run(&["apply", "--dry-run", "1-1"]).stdout;
    assert!(plan().contains("not possible: interface 3 has no tty"), "{}", plan());
    // The request for this modem is not carried out.
    for (arguments, code, words) in
        [(&["apply"][..], 0, "suppressed: interface 3"), (&["apply", "1-1"], 1, "failed: interface 3")]
    {
        let ended = root.run(arguments);
        assert!(ended.code == code && ended.stdout.contains(words), "{ended:?}");
    }
    root.tty("1-1", "1.3", "ttyUSB1");
    assert!(
        plan().ends_with("gtfcclock over AT commands on /dev/ttyUSB1, if the radio is in low power\n"),
        "{}",
        plan()
    );

    let event = |name: &str, interface: &str| {
        let path = format!("{PATH}/1-1:{interface}/{name}/tty/{name}");
        root.hook(&[("ACTION", "add"), ("DEVPATH", &path), ("SUBSYSTEM", "tty")])
    };
    // The other ports are not reported, and not opened.
    let ended = event("ttyUSB0", "1.2");
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    root.write("/dev/ttyUSB1", "no tty");
    let ended = event("ttyUSB1", "1.3");
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("/dev/ttyUSB1"), "{}", ended.stderr);
}

#[test]
fn only_a_named_modem_is_reconfigured_while_it_is_in_use() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.write(&format!("{device}/1-1:1.0/bInterfaceNumber"), "00\n");
    root.write(&format!("{device}/1-1:1.0/net/wwan0/flags"), "0x1003\n");
    let reason = "in use: the network interface wwan0 is up; `wwan-quirks apply DEVICE` sets configuration 2";
    for arguments in [&["apply", "--dry-run"][..], &["apply"]] {
        let ended = root.run(arguments);
        assert!(ended.code == 0 && ended.stdout.contains(reason), "{ended:?}");
        assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "1");
    }
    assert!(root.run(&["apply", "--dry-run", "1-1"]).stdout.contains("write 2 to bConfigurationValue"));
    assert_eq!(root.run(&["apply", "1-1"]).code, 0);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "2");
}

#[test]
fn a_request_that_the_policy_suppresses_is_not_carried_out() {
    let root = Root::new();
    root.plug("1-1", "1199:0fff", &install_mode());
    root.policy("switch = false\n");
    for (arguments, code) in [(&["apply", "1-1"][..], 1), (&["apply"], 0), (&["apply", "--dry-run", "1-1"], 0)] {
        let ended = root.run(arguments);
        assert!(ended.code == code && ended.stdout.contains("switch: suppressed: `switch = false`"), "{ended:?}");
    }
}

/// A connection of pppd uses only a tty.
#[test]
fn a_modem_whose_tty_is_in_use_is_not_reconfigured() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.tty("1-1", "1.3", "ttyUSB1");
    // Only the number and the name of the node count.
    root.write(&format!("{device}/1-1:1.3/ttyUSB1/tty/ttyUSB1/dev"), "1:3\n");
    symlink("/dev/null", root.0.join("ttyUSB1")).unwrap();
    root.write("/proc/812/comm", "pppd\n");
    fs::create_dir(root.0.join("proc/812/fd")).unwrap();
    symlink(root.0.join("ttyUSB1"), root.0.join("proc/812/fd/3")).unwrap();
    let requested = [&device_event(PATH)[..], &[("SYNTH_UUID", "0")]].concat();
    for configuration in ["1", "2"] {
        let ended = root.hook(&requested);
        let is_suppressed = ended.stderr.contains("suppressed: the modem is in use: pppd (812) holds /dev/ttyUSB1");
        assert!(ended.code == 0 && is_suppressed == (configuration == "1"), "{ended:?}");
        assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), configuration);
        fs::remove_dir_all(root.0.join("proc/812/fd")).unwrap();
        fs::create_dir(root.0.join("proc/812/fd")).unwrap();
    }
}

/// Since Linux 5.14, a cdc-wdm port of a USB modem has a second node.
#[test]
fn a_modem_whose_wwan_port_is_in_use_is_not_reconfigured() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.write(&format!("{device}/1-1:1.8/bInterfaceNumber"), "08\n");
    root.write(&format!("{device}/1-1:1.8/wwan/wwan0/wwan0qmi0/type"), "QMI\n");
    // Only the number of the node counts.
    root.write(&format!("{device}/1-1:1.8/wwan/wwan0/wwan0qmi0/dev"), "1:3\n");
    symlink("/dev/null", root.0.join("wwan0qmi0")).unwrap();
    root.write("/proc/812/comm", "qmicli\n");
    fs::create_dir(root.0.join("proc/812/fd")).unwrap();
    let reason = "the modem is in use: qmicli (812) holds /dev/wwan0qmi0";
    for is_held in [false, true] {
        let ended = root.run(&["apply", "--dry-run"]);
        assert!(ended.code == 0 && ended.stdout.contains(reason) == is_held, "{ended:?}");
        let _ = symlink(root.0.join("wwan0qmi0"), root.0.join("proc/812/fd/3"));
    }
}

/// A desktop may have mounted the card in a stick that stayed in install mode.
#[test]
fn a_device_whose_drive_may_lose_data_is_switched_only_by_name() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:0fff", &install_mode());
    let disk = format!("{device}/1-1:1.0/host6/target6:0:0/6:0:0:1/block/sda");
    root.write(&format!("{disk}/dev"), "8:0\n");
    root.write(&format!("{disk}/sda1/dev"), "8:1\n");
    let mount =
        |mode: &str| root.write("/proc/self/mountinfo", format!("22 1 8:1 / /mnt {mode} - vfat /dev/sda1 {mode}\n"));
    let dry_run = |arguments: &[&str]| root.run(&[&["apply", "--dry-run"][..], arguments].concat()).stdout;
    let is_in_use = |reason: &str| dry_run(&[]).contains(&format!("switch: suppressed: a drive is in use: {reason}; "));
    mount("ro");
    assert!(dry_run(&[]).contains("switch: sierra: control"), "{}", dry_run(&[]));
    mount("rw");
    assert!(is_in_use("/dev/sda1 is mounted for writing"), "{}", dry_run(&[]));
    assert!(!dry_run(&["1-1"]).contains("suppressed"));
    let requested = [&device_event(PATH)[..], &[("SYNTH_UUID", "0")]].concat();
    assert!(root.hook(&requested).stdout.contains("WWAN_QUIRKS=suppressed"));
    mount("ro");
    root.write(&format!("{disk}/sda1/holders/dm-0/dev"), "253:0\n");
    assert!(is_in_use("another block device is on /dev/sda1"), "{}", dry_run(&[]));

    // An administrator's quirk also sets a configuration.
    let drive = |value| configuration(value, &[interface(0, [8, 6, 0x50], &[(0x81, 2), (0x02, 2)])]);
    let mbim = configuration(2, &[interface(0, [2, 14, 0], &[])]);
    root.write(&format!("{device}/descriptors"), fake::device(&[drive(1), mbim]));
    let quirk = "schema = 1\n[[device]]\nid = \"1199:0fff\"\nname = \"A\"\nsteps = [{ switch = \"sierra\" }, { configuration = 2 }]\n";
    root.write("/etc/wwan-quirks/quirks.d/own.toml", quirk);
    let plan = dry_run(&[]);
    assert!(
        is_in_use("another block device is on /dev/sda1") && plan.contains("configuration: suppressed: "),
        "{plan}"
    );
}

/// ModemManager may already use the network interface of a stick that waits for its switch.
#[test]
fn a_network_interface_does_not_prevent_a_switch() {
    let root = Root::new();
    let (drive, network) = (interface(0, [8, 6, 0x50], &[(0x81, 2), (0x02, 2)]), interface(0, [2, 6, 0], &[]));
    let path =
        root.plug("1-1", "12d1:1446", &fake::device(&[configuration(1, &[drive]), configuration(2, &[network])]));
    root.write(&format!("{path}/1-1:1.0/bInterfaceNumber"), "00\n");
    root.write(&format!("{path}/1-1:1.0/net/usb0/flags"), "0x1003\n");
    for arguments in [&["apply", "--dry-run"][..], &["apply", "--dry-run", "--unit", "1-1"]] {
        let ended = root.run(arguments);
        assert!(ended.code == 0 && ended.stdout.contains("switch: huawei-new"), "{ended:?}");
    }
}

/// Programs that cannot be listed may use the modem.
#[test]
fn a_modem_whose_users_are_not_known_is_not_reconfigured() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.tty("1-1", "1.3", "ttyUSB1");
    let ended = root.run(&["apply"]);
    assert!(ended.code == 0 && ended.stdout.contains("suppressed: the modem is in use: unknown programs"), "{ended:?}");
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "1");
}

/// A modem with one of two locks: each lock has its own port, and `apply` tries one after the other.
#[test]
fn each_of_several_unlocks_uses_its_own_port() {
    let root = Root::new();
    root.write(
        "/etc/wwan-quirks/quirks.d/own.toml",
        "schema = 1\n[[device]]\nid = \"33f8:01a8\"\nname = \"A\"\nsteps = [\n\
         { fcc-auth = { gtfcclock = { interface = 3, oem-strings = [\"X\"] } } },\n\
         { fcc-auth = { intel-mutual-authentication = { oem-strings = [\"X\"] } } },\n]\n",
    );
    root.plug("1-1", "33f8:01a8", &mc7710());
    let plan = || root.run(&["apply", "--dry-run", "1-1"]).stdout;
    assert_eq!(plan().matches("not possible").count(), 2, "{}", plan());
    root.control_port("1-1", "1.0", "cdc_mbim", "cdc-wdm0");
    assert!(plan().contains("intel-mutual-authentication over MBIM on /dev/cdc-wdm0"), "{}", plan());
    assert!(!plan().contains("not possible"), "{}", plan());
    root.tty("1-1", "1.3", "ttyUSB1");
    let [tty, mbim] = ["gtfcclock over AT", "intel-mutual-authentication over MBIM"].map(|text| plan().find(text));
    assert!(tty.is_some() && tty < mbim, "{}", plan());

    root.write("/dev/ttyUSB1", "no tty");
    root.write("/dev/cdc-wdm0", "no port");
    let ended = root.run(&["apply", "1-1"]);
    let output = ended.stdout + &ended.stderr;
    assert!(output.contains("/dev/ttyUSB1") && output.contains("/dev/cdc-wdm0"), "{output}");
    let path = format!("{PATH}/1-1:1.0/usbmisc/cdc-wdm0");
    let ended = root.hook(&[("ACTION", "add"), ("DEVPATH", &path), ("SUBSYSTEM", "usbmisc")]);
    assert!(ended.stderr.contains("/dev/cdc-wdm0") && !ended.stderr.contains("/dev/ttyUSB1"), "{}", ended.stderr);
}

#[test]
fn before_sleep_only_a_modem_that_cannot_delay_sleep_is_asked() {
    let root = Root::new();
    let usb = root.plug("1-1", "1199:9071", &mc7710());
    root.control_port("1-1", "1.12", "cdc_mbim", "cdc-wdm0");
    let function = root.pci("0000:08:00.0", "1eac:1007 1eac:1007", "mhi-pci-generic");
    root.wwan_port(&format!("{function}/mhi0"), "mbim0");
    fs::create_dir_all(root.0.join("proc/self")).unwrap();
    // Both modems were seen unlocked.
    for (port, directory) in [("1-1", usb), ("0000:08:00.0", format!("{function}/mhi0/wwan/wwan0/wwan0mbim0"))] {
        let enumeration = fs::metadata(root.0.join(&directory[1..])).unwrap().ino();
        root.write(&format!("run/wwan-quirks/lock/{port}"), format!("{{\"unlocked\":{enumeration}}}"));
    }
    let ask = || root.run(&["-vv", "apply", "--unit", "--before-sleep"]).stderr;
    let asked = ask();
    assert!(asked.contains("1-1 1199:9071") && asked.contains("before sleep: /"), "{asked}");
    assert!(asked.contains("0000:08:00.0: no proxy holds") && !asked.contains("wwan0mbim0 does not exist"), "{asked}");
    root.policy("prefer = 9\n");
    let asked = ask();
    assert!(!asked.contains("before sleep") && !asked.contains("no proxy"), "{asked}");
}

/// The ports of many PCI modems are created again after sleep, which looks like a crash.
#[test]
fn sleep_is_not_a_crash_after_an_unlock() {
    let root = Root::new();
    let function = root.pci("0000:08:00.0", "1eac:1007 1eac:1007", "mhi-pci-generic");
    root.wwan_port(&format!("{function}/mhi0"), "mbim0");
    fs::create_dir_all(root.0.join("proc/self")).unwrap();
    let port = format!("{function}/mhi0/wwan/wwan0/wwan0mbim0");
    let enumeration = fs::metadata(root.0.join(&port[1..])).unwrap().ino();
    for (unlocked, counts) in [(enumeration, false), (enumeration + 1, true)] {
        let acted = format!(
            r#"{{"identity":{{"id":"pci:1eac:1007","serial":null,"enumeration":{enumeration},"number":null}},
               "until":1,"count":3,"returned":false,"gave_up":false}}"#
        );
        let state = format!(r#"{{"unlocked":{unlocked},"acted":{{"fcc-auth":{acted}}}}}"#);
        root.write("run/wwan-quirks/lock/0000:08:00.0", state);
        root.run(&["apply", "--unit", "--before-sleep"]);
        let state = fs::read_to_string(root.0.join("run/wwan-quirks/lock/0000:08:00.0")).unwrap();
        assert_eq!(state.contains(r#""count":3"#), counts, "{state}");
    }
}

#[test]
fn a_composition_is_not_set_on_a_modem_that_cannot_be_asked() {
    let root = Root::new();
    root.plug("1-1", "1199:9071", &mc7710());
    root.plug("1-2", "046d:c31c", &mc7710());
    root.plug("1-4", "1199:0fff", &install_mode());
    for (arguments, code, words) in [
        (&["1-1", "foo\""][..], 2, "expected a value that the modem lists (8, 0x100d, 9011) or functions"),
        (&["1-1", "qmi+at"], 2, "expected a value"),
        (&["1-1", "--reset"], 2, "VALUE"),
        (&["1-1", "--no-at-port"], 2, "VALUE"),
        (&["1-1", "--password", "A\""], 2, "letters and digits"),
        (&["1-7"], 2, "no such device: 1-7"),
        (&["1-2", "mbim"], 1, "composition: failed: compositions.toml has no family for 046d:c31c"),
        (&["1-1", "mbim"], 1, "composition: failed: the modem has no QMI, MBIM or AT port"),
        (&["1-1", "--json"], 1, "\"outcome\": \"failed\""),
        (&["1-4"], 1, "failed: the modem is in install mode; run `wwan-quirks apply 1-4` first"),
    ] {
        let ended = root.run(&[&["composition"], arguments].concat());
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
        assert!((ended.stdout + &ended.stderr).contains(words), "{arguments:?}");
    }
    root.plug("1-3", "1199:9071", &mc7710());
    let ended = root.run(&["composition", "1199:9071"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("1199:9071 matches more than one modem: name one of the ports 1-1, 1-3"),
        "{}",
        ended.stderr
    );
}

/// The second modem leaves while the program reads the descriptors of the first one.
#[test]
fn a_named_modem_that_leaves_meanwhile_is_a_failure() {
    for arguments in [
        &["apply", "1-1", "1-2"][..],
        &["apply", "--dry-run", "1-1", "1-2"],
        &["status", "1-1", "1-2"],
        &["explain", "1199:68a2"],
    ] {
        let root = Root::new();
        let device = root.plug("1-1", "1199:68a2", &mc7710());
        root.plug("1-2", "1199:68a2", &mc7710());
        let descriptors = root.0.join(&device[1..]).join("descriptors");
        fs::remove_file(&descriptors).unwrap();
        mkfifo(&descriptors, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let link = root.0.join("sys/bus/usb/devices/1-2");
        let leaves = thread::spawn(move || {
            let mut pipe = File::options().write(true).open(&descriptors).unwrap();
            fs::remove_file(link).unwrap();
            fs::remove_file(&descriptors).unwrap();
            fs::write(&descriptors, mc7710()).unwrap();
            pipe.write_all(&mc7710()).unwrap();
        });
        let ended = root.run(arguments);
        assert!(
            ended.code == 1 && ended.stderr == "wwan-quirks: the device at 1-2 is gone\n",
            "{arguments:?} {ended:?}"
        );
        assert!(ended.stdout.starts_with("1-1 1199:68a2 ") || ended.stdout.contains("(1-1)"), "{ended:?}");
        leaves.join().unwrap();
    }
}

#[test]
fn a_result_of_composition_that_status_cannot_show_is_announced() {
    let root = Root::new();
    let device = root.plug("1-1", "1bbb:00ca", &mc7710());
    let enumeration = fs::metadata(root.0.join(&device[1..])).unwrap().ino();
    let holder = Holder { enumeration, task: Task::Composition };
    let (port, deadline) = (Port::new("1-1").unwrap(), Deadline::after(Duration::from_secs(60)));
    let _lock = PortState::lock(&root::Root::new(&root.0), &port, &holder, deadline).unwrap();
    let ended = root.run(&["composition", "1-1", "mbim"]);
    let said = "1-1: `wwan-quirks status` will not show this result: another run of wwan-quirks is using this port; \
                run `wwan-quirks composition 1-1` to see which composition is set";
    assert!(ended.code == 1 && ended.stderr.contains(said), "{ended:?}");
    let ended = root.run(&["composition", "1-1"]);
    assert!(ended.code == 1 && !ended.stderr.contains("will not show"), "{ended:?}");
}

#[test]
fn a_composition_that_was_only_read_is_not_recorded() {
    let root = Root::new();
    root.plug("1-1", "1199:9071", &mc7710());
    root.plug("1-2", "046d:c31c", &mc7710());
    root.results("1-1", r#""last":{"composition":{"at":5,"outcome":"done","text":"6 (qmi) instead of 8"}}"#);
    let before = root.read("run/wwan-quirks/state/1-1");
    for port in ["1-1", "1-2"] {
        let ended = root.run(&["composition", port]);
        assert!(ended.code == 1 && ended.stdout.contains("composition: failed: "), "{ended:?}");
        assert_eq!(ended.stderr, "", "{port}");
    }
    assert_eq!(root.read("run/wwan-quirks/state/1-1"), before);
    for folder in ["lock", "state"] {
        assert!(!root.0.join("run/wwan-quirks").join(folder).join("1-2").exists(), "{folder}");
    }
    root.run(&["composition", "1-1", "mbim"]);
    assert!(root.read("run/wwan-quirks/state/1-1").contains("failed"));
}

#[test]
fn a_device_without_a_name_is_called_unnamed() {
    let root = Root::new();
    let device = root.plug("1-1", "046d:c31c", &mc7710());
    fs::remove_file(root.0.join(&device[1..]).join("product")).unwrap();
    let printed = root.run(&["composition", "1-1"]).stdout;
    assert!(printed.starts_with("1-1 046d:c31c unnamed device: composition: failed: "), "{printed}");
}

#[test]
fn a_busy_command_says_when_to_try_again() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    let enumeration = fs::metadata(root.0.join(&device[1..])).unwrap().ino();
    let (port, deadline) = (Port::new("1-1").unwrap(), Deadline::after(Duration::from_secs(60)));
    for (verb, task) in [("apply", Task::All), ("composition", Task::Composition)] {
        let holder = Holder { enumeration, task };
        let _lock = PortState::lock(&root::Root::new(&root.0), &port, &holder, deadline).unwrap();
        let ended = root.run(&[verb, "1-1"]);
        let said = "busy: another run of wwan-quirks is using this port; \
                    run the command again when the other run has ended";
        assert!(ended.code == 1 && ended.stdout.contains(said), "{ended:?}");
    }
}

#[test]
fn a_query_without_an_answer_is_a_failure_for_a_modem_that_was_named() {
    let root = Root::new();
    root.plug("1-1", "1199:68a2", &mc7710());
    for (arguments, code) in
        [(&["status", "--query", "1-1"][..], 1), (&["status", "--query"], 0), (&["status", "1-1"], 0)]
    {
        assert_eq!(root.run(arguments).code, code, "{arguments:?}");
    }
}

#[test]
fn no_composition_is_set_while_a_file_is_invalid() {
    for file in ["compositions.toml", "config.toml", "quirks.d/1199-own.toml"] {
        let root = Root::new();
        root.plug("1-1", "1199:9071", &mc7710());
        root.write(&format!("etc/wwan-quirks/{file}"), "schema = 9\n");
        for value in [&[][..], &["mbim"]] {
            let ended = root.run(&[&["composition", "1-1"], value].concat());
            assert_eq!(ended.code, 3, "{ended:?}");
            assert!(ended.stderr.contains(&format!("{file}:1:")), "{ended:?}");
            // Without a port, a conversation with the modem fails.
            assert_eq!(ended.stdout.contains("failed"), value.is_empty(), "{ended:?}");
        }
    }
    // No quirk applies to this modem.
    let root = Root::new();
    root.plug("1-1", "2c7c:0125", &mc7710());
    root.write("etc/wwan-quirks/config.toml", "prefer = \"x\"\n");
    let ended = root.run(&["composition", "1-1", "ecm"]);
    assert!(ended.code == 3 && ended.stderr.contains("config.toml:1:10") && ended.stdout.is_empty(), "{ended:?}");
}

#[test]
fn a_file_in_place_of_a_folder_is_an_error() {
    for folder in ["config.d", "quirks.d"] {
        let root = Root::new();
        root.plug("1-1", "1199:68a2", &mc7710());
        let path = root.0.join("etc/wwan-quirks").join(folder);
        let _ = fs::remove_dir_all(&path);
        root.write(&format!("etc/wwan-quirks/{folder}"), "");
        for arguments in [&["check"][..], &["explain", "1-1"], &["apply", "--dry-run", "1-1"]] {
            let ended = root.run(arguments);
            let printed = ended.stdout + &ended.stderr;
            assert!(
                ended.code == 3 && printed.contains(&format!("{folder}: cannot read: Not a directory")),
                "{printed}"
            );
        }
    }
    // The state may also be missing.
    let root = Root::new();
    root.write("run/wwan-quirks", "");
    let ended = root.run(&["check"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "no errors\n"), "{ended:?}");
}

#[test]
fn the_only_modem_need_not_be_named_for_a_report() {
    let root = Root::new();
    assert_eq!(root.run(&["report"]).code, 2);
    // Its only entry has an error.
    root.plug("1-3", "dead:beef", &mc7710());
    root.write("etc/wwan-quirks/quirks.d/own.toml", "schema = 1\n[[device]]\nid = \"dead:beef\"\n");
    let ended = root.run(&["report"]);
    assert!(ended.code == 3 && ended.stderr.contains("own.toml:2:1"), "{ended:?}");
    fs::remove_file(root.0.join("etc/wwan-quirks/quirks.d/own.toml")).unwrap();
    root.plug("1-1", "1199:68a2", &mc7710());
    let ended = root.run(&["report"]);
    assert!(ended.code == 0 && ended.stdout.contains("port = 1-1\n"), "{ended:?}");
    root.plug("1-2", "1199:68a2", &mc7710());
    let ended = root.run(&["report"]);
    assert!(ended.code == 2 && ended.stderr.contains("name one of the ports 1-1, 1-2"), "{ended:?}");
}

#[test]
fn a_long_file_can_take_the_output() {
    let root = Root::new();
    root.plug("1-1", "1199:68a2", &mc7710());
    for verb in ["status", "apply"] {
        let log = root.0.join("log");
        fs::write(&log, vec![b'\n'; 64 << 10]).unwrap();
        let mut command = fake::program();
        command.arg("--root").arg(&root.0).arg(verb).stdout(File::options().append(true).open(&log).unwrap());
        assert_eq!(command.status().unwrap().code(), Some(0), "{verb}");
        assert!(fs::read_to_string(&log).unwrap().contains("1199:68a2"), "{verb}");
    }
}

#[test]
fn output_that_cannot_be_written_changes_only_the_exit_status() {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    let root = Root::new();
    let full = || OwnedFd::from(File::options().write(true).open("/dev/full").unwrap());
    // The other end is closed at once.
    let closed = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let run = |verb: &str, stdout: OwnedFd| {
        let ended = fake::program().arg("--root").arg(&root.0).arg(verb).stdout(stdout).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    for verb in ["list", "rules", "--help"] {
        assert_eq!(run(verb, closed()), (Some(0), String::new()), "{verb}");
        assert_eq!(run(verb, full()).0, Some(1), "{verb}");
    }
    for (stdout, expected, ports) in [(closed(), 0, ["1-1", "1-2"]), (full(), 1, ["1-3", "1-4"])] {
        let devices = ports.map(|port| root.plug(port, "1199:68a2", &mc7710()));
        assert_eq!(run("apply", stdout).0, Some(expected));
        for device in devices {
            assert_eq!(root.read(&format!("{device}/bConfigurationValue")).trim(), "2");
        }
    }
    root.write("/etc/wwan-quirks/quirks.d/own.toml", "schema = 9\n");
    assert_eq!(run("check", closed()), (Some(3), String::new()));
}

#[test]
fn a_full_standard_error_does_not_abort_the_program() {
    let root = Root::new();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = fake::program();
    let status = command.arg("--root").arg(&root.0).args(["status", "zz"]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_modem_that_a_killed_run_left_unconfigured_is_always_configured() {
    let root = Root::new();
    for (policy, value) in [("prefer = \"keep\"\n", "1"), ("prefer = \"mbim\"\n", "2")] {
        let device = root.plug(if value == "1" { "1-1" } else { "1-2" }, "12d1:15c1", &mc7710());
        // On a busy machine, a write takes longer than an event has time for.
        root.policy(&format!("{policy}[timeouts]\nhook = 30\n"));
        let value_file = format!("{device}/bConfigurationValue");
        root.write(&value_file, "\n");
        root.hook(&device_event(device.trim_start_matches("/sys")));
        assert_eq!(root.read(&value_file).trim(), value, "{policy}");
    }
}

/// `status --query` and `composition` hold the lock of the port for seconds. The unit waits for it.
#[test]
fn an_event_leaves_a_port_that_another_task_uses_to_the_unit() {
    let root = Root::new();
    let device = root.plug("1-1", "33f8:01a8", &mc7710());
    root.tty("1-1", "1.3", "ttyUSB1");
    root.tty("1-1", "1.2", "ttyUSB0");
    root.write("/dev/ttyUSB1", "no tty");
    fs::create_dir_all(root.0.join("run/systemd/system")).unwrap();
    let enumeration = fs::metadata(root.0.join(&device[1..])).unwrap().ino();
    let path = format!("{PATH}/1-1:1.3/ttyUSB1/tty/ttyUSB1");
    let of_other = format!("{PATH}/1-1:1.2/ttyUSB0/tty/ttyUSB0");
    // Only the first event waits until its time is up.
    for (task, budget, code, said) in [
        (Some(Task::Status), 0.3, 0, "not finished: another run"),
        (Some(Task::Port("ttyUSB1".to_owned())), 30.0, 1, "busy: another run"),
        (None, 30.0, 1, "failed: "),
    ] {
        root.policy(&format!("[timeouts]\nhook = {budget:.1}\n"));
        let port = Port::new("1-1").unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        let _lock = task.clone().map(|task| {
            let holder = Holder { enumeration, task };
            PortState::lock(&root::Root::new(&root.0), &port, &holder, deadline).unwrap()
        });
        let ended = root.hook(&[("ACTION", "add"), ("DEVPATH", &path), ("SUBSYSTEM", "tty")]);
        assert!(ended.code == code && ended.stderr.contains(said), "{task:?}: {ended:?}");
        // The events of the other ports end at once.
        let other = root.hook(&[("ACTION", "add"), ("DEVPATH", &of_other), ("SUBSYSTEM", "tty")]);
        assert_eq!((other.code, other.stdout.as_str(), other.stderr.as_str()), (0, "", ""), "{task:?}");
        let is_left = ended.stdout.contains("WWAN_QUIRKS=unfinished")
            && ended.stderr.contains("using this port; wwan-quirks@1-1.service continues");
        assert_eq!(is_left, task == Some(Task::Status), "{ended:?}");
    }
}

/// The kernel holds the device while it looks for drivers. A read of `serial` then waits, for the guard and for a policy
/// that names a serial number, and so does a read of `bConfigurationValue`.
#[test]
fn an_event_does_not_wait_for_a_driver_beyond_its_time() {
    let root = Root::new();
    let device = root.plug("1-1", "33f8:01a8", &mc7710());
    root.tty("1-1", "1.3", "ttyUSB1");
    root.write("/dev/ttyUSB1", "no tty");
    fs::create_dir_all(root.0.join("run/systemd/system")).unwrap();
    // The open of a FIFO does not return without a writer.
    let serial = root.0.join(&device[1..]).join("serial");
    fs::remove_file(&serial).unwrap();
    mkfifo(&serial, Mode::S_IRUSR).unwrap();
    let path = format!("{PATH}/1-1:1.3/ttyUSB1/tty/ttyUSB1");
    for of_device in ["", "[[device]]\nmatch = { serial = \"7\" }\nswitch = false\n"] {
        root.policy(&format!("[timeouts]\nhook = 0.3\n{of_device}"));
        let began = Instant::now();
        let ended = root.hook(&[("ACTION", "add"), ("DEVPATH", &path), ("SUBSYSTEM", "tty")]);
        // The watchdog ends a run after 20 s.
        assert!(began.elapsed() < Duration::from_secs(20));
        assert!(ended.code == 0 && ended.stdout.contains("WWAN_QUIRKS=unfinished"), "{ended:?}");
        let said = "its attribute serial could not be read; wwan-quirks@1-1.service continues";
        assert!(ended.stderr.contains(said), "{ended:?}");
    }

    let device = root.plug("1-2", "1199:68a2", &mc7710());
    let active = root.0.join(&device[1..]).join("bConfigurationValue");
    fs::remove_file(&active).unwrap();
    mkfifo(&active, Mode::S_IRUSR).unwrap();
    let path = device.strip_prefix("/sys").unwrap();
    let began = Instant::now();
    let ended = root.hook(&[("ACTION", "add"), ("DEVPATH", path), ("SUBSYSTEM", "usb"), ("DEVTYPE", "usb_device")]);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(ended.code == 0 && ended.stdout.contains("WWAN_QUIRKS=unfinished"), "{ended:?}");
    let said = "configuration: not finished: a driver held the device, so its attribute bConfigurationValue";
    assert!(ended.stderr.contains(said), "{ended:?}");
}

/// The first modem is held until the end of `modem-ready`. Before sleep, another task holds its lock.
#[test]
fn a_modem_does_not_delay_another_before_and_after_sleep() {
    let root = Root::new();
    // The numbers of /dev/null and /dev/zero.
    for (port, tty, number) in [("1-1", "ttyUSB1", "1:3\n"), ("1-2", "ttyUSB2", "1:5\n")] {
        let device = root.plug(port, "33f8:01a8", &mc7710());
        root.tty(port, "1.3", tty);
        root.write(&format!("{device}/{port}:1.3/{tty}/tty/{tty}/dev"), number);
    }
    symlink("/dev/null", root.0.join("ttyUSB1")).unwrap();
    root.write("/proc/812/comm", "minicom\n");
    fs::create_dir(root.0.join("proc/812/fd")).unwrap();
    symlink(root.0.join("ttyUSB1"), root.0.join("proc/812/fd/3")).unwrap();
    root.policy("[timeouts]\nmodem-ready = 2\n");
    let ended = root.run(&["apply", "--unit", "--unlock"]);
    let [held, gone] = ["1-1 33f8:01a8 Rolling", "1-2 33f8:01a8 Rolling"].map(|line| ended.stderr.find(line));
    assert!(ended.code == 1 && gone.is_some() && gone < held, "{ended:?}");

    let enumeration = |port: &str| fs::metadata(root.0.join("sys/bus/usb/devices").join(port)).unwrap().ino();
    root.write("/run/wwan-quirks/lock/1-2", format!("{{\"unlocked\":{}}}", enumeration("1-2")));
    let holder = Holder { enumeration: enumeration("1-1"), task: Task::Status };
    let deadline = Deadline::after(Duration::from_secs(60));
    let _lock = PortState::lock(&root::Root::new(&root.0), &Port::new("1-1").unwrap(), &holder, deadline).unwrap();
    let ended = root.run(&["apply", "--unit", "--before-sleep"]);
    assert!(ended.code == 0 && ended.stderr.contains("could not be read before sleep"), "{ended:?}");
}

/// NetworkManager may say that the radio must stay off. The unit starts after the file systems are mounted.
#[test]
fn an_event_before_var_is_mounted_leaves_the_unlock_to_the_unit() {
    let root = Root::new();
    root.plug("1-1", "33f8:01a8", &mc7710());
    root.tty("1-1", "1.3", "ttyUSB1");
    root.write("/dev/ttyUSB1", "no tty");
    root.write("/usr/sbin/NetworkManager", "");
    fs::create_dir(root.0.join("proc")).unwrap();
    fs::create_dir_all(root.0.join("run/systemd/system")).unwrap();
    let path = format!("{PATH}/1-1:1.3/ttyUSB1/tty/ttyUSB1");
    let hook = || root.hook(&[("ACTION", "add"), ("DEVPATH", &path), ("SUBSYSTEM", "tty")]);
    let ended = hook();
    assert!(ended.code == 0 && ended.stdout.contains("WWAN_QUIRKS=unfinished"), "{ended:?}");
    assert!(
        ended.stderr.contains("NetworkManager's state in /var/lib is not available yet; wwan-quirks@1-1.service"),
        "{ended:?}"
    );
    let acted = "fcc-auth: failed: ";
    let ended = root.run(&["apply", "--unit", "1-1"]);
    assert!(ended.stdout.contains(acted), "{ended:?}");
    fs::create_dir_all(root.0.join("var/lib")).unwrap();
    assert!(hook().stdout.contains("WWAN_QUIRKS=unfinished"));
    // NetworkManager has never run.
    fs::create_dir(root.0.join("var/lib/dpkg")).unwrap();
    assert!(hook().stderr.contains(acted));

    // Without systemd, a background process waits for the file system.
    for directory in ["var", "run"] {
        fs::remove_dir_all(root.0.join(directory)).unwrap();
    }
    let outcome = || {
        let state: serde_json::Value = serde_json::from_str(&root.read("run/wwan-quirks/state/1-1")).unwrap();
        state["last"]["fcc-auth"]["outcome"].as_str().unwrap().to_owned()
    };
    let ended = hook();
    assert!(ended.stderr.contains("not available yet; a background process continues"), "{ended:?}");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(outcome(), "unfinished");
    fs::create_dir_all(root.0.join("var/lib/NetworkManager")).unwrap();
    let by = Instant::now() + Duration::from_secs(20);
    while outcome() != "failed" {
        assert!(Instant::now() < by);
        thread::sleep(Duration::from_millis(50));
    }
}
