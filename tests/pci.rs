//! Modems on PCI: how a device is named, which quirk applies, and which events start a run.

mod fake;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use fake::{Root, mc7710};

const OWN: &str = "/etc/wwan-quirks/quirks.d/own.toml";
const ADDRESS: &str = "0000:08:00.0";

/// An RM520N-GL: the driver puts a controller between the function and the ports.
fn rm520n(root: &Root) -> String {
    let function = root.pci(ADDRESS, "1eac:1007 1eac:1007", "mhi-pci-generic");
    root.write(&format!("{function}/mhi0/serial_number"), "Serial Number: 1234567890\n");
    root.write(&format!("{function}/mhi0/mhi0_MBIM/modalias"), "mhi:MBIM\n");
    for port in ["at0", "mbim0", "qcdm0"] {
        root.wwan_port(&format!("{function}/mhi0"), port);
    }
    function
}

fn port_event(devpath: &str) -> [(&'static str, &str); 4] {
    [("ACTION", "add"), ("DEVPATH", devpath), ("SUBSYSTEM", "wwan"), ("DEVTYPE", "wwan_port")]
}

#[test]
fn a_modem_is_named_by_its_address_its_id_and_its_ports() {
    let root = Root::new();
    rm520n(&root);
    for name in [ADDRESS, "pci:1eac:1007", "/dev/wwan0mbim0", "/dev/wwan0at0"] {
        let ended = root.run(&["explain", name]);
        let first = ended.stdout.lines().next().unwrap_or_default();
        assert_eq!(first, "pci:1eac:1007 (0000:08:00.0): Quectel RM520N-GL (Lenovo)", "{name}: {ended:?}");
        let plan = "plan    fcc-auth: quectel over MBIM on /dev/wwan0mbim0, if the radio is in low power";
        assert!(ended.stdout.contains(plan), "{name}: {}", ended.stdout);
    }
    root.pci("0000:09:00.0", "1eac:1001 1eac:1001", "mhi-pci-generic");
    let explained = root.run(&["explain", "pci:1eac:1001"]).stdout;
    assert!(explained.contains("not possible: the modem has no MBIM port; see `wwan-quirks doctor`"), "{explained}");
    // The same numbers on USB are another device.
    for verb in ["explain", "status", "report", "apply", "composition"] {
        let ended = root.run(&[verb, "1eac:1007"]);
        let hint = "1eac:1007 is a USB ID; did you mean pci:1eac:1007?";
        assert!(ended.stderr.contains(hint), "{verb}: {ended:?}");
        assert_eq!(ended.code, if verb == "explain" { 1 } else { 2 }, "{verb}");
    }
    assert!(root.run(&["explain", "1eac:1007"]).stdout.contains("no quirk applies"));
    assert!(root.run(&["explain", "1eac:1004"]).stderr.contains("did you mean pci:1eac:1004?"), "not plugged in");
    assert!(!root.run(&["explain", "1eac:ffff"]).stderr.contains("did you mean"));
    assert!(root.run(&["explain", "pci:1eac:1004"]).stdout.contains("(not plugged in): Quectel"));
    for name in ["0000:00:1c.7", "/dev/wwan1mbim0", "/dev/wwan0", "08:00.0"] {
        assert_eq!(root.run(&["explain", name]).code, 2, "{name}");
    }
}

#[test]
fn only_the_event_of_the_port_that_the_procedure_uses_starts_a_run() {
    let root = Root::new();
    let function = rm520n(&root);
    let ports = format!("{}/mhi0/wwan/wwan0", function.trim_start_matches("/sys"));
    let of_mbim = root.hook(&port_event(&format!("{ports}/wwan0mbim0")));
    // This root has no device node.
    assert!(of_mbim.code == 1 && of_mbim.stderr.contains("/dev/wwan0mbim0 does not exist"), "{of_mbim:?}");
    assert!(of_mbim.stderr.contains("0000:08:00.0 pci:1eac:1007"), "{of_mbim:?}");
    for other in ["wwan0at0", "wwan0qcdm0", "wwan0"] {
        let ended = root.hook(&port_event(&format!("{ports}/{other}")));
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""), "{other}");
    }
    assert!(root.read("run/wwan-quirks/state/0000:08:00.0").contains("fcc-auth"));
}

#[test]
fn ports_without_a_controller_are_found() {
    let root = Root::new();
    root.write(
        OWN,
        "schema = 1\n[[device]]\nid = \"pci:8086:7560\"\nname = \"Mine\"\nsteps = [{ fcc-auth = \"quectel\" }]\n",
    );
    let function = root.pci("10000:e1:00.0", "8086:7560 8086:7560", "iosm");
    let devpath = root.wwan_port(&function, "mbim0");
    let ended = root.hook(&port_event(&devpath));
    assert!(ended.stderr.contains("10000:e1:00.0 pci:8086:7560 Mine"), "{ended:?}");
}

#[test]
fn a_policy_without_the_bus_does_not_leave_the_modem_to_the_shipped_policy() {
    let root = Root::new();
    root.write("/etc/wwan-quirks/config.toml", "[[device]]\nmatch = { id = \"1eac:1007\" }\nfcc-auth = false\n");
    for arguments in [&["explain", "pci:1eac:1007"][..], &["apply", "0000:08:00.0"], &["explain", "0000:08:00.0"]] {
        // Without the device, `explain` reads the policy itself.
        if arguments[0] == "apply" {
            rm520n(&root);
        }
        let ended = root.run(arguments);
        let said = "config.toml:2:17: no entry has the USB ID 1eac:1007; did you mean pci:1eac:1007?";
        assert!(ended.code == 3 && ended.stderr.contains(said), "{ended:?}");
    }
}

/// Kernels with `CONFIG_WWAN=y` show an MBIM port of a USB modem as a WWAN port, too.
#[test]
fn a_wwan_port_of_a_usb_modem_starts_no_run() {
    let root = Root::new();
    root.pci("0000:00:14.0", "1eac:1007 0000:0000", "xhci_hcd");
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.write(&format!("{device}/1-1:1.12/bInterfaceNumber"), "0c\n");
    let devpath = root.wwan_port(&format!("{device}/1-1:1.12"), "mbim0");
    let ended = root.hook(&port_event(&devpath));
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
}

#[test]
fn a_shared_id_is_known_by_its_subsystem() {
    let root = Root::new();
    let entry = |subsystem: &str, name: &str| {
        format!(
            "[[device]]\nid = \"pci:17cb:0308\"\nsubsystem = \"{subsystem}\"\nname = \"{name}\"\n\
             steps = [{{ fcc-auth = \"quectel\" }}]\n"
        )
    };
    let text = [entry("105b:*", "All of Foxconn"), entry("105B:E142", "One of Foxconn"), entry("1eac:*", "Quectel")];
    root.write(OWN, format!("schema = 1\n{}", text.concat()));
    assert_eq!(root.run(&["check"]).stdout, "no errors\n");
    let explained = root.run(&["explain", "pci:17cb:0308"]).stdout;
    assert!(explained.contains("for subsystem \"105b:e142\""), "{explained}");
    for (address, subsystem, name) in [
        ("0000:01:00.0", "105b:e142", "One of Foxconn"),
        ("0000:02:00.0", "105b:e143", "All of Foxconn"),
        ("0000:03:00.0", "1eac:e142", "Quectel"),
        // Sierra Wireless, Telit.
        ("0000:04:00.0", "18d7:0301", "no quirk applies"),
        ("0000:05:00.0", "1c5d:2015", "no quirk applies"),
    ] {
        root.pci(address, &format!("17cb:0308 {subsystem}"), "mhi-pci-generic");
        let explained = root.run(&["explain", address]).stdout;
        assert!(explained.lines().next().unwrap().ends_with(name), "{subsystem}: {explained}");
    }

    // The rules name the subsystem: a modem from another manufacturer starts no process.
    let rules = root.run(&["rules"]).stdout;
    let line = "SUBSYSTEMS==\"pci\", ATTRS{vendor}==\"0x17cb\", ATTRS{device}==\"0x0308\", ATTRS{subsystem_vendor}==\"0x105b\", ";
    assert!(rules.contains(&format!("{line}GOTO=\"wwan_quirks_hook\"\n")), "{rules}");
    assert!(
        rules.contains(&format!("{line}ATTRS{{subsystem_device}}==\"0xe142\", GOTO=\"wwan_quirks_hook\"\n")),
        "{rules}"
    );
    for line in rules.lines().filter(|line| line.contains("\"0x17cb\"")) {
        assert!(line.contains("ATTRS{subsystem_vendor}=="), "{line}");
    }
}

#[test]
fn check_compares_subsystems_with_the_rules() {
    let root = Root::new();
    root.write("/usr/lib/udev/rules.d/85-wwan-quirks.rules", root.run(&["rules"]).stdout);
    assert_eq!(root.run(&["check"]).code, 0);
    let entry = "schema = 1\n[[device]]\nid = \"pci:17cb:0306\"\nname = \"A\"\nsubsystem = \"17cb:010c\"\n\
                 steps = [{ fcc-auth = \"quectel\" }]\n";
    root.write(OWN, entry);
    assert_eq!(root.run(&["check"]).stdout, "no errors\n");
    for subsystem in ["17cb:010d", "17cb:*", "105b:010c"] {
        root.write(OWN, entry.replace("17cb:010c", subsystem));
        let ended = root.run(&["check"]);
        assert!(
            ended.stdout.contains(&format!("{OWN}:3:7: warning: the installed udev rules lack this ID")),
            "{ended:?}"
        );
    }
}

#[test]
fn a_shipped_file_of_pci_ids_has_a_name_of_its_own() {
    let root = Root::new();
    let shipped = "/usr/share/wwan-quirks/quirks.d/pci-1eac-quectel.toml";
    root.write(&shipped.replace("pci-1eac", "1eac"), root.read(shipped));
    let ended = root.run(&["check"]);
    assert_eq!(ended.code, 3);
    assert!(
        ended.stdout.contains("a lookup of pci:1eac:1001 does not read this file: a shipped file named 1eac-*"),
        "{ended:?}"
    );
}

#[test]
fn status_and_report_show_the_ports() {
    let root = Root::new();
    rm520n(&root);
    let said = root.run(&["status"]).stdout;
    assert!(
        said.starts_with("0000:08:00.0 pci:1eac:1007 Quectel RM520N-GL (Lenovo)\n  mode            modem\n"),
        "{said}"
    );
    assert!(said.contains("wwan0mbim0 (MBIM, mhi-pci-generic)"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&root.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["devices"][0]["wwan-ports"][1]["type"], "MBIM");
    let report = root.run(&["report", ADDRESS]).stdout;
    for line in [
        "id = pci:1eac:1007",
        "subsystem = 1eac:1007",
        "driver = mhi-pci-generic",
        "mhi-channels = MBIM",
        "wwan-port = wwan0qcdm0: QCDM",
    ] {
        assert!(report.lines().any(|one| one == line), "{line} in {report}");
    }
    assert!(!report.contains("1234567890"), "{report}");
}

/// `docs/pci.md` and `status` say for each modem whether its unlock has a report from hardware.
#[test]
fn modems_without_a_report_from_hardware_are_named() {
    let page = include_str!("../docs/pci.md");
    let rows = || page.lines().filter(|line| line.starts_with("| ") && line.contains(':'));
    let root = Root::new();
    let list: serde_json::Value = serde_json::from_str(&root.run(&["list", "--json"]).stdout).unwrap();
    let mut count = 0;
    for entry in list["quirks"].as_array().unwrap() {
        for id in entry["models"].as_array().unwrap().iter().filter_map(|id| id["id"].as_str()?.strip_prefix("pci:")) {
            let row: Vec<&str> = rows().filter(|row| row.split('|').nth(1).unwrap().contains(id)).collect();
            let is_seen = entry["seen"] == "hardware";
            assert!(row.len() == 1 && row[0].ends_with("| yes |") == is_seen, "{id}: {row:?}");
            count += 1;
        }
    }
    let first_cells = rows().map(|row| row.split('|').nth(1).unwrap());
    let named: usize = first_cells.map(|cell| cell.split(" with ").next().unwrap().matches(':').count()).sum();
    assert_eq!(named, count);

    root.pci(ADDRESS, "1eac:1001 1eac:1001", "mhi-pci-generic");
    let said = root.run(&["status"]).stdout;
    let evidence = "  evidence        not confirmed on hardware: from a table of another project (ModemManager";
    assert!(said.contains(evidence), "{said}");
    let json: serde_json::Value = serde_json::from_str(&root.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["devices"][0]["seen"], "table");
    let other = Root::new();
    rm520n(&other);
    assert!(!other.run(&["status"]).stdout.contains("evidence"));
}

/// Reasons why a modem lacks the port that its unlock needs.
#[test]
fn doctor_explains_a_missing_port() {
    const RELEASE: &str = "6.1.0";
    let alias = "alias pci:v00001EACd00001004sv*sd*bc*sc*i* mhi_pci_generic\n";
    type Case = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);
    let cases: [Case; 6] = [
        ("", &[], &[], "this kernel (6.1.0) has no driver for the modem at 0000:08:00.0"),
        ("mhi-pci-generic", &[], &[], "the firmware of the modem at 0000:08:00.0"),
        ("mhi-pci-generic", &["MBIM", "DUN"], &[], "remedy: modprobe -a mhi_wwan_ctrl"),
        ("mhi-pci-generic", &["SAHARA"], &["firehose0"], "is in flash mode: it has only FIREHOSE ports"),
        ("mhi-pci-generic", &["DUN"], &["at0"], "has no MBIM port, which its unlock needs: it has only AT ports"),
        ("mhi-pci-generic", &["MBIM"], &["at0", "mbim0"], ""),
    ];
    for (driver, channels, ports, expected) in cases {
        let root = Root::new();
        root.write("/proc/sys/kernel/osrelease", format!("{RELEASE}\n"));
        root.write(&format!("/lib/modules/{RELEASE}/modules.alias"), alias);
        let function = root.pci(ADDRESS, "1eac:1007 1eac:1007", driver);
        for channel in channels {
            root.write(&format!("{function}/mhi0/mhi0_{channel}/uevent"), "");
        }
        ports.iter().for_each(|port| drop(root.wwan_port(&format!("{function}/mhi0"), port)));
        let said = root.run(&["doctor"]).stdout;
        match expected {
            "" => assert!(!said.contains("modem at"), "{said}"),
            expected => assert!(said.contains(expected), "{expected}: {said}"),
        }
    }
}

/// The drivers that this kernel has as modules, and those that it contains.
#[test]
fn doctor_finds_the_driver_of_a_modem() {
    const RELEASE: &str = "6.1.0";
    let (none, unbound) = ("this kernel (6.1.0) has no driver", "no driver is bound to the modem at 0000:08:00.0");
    let module = "remedy: modprobe mhi_pci_generic";
    let contained = "remedy: this kernel contains the driver mhi_pci_generic";
    for (alias, is_built_in, problem, remedy) in [
        ("v00001EACd00001004sv*sd*", false, unbound, module),
        ("v00001EACd00001004sv*sd*", true, unbound, contained),
        ("v00001EACd00001004sv00001EACsd00002001", false, unbound, module),
        ("v00001EACd00001004sv00001EACsd*", true, unbound, contained),
        ("v00001EACd00001004sv00001EACsd00002002", false, none, "remedy: use a kernel whose driver"),
        ("v00001EACd00001004sv000018D7sd*", false, none, "mhi_pci_generic, iosm or mtk_t7xx knows pci:1eac:1004"),
        ("v00001EACd00001001sv*sd*", true, none, ""),
        ("v00001EACd00001004sv*", true, none, ""),
    ] {
        let root = Root::new();
        root.write("/proc/sys/kernel/osrelease", format!("{RELEASE}\n"));
        let (modules, kernel) = match is_built_in {
            false => (format!("alias pci:{alias}bc*sc*i* mhi_pci_generic\n"), String::new()),
            true => (String::new(), format!("iosm.license=GPL\0mhi_pci_generic.alias=pci:{alias}bc*sc*i*\0")),
        };
        root.write(&format!("/lib/modules/{RELEASE}/modules.alias"), modules);
        root.write(&format!("/lib/modules/{RELEASE}/modules.builtin.modinfo"), kernel);
        root.pci(ADDRESS, "1eac:1004 1eac:2001", "");
        let said = root.run(&["doctor"]).stdout;
        assert!(said.contains(problem) && said.contains(remedy), "{alias}: {said}");
    }
}

/// ModemManager passes the names of all ports of the modem.
#[test]
fn modem_manager_finds_the_modem_by_its_ports() {
    let root = Root::new();
    root.write("/etc/ModemManager/fcc-unlock.d/1eac:1007", "");
    let said = root.run(&["doctor"]).stdout;
    assert!(said.contains("ModemManager also unlocks 1eac:1007"), "{said}");
}

/// A modem whose ports did not change is checked after sleep. After a crash, the modem has new ports on the same
/// function.
#[test]
fn a_modem_whose_firmware_keeps_crashing_is_left_alone() {
    let root = Root::new();
    let function = rm520n(&root);
    let wwan = root.0.join(function.trim_start_matches('/')).join("mhi0/wwan");
    let devpath = format!("{}/mhi0/wwan/wwan0/wwan0mbim0", function.trim_start_matches("/sys"));
    for attempt in 1..=4 {
        let ended = root.hook(&port_event(&devpath));
        let expected = if attempt <= 3 {
            "/dev/wwan0mbim0 does not exist"
        } else {
            "the device came back in the same state 3 times"
        };
        assert!(ended.stderr.contains(expected), "{attempt}: {ended:?}");
        // The kernel creates the ports again, on MHI with the whole WWAN device. The new directories exist before the old
        // ones are removed.
        let device = if attempt == 2 { wwan.join("wwan0") } else { wwan.join("wwan1") };
        for port in ["wwan0at0", "wwan0mbim0", "wwan0qcdm0"] {
            let copy = device.join(format!("{port}.new"));
            fs::create_dir_all(&copy).unwrap();
            for attribute in ["type", "dev"] {
                fs::copy(wwan.join("wwan0").join(port).join(attribute), copy.join(attribute)).unwrap();
            }
        }
        for port in ["wwan0at0", "wwan0mbim0", "wwan0qcdm0"] {
            fs::remove_dir_all(wwan.join("wwan0").join(port)).unwrap();
            fs::rename(device.join(format!("{port}.new")), device.join(port)).unwrap();
        }
        if attempt != 2 {
            fs::remove_dir_all(wwan.join("wwan0")).unwrap();
            fs::rename(device, wwan.join("wwan0")).unwrap();
        }
    }
    // `apply` tries again.
    fs::create_dir(root.0.join("proc")).unwrap();
    let ended = root.run(&["apply", ADDRESS]);
    assert!(ended.code == 1 && ended.stdout.contains("/dev/wwan0mbim0 does not exist"), "{ended:?}");
    // The command of the unit after sleep.
    let planned = root.run(&["apply", "--unit", "--unlock", "--dry-run"]).stdout;
    assert!(planned.contains("fcc-auth: quectel over MBIM on /dev/wwan0mbim0"), "{planned}");
}

/// `apply` was asked for this modem, and fails. A trigger and the unit after sleep were not.
#[test]
fn a_port_that_another_program_holds_suppresses_the_unlock() {
    let root = Root::new();
    let function = rm520n(&root);
    let devpath = format!("{}/mhi0/wwan/wwan0/wwan0mbim0", function.trim_start_matches("/sys"));
    // Only the number and the name of the node count.
    root.write(&format!("/sys{devpath}/dev"), "1:3\n");
    symlink("/dev/null", root.0.join("wwan0mbim0")).unwrap();
    root.write("/proc/812/comm", "quectel-CM\n");
    fs::create_dir(root.0.join("proc/812/fd")).unwrap();
    symlink(root.0.join("wwan0mbim0"), root.0.join("proc/812/fd/3")).unwrap();
    root.policy("[timeouts]\nmodem-ready = 1\n");

    let coldplug = [&port_event(&devpath)[..], &[("SYNTH_UUID", "0")]].concat();
    for (ended, code, result) in [
        (root.hook(&coldplug), 0, "suppressed"),
        (root.run(&["apply", "--unit", "--unlock"]), 0, "suppressed"),
        (root.run(&["apply", ADDRESS]), 1, "failed"),
    ] {
        let node = root.0.join("dev/wwan0mbim0");
        let text = format!("fcc-auth: {result}: {} is held by quectel-CM (812)", node.display());
        assert!(ended.code == code && (ended.stdout.clone() + &ended.stderr).contains(&text), "{ended:?}");
    }

    // A proxy that accepts no connection.
    root.write("/proc/812/comm", "mbim-proxy\n");
    for (arguments, code, result) in
        [(&["apply", "--unit", "--unlock"][..], 0, "suppressed"), (&["apply", ADDRESS], 1, "failed")]
    {
        let ended = root.run(arguments);
        let said = (ended.stdout.clone() + &ended.stderr).contains(&format!("fcc-auth: {result}: mbim-proxy holds "));
        assert!(ended.code == code && said, "{ended:?}");
    }

    // The program lets go while the unit still has time. This root has no device node.
    root.policy("[timeouts]\nmodem-ready = 60\n");
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            fs::remove_dir_all(root.0.join("proc/812")).unwrap();
        });
        root.run(&["apply", "--unit", "--unlock"])
    });
    assert!(
        ended.stderr.contains("fcc-auth: failed: ") && ended.stderr.contains("wwan0mbim0 does not exist"),
        "{ended:?}"
    );
}

#[test]
fn the_policy_of_one_modem_is_found_by_id_serial_number_and_address() {
    for (key, value) in [("id", "pci:1eac:1007"), ("serial", "1234567890"), ("port", ADDRESS)] {
        let root = Root::new();
        rm520n(&root);
        let other = root.pci("0000:09:00.0", "1eac:1001 1eac:1001", "mhi-pci-generic");
        root.wwan_port(&format!("{other}/mhi0"), "mbim1");
        root.policy(&format!("[[device]]\nmatch = {{ {key} = \"{value}\" }}\nfcc-auth = false\n"));
        let explain = |name| root.run(&["explain", name]).stdout;
        assert!(explain(ADDRESS).contains("fcc-auth: suppressed: `fcc-auth = false`"), "{key}: {}", explain(ADDRESS));
        assert!(explain("0000:09:00.0").contains("policy  fcc-auth = true"), "{key}");
    }
    let root = Root::new();
    root.policy("[[device]]\nmatch = { port = \"08:00.0\" }\nfcc-auth = false\n");
    let said = root.run(&["check"]).stdout;
    assert!(said.contains("config.toml:2:18: expected a port such as \"1-1.2\" or \"0000:08:00.0\""), "{said}");
    for (selector, expected) in [
        ("id = \"1eac:1007\"", "2:17: no entry has the USB ID 1eac:1007; did you mean pci:1eac:1007?"),
        (
            "port = \"0000:08:00.0\", id = \"1EAC:1007\"",
            "2:18: no modem has both: the port is on PCI, and 1eac:1007 is a USB ID",
        ),
        (
            "id = \"pci:1eac:1007\", port = \"1-1\"",
            "2:40: no modem has both: the port is on USB, and pci:1eac:1007 is a PCI ID",
        ),
        ("serial = \"\"", "2:20: no modem has an empty serial number"),
    ] {
        root.policy(&format!("[[device]]\nmatch = {{ {selector} }}\nfcc-auth = false\n"));
        let ended = root.run(&["check"]);
        assert!(ended.stdout.starts_with(&format!("/etc/wwan-quirks/config.toml:{expected}")), "{selector}: {ended:?}");
        assert_eq!(ended.code, 3, "{selector}");
    }
    // An ID in no entry may belong to a modem that the database does not know.
    root.policy("[[device]]\nmatch = { id = \"1234:5678\" }\nfcc-auth = false\n");
    assert_eq!(root.run(&["check"]).code, 0);
}
