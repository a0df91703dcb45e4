//! The verbs for people: `doctor`, `report` and `status`.

mod fake;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use fake::{Root, install_mode, mc7710};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::mkfifo;

/// A root without a problem.
fn healthy() -> Root {
    let root = Root::new();
    root.write("usr/lib/udev/rules.d/85-wwan-quirks.rules", include_str!("../udev-rules/85-wwan-quirks.rules"));
    root.write("usr/sbin/wwan-quirks", "");
    root.write("proc/sys/kernel/osrelease", "6.1.0\n");
    let drivers = ["usb/class/cdc-wdm.ko", "net/usb/qmi_wwan.ko.xz", "net/usb/cdc_mbim.ko", "usb/serial/qcserial.ko"];
    let dep: String = drivers.iter().map(|driver| format!("kernel/drivers/{driver}:\n")).collect();
    root.write("lib/modules/6.1.0/modules.dep", dep);
    root.write("lib/modules/6.1.0/modules.builtin", "kernel/drivers/usb/serial/option.ko\n");
    root
}

/// The only finding of `doctor` on `root`.
fn only_finding(root: &Root) -> String {
    let ended = root.run(&["doctor"]);
    assert_eq!((ended.code, ended.stdout.matches("  remedy: ").count()), (1, 1), "{}", ended.stdout);
    ended.stdout
}

#[test]
fn doctor_finds_no_problem_on_a_healthy_system() {
    let root = healthy();
    // usb_modeswitch is installed, and its drop-in excludes our devices.
    let rules = "ATTR{idVendor}==\"1199\", ATTR{idProduct}==\"0fff\", RUN+=\"usb_modeswitch '%b/%k'\"\n";
    root.write("usr/lib/udev/rules.d/40-usb_modeswitch.rules", rules);
    root.write("usr/lib/systemd/system/usb_modeswitch@.service.d/wwan-quirks.conf", "[Unit]\n");
    let ended = root.run(&["doctor"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "no problems found\n"));
    // Only systemd reads the drop-in.
    fs::create_dir(root.0.join("run/udev")).unwrap();
    let said = only_finding(&root);
    assert!(said.starts_with("usb_modeswitch also switches 1 IDs of this database: "), "{said}");
    assert!(
        said.ends_with(
            "  remedy: ln -s /dev/null /etc/udev/rules.d/40-usb_modeswitch.rules && udevadm control --reload\n"
        ),
        "{said}"
    );
}

/// The packaged rules still keep usb_modeswitch away.
#[test]
fn doctor_finds_devices_that_no_program_switches() {
    let root = healthy();
    root.write(
        "usr/lib/udev/rules.d/40-usb_modeswitch.rules",
        "ATTRS{idVendor}==\"12d1\", ATTR{bInterfaceClass}==\"08\", RUN+=\"usb_modeswitch '%b/%k'\"\n\
         ATTR{idVendor}==\"1199\", ATTR{idProduct}==\"0fff\", RUN+=\"usb_modeswitch '/%k'\"\n",
    );
    root.write("usr/lib/systemd/system/usb_modeswitch@.service.d/wwan-quirks.conf", "[Unit]\n");
    for (file, expected) in [
        ("1199-sierra.toml", "1 IDs, such as 1199:0fff: "),
        ("12d1-huawei.toml", " IDs, such as 12d1:"),
        ("0421-nokia.toml", ""),
    ] {
        let mask = root.0.join("etc/wwan-quirks/quirks.d").join(file);
        symlink("/dev/null", &mask).unwrap();
        if !expected.is_empty() {
            let found = only_finding(&root);
            assert!(found.starts_with("no program switches ") && found.contains(expected), "{found}");
            root.write("etc/udev/rules.d/85-wwan-quirks.rules", root.run(&["rules"]).stdout);
        }
        assert_eq!(root.run(&["doctor"]).stdout, "no problems found\n", "{file}");
        let _ = fs::remove_file(root.0.join("etc/udev/rules.d/85-wwan-quirks.rules"));
        fs::remove_file(mask).unwrap();
    }
}

#[test]
fn doctor_knows_the_device_managers_of_other_systems() {
    let lines = include_str!("../packaging/mdev/mdev.conf");
    let script = include_str!("../packaging/openwrt/wwan-quirks.hotplug");
    let procd = "/etc/hotplug.d/usb/20-wwan-quirks";
    for (manager, file, right, wrong) in [("mdev", "/etc/mdev.conf", lines, ""), ("procd", procd, script, "exit\n")] {
        let root = healthy();
        fs::remove_file(root.0.join("usr/lib/udev/rules.d/85-wwan-quirks.rules")).unwrap();
        root.write(&file[1..], right);
        assert_eq!(root.run(&["doctor"]).stdout, "no problems found\n");
        for wrong in [wrong, "# wwan-quirks hook\n"] {
            root.write(&file[1..], wrong);
            let said = only_finding(&root);
            assert!(
                said.starts_with(&format!("{manager} does not run wwan-quirks: {file} has no line for it")),
                "{said}"
            );
        }
    }
}

#[test]
fn doctor_finds_what_mdev_and_openrc_do_not_run() {
    let lines = include_str!("../packaging/mdev/mdev.conf");
    let root = healthy();
    root.write("etc/mdev.conf", format!("-.* root:root 660 @true\n#.* 0:0 660\n{lines}\n.* root:root 660\n"));
    assert_eq!(root.run(&["doctor"]).stdout, "no problems found\n");
    root.write("etc/mdev.conf", format!("null root:root 666\n.*\troot:root 660\n{lines}"));
    let said = only_finding(&root);
    assert!(
        said.starts_with("mdev does not run wwan-quirks: in /etc/mdev.conf, a line for all devices (.*) "),
        "{said}"
    );

    // An upgrade has changed the lines.
    root.write("usr/share/wwan-quirks/mdev.conf", lines);
    root.write("etc/mdev.conf", lines.replace("/usr/sbin/", "/usr/local/sbin/"));
    let said = only_finding(&root);
    assert!(said.starts_with("/etc/mdev.conf has outdated lines of wwan-quirks: it lacks `-SUBSYSTEM=usb;"), "{said}");

    // mdev accepts any blanks.
    root.write("etc/mdev.conf", lines.replace('\t', "  "));
    assert_eq!(root.run(&["doctor"]).stdout, "no problems found\n");
    root.write("etc/init.d/wwan-quirks", "");
    fs::create_dir_all(root.0.join("etc/runlevels/default")).unwrap();
    let said = only_finding(&root);
    assert!(said.starts_with("OpenRC does not start /etc/init.d/wwan-quirks: "), "{said}");
    symlink("/etc/init.d/wwan-quirks", root.0.join("etc/runlevels/default/wwan-quirks")).unwrap();
    assert_eq!(root.run(&["doctor"]).stdout, "no problems found\n");
}

fn selinux_denial(root: &Root) {
    root.write("sys/fs/selinux/enforce", "1");
    let log = "avc:  denied  { write } comm=\"wwan-quirks\"\navc:  denied  { write } comm=\"other\"\n";
    root.write("var/log/audit/audit.log", log);
}

#[test]
fn each_problem_is_found_with_its_remedy() {
    type Failure = (&'static str, fn(&Root));
    let failures: [Failure; 23] = [
        ("own.toml:3:7: this entry does not apply to modems that the narrower entry at /usr/share/", |root| {
            let quirk =
                "schema = 1\n[[device]]\nid = \"8888:6500\"\nname = \"x\"\nproduct = \"CDMA USB\"\nsteps = []\n";
            root.write("etc/wwan-quirks/quirks.d/own.toml", quirk);
        }),
        ("config.toml:2:17: no entry of the database has this ID: these settings have no effect", |root| {
            root.policy("[[device]]\nmatch = { id = \"12d1:1466\" }\nswitch = false\n");
        }),
        ("/etc/wwan-quirks/policy.toml: not read: the program reads only config.toml, ", |root| {
            root.write("etc/wwan-quirks/policy.toml", "switch = false\n");
        }),
        ("compositions.toml:1:10: unsupported schema 9 (expected 1)", |root| {
            root.write("etc/wwan-quirks/compositions.toml", "schema = 9\n");
        }),
        ("config.toml:2:17: no entry has the USB ID 1eac:1001; did you mean pci:1eac:1001?", |root| {
            root.policy("[[device]]\nmatch = { id = \"1eac:1001\" }\nfcc-auth = false\n");
        }),
        ("own.toml:3:8: the entry lists this ID twice\n  remedy: correct the file", |root| {
            let quirk = "schema = 1\n[[device]]\nid = [\"1199:0fff\", \"1199:0fff\"]\nname = \"x\"\nsteps = []\n";
            root.write("etc/wwan-quirks/quirks.d/own.toml", quirk);
        }),
        ("usb_modeswitch also switches 2 IDs of this database", |root| {
            root.write(
                "lib/udev/rules.d/40-usb_modeswitch.rules",
                "ATTR{idVendor}==\"1199\", ATTR{idProduct}==\"0fff\", RUN+=\"usb_modeswitch '%b/%k'\"\n\
                 ATTR{idVendor}==\"12d1\", ATTR{idProduct}==\"1446\", RUN+=\"usb_modeswitch '%b/%k'\"\n\
                 ATTR{idVendor}==\"ffff\", ATTR{idProduct}==\"0001\", RUN+=\"usb_modeswitch '%b/%k'\"\n",
            );
        }),
        ("usbmode switches the same devices", |root| root.write("etc/init.d/usbmode", "")),
        ("usb-storage keeps Sierra modems in install mode", |root| {
            root.write("sys/module/usb_storage/parameters/swi_tru_install", "2\n");
        }),
        ("this kernel lacks the driver cdc_mbim", |root| {
            let path = "lib/modules/6.1.0/modules.dep";
            root.write(path, root.read(path).replace("cdc_mbim", "cdc_other"));
        }),
        ("ModemManager also unlocks 1199:9079", |root| {
            root.write("etc/ModemManager/fcc-unlock.d/1199:9079", "");
            root.write("etc/ModemManager/fcc-unlock.d/1234:5678", "");
            root.write("etc/ModemManager/fcc-unlock.d/1199", "");
        }),
        ("udev has no rules for wwan-quirks", |root| {
            fs::create_dir_all(root.0.join("etc/udev/rules.d")).unwrap();
            symlink("/dev/null", root.0.join("etc/udev/rules.d/85-wwan-quirks.rules")).unwrap();
        }),
        ("/1199-own.toml: 1199:aaaa, 1199:aaab\n  remedy: wwan-quirks check && wwan-quirks rules >", |root| {
            let quirk = "schema = 1\n[[device]]\nid = [\"1199:aaaa\", \"1199:aaab\"]\nname = \"x\"\nsteps = [{ switch = \"sierra\" }]\n";
            root.write("etc/wwan-quirks/quirks.d/1199-own.toml", quirk);
        }),
        ("runs /usr/sbin/wwan-quirks, which does not exist", |root| {
            fs::remove_file(root.0.join("usr/sbin/wwan-quirks")).unwrap();
        }),
        ("runs /usr/local/sbin/wwan-quirks, which does not exist\n  remedy: wwan-quirks check && ", |root| {
            let rules = include_str!("../udev-rules/85-wwan-quirks.rules").replace("/usr/sbin/", "/usr/local/sbin/");
            root.write("etc/udev/rules.d/86-wwan-quirks-local.rules", rules);
        }),
        // A file that `doctor` itself suggests.
        (
            "runs /usr/local/sbin/wwan-quirks, which does not exist\n  remedy: wwan-quirks check && wwan-quirks rules \
             >/etc/udev/rules.d/85-wwan-quirks.rules && ",
            |root| {
                let rules =
                    include_str!("../udev-rules/85-wwan-quirks.rules").replace("/usr/sbin/", "/usr/local/sbin/");
                root.write("etc/udev/rules.d/85-wwan-quirks.rules", rules);
            },
        ),
        ("\n  remedy: wwan-quirks check && wwan-quirks rules >/etc/udev/rules.d/85-wwan-quirks.rules && ", |root| {
            let rules = include_str!("../udev-rules/85-wwan-quirks.rules").replace("0fff|68a2|68a9", "68a2|68a9");
            root.write("etc/udev/rules.d/85-wwan-quirks.rules", rules);
        }),
        ("runs /usr/local/sbin/wwan-quirks, which does not exist\n  remedy: reinstall the package\n", |root| {
            let rules = include_str!("../udev-rules/85-wwan-quirks.rules").replace("/usr/sbin/", "/usr/local/sbin/");
            root.write("usr/local/lib/udev/rules.d/85-wwan-quirks.rules", rules);
            fs::create_dir_all(root.0.join("etc/udev/rules.d")).unwrap();
            let link = root.0.join("etc/udev/rules.d/85-wwan-quirks.rules");
            symlink("../../../usr/local/lib/udev/rules.d/85-wwan-quirks.rules", link).unwrap();
        }),
        ("users other than root can change /usr/sbin/wwan-quirks", |root| {
            fs::set_permissions(root.0.join("usr/sbin/wwan-quirks"), fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("the modem on 1-1, Sierra Wireless MC7710, is not authorized", |root| {
            let device = root.plug("1-1", "1199:68a2", &mc7710());
            root.write(&format!("{device}/authorized"), "0\n");
        }),
        ("remedy: modprobe option && echo 3566 2001 ff >/sys/bus/usb-serial/drivers/option1/new_id", |root| {
            let device = root.plug("1-1", "3566:2001", &mc7710());
            root.write(&format!("{device}/1-1:1.8/bInterfaceNumber"), "08\n");
        }),
        ("SELinux denials for wwan-quirks: 1 (/var/log/audit/audit.log)\n  remedy: ausearch ", selinux_denial),
        (
            "\n  remedy: semodule -i /usr/share/wwan-quirks/wwan-quirks.cil && \
             { [ ! -d /run/wwan-quirks ] || restorecon -R /run/wwan-quirks; }; if ",
            |root| {
                root.write("usr/share/wwan-quirks/wwan-quirks.cil", "");
                selinux_denial(root);
            },
        ),
    ];
    for (expected, make) in failures {
        let root = healthy();
        make(&root);
        let said = only_finding(&root);
        assert!(said.contains(expected), "{said}");
    }
}

/// The policy may be correct.
#[test]
fn a_missing_database_is_the_only_finding() {
    let root = healthy();
    root.policy("[[device]]\nmatch = { id = \"1199:9079\" }\nswitch = false\n");
    assert_eq!(root.run(&["doctor"]).stdout, "no problems found\n");
    fs::remove_dir_all(root.0.join("usr/share/wwan-quirks/quirks.d")).unwrap();
    let said = only_finding(&root);
    assert!(said.starts_with("the database is missing: there is no /usr/share/wwan-quirks/quirks.d\n"), "{said}");
}

#[test]
fn a_pipe_in_place_of_the_rules_does_not_block() {
    let root = healthy();
    fs::create_dir_all(root.0.join("etc/udev/rules.d")).unwrap();
    mkfifo(&root.0.join("etc/udev/rules.d/85-wwan-quirks.rules"), Mode::S_IRUSR).unwrap();
    let said = only_finding(&root);
    let expected = "not checked: /etc/udev/rules.d/85-wwan-quirks.rules: not a regular file\n";
    assert!(said.contains(expected), "{said}");
    assert_eq!(root.run(&["check"]).code, 0);
}

/// Without root, many files cannot be read.
#[test]
fn doctor_says_that_it_has_not_checked_all() {
    let root = healthy();
    root.write("sys/fs/selinux/enforce", "1");
    fs::create_dir_all(root.0.join("var/log/audit/audit.log")).unwrap();
    let said = root.run(&["doctor"]).stdout;
    let as_root =
        if nix::unistd::geteuid().is_root() { "" } else { "; run `wwan-quirks doctor` as root to check the rest" };
    let expected = format!("no problems found in the files that could be read{as_root}\n");
    assert!(said.starts_with("not checked: /var/log/audit/audit.log: ") && said.ends_with(&expected), "{said}");
    let json: serde_json::Value = serde_json::from_str(&root.run(&["doctor", "--json"]).stdout).unwrap();
    assert_eq!(json["unreadable"][0]["path"], "/var/log/audit/audit.log");
}

/// A container may lack the host's buses.
#[test]
fn doctor_says_that_it_has_checked_no_modem() {
    let root = healthy();
    fs::remove_dir_all(root.0.join("sys/bus/usb")).unwrap();
    assert_eq!(root.run(&["doctor"]).stdout, "no problems found\n");
    fs::remove_dir_all(root.0.join("sys/bus/pci")).unwrap();
    let ended = root.run(&["doctor"]);
    assert!(
        ended.code == 0 && ended.stdout.starts_with("not checked: /sys/bus: found neither a USB nor a PCI bus"),
        "{ended:?}"
    );
    // An image has no bus.
    fs::remove_dir_all(root.0.join("sys/bus")).unwrap();
    assert_eq!(root.run(&["doctor"]).stdout, "no problems found\n");
}

#[test]
fn an_invalid_policy_is_a_problem_in_json_too() {
    let root = healthy();
    root.policy("prefer = \"frob\"\n");
    let ended = root.run(&["doctor", "--json"]);
    assert_eq!(ended.code, 1);
    let diagnosis: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let finding = diagnosis["problems"][0]["problem"].as_str().unwrap();
    assert!(finding.contains("/etc/wwan-quirks/config.toml:1:"), "{finding}");
}

#[test]
fn a_report_has_what_the_software_modem_loads_and_no_identifiers() {
    const IMEI: &str = "358178040012345";
    let root = Root::new();
    let descriptors = mc7710();
    let device = root.plug("1-1", "1199:68a2", &descriptors);
    root.control_port("1-1", "1.8", "qmi_wwan", "cdc-wdm0");
    root.write(&format!("{device}/product"), format!("MC7710 {IMEI}\n"));
    let last = r#"{"at":1,"outcome":"failed","text":"LF53920000010 at 02:00:5e:10:00:0a"}"#;
    root.results("1-1", &format!(r#""last":{{"fcc-auth":{last}}}"#));
    for arguments in [&["report", "1-1"][..], &["report", "1199:68a2", "--json"]] {
        let ended = root.run(arguments);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        for planted in [IMEI, "LF53920000010", "02:00:5e:10:00:0a"] {
            assert!(!ended.stdout.contains(planted), "{}", ended.stdout);
        }
    }
    let report = root.run(&["report", "/dev/cdc-wdm0"]).stdout;
    let hex: String = descriptors.iter().map(|byte| format!("{byte:02x}")).collect();
    for line in [
        &format!("descriptors = {hex}"),
        "manufacturer = Sierra Wireless, Incorporated",
        "product = MC7710 xxxxxxxxxxxxxxx",
        "bound = interface 8: qmi_wwan cdc-wdm0",
        "last = fcc-auth: failed: xxxxxxxxxxxxx at xxxxxxxxxxxxxxxxx",
    ] {
        assert!(report.lines().any(|one| one == line), "{line} in {report}");
    }
    let json: serde_json::Value = serde_json::from_str(&root.run(&["report", "1-1", "--json"]).stdout).unwrap();
    assert_eq!(json["attributes"]["serial"], "xxxxxxxxxxxxx");
    assert_eq!(json["attributes"]["product"], "MC7710 xxxxxxxxxxxxxxx");
    assert_eq!(json["interfaces"][0]["driver"], "qmi_wwan");
    assert_eq!(json["last"]["fcc-auth"]["text"], "xxxxxxxxxxxxx at xxxxxxxxxxxxxxxxx");
    assert_eq!(root.run(&["report", "1-2"]).code, 2);
}

#[test]
fn a_report_masks_short_and_odd_serial_numbers_and_names_of_network_interfaces() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.control_port("1-1", "1.8", "qmi_wwan", "cdc-wdm0");
    root.write(&format!("{device}/1-1:1.8/net/wwx0a1b2c3d4e5f/flags"), "0x1003\n");
    for (serial, masked) in [("LF\u{1}539-abc", "xxxxxxxxxx"), ("abc", "xxx"), ("1199", "xxxx")] {
        root.write(&format!("{device}/serial"), format!("{serial}\n"));
        let report = root.run(&["report", "1-1"]).stdout;
        assert!(report.contains(&format!("\nserial = {masked}\n")), "{report}");
        assert!(report.contains("\nid = 1199:68a2\n") && report.contains("/1199-sierra.toml:"), "{report}");
        assert!(report.contains(" wwxxxxxxxxxxxxx") && !report.contains("0a1b2c3d4e5f"), "{report}");
    }
}

#[test]
fn status_shows_problems_until_they_are_solved() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.control_port("1-1", "1.8", "qmi_wwan", "cdc-wdm0");
    let said = root.run(&["status"]).stdout;
    let lines: Vec<&str> = said.lines().take(3).collect();
    let expected = [
        "1-1 1199:68a2 Sierra Wireless MC7710",
        "  mode            modem",
        "  problem         configuration: not done yet; run `wwan-quirks apply 1-1`",
    ];
    assert_eq!(lines, expected);

    root.write(&format!("{device}/bConfigurationValue"), "2\n");
    let ended = |outcome: &str, text: &str| {
        let last = format!(r#"{{"at":1,"outcome":"{outcome}","text":"{text}"}}"#);
        root.results("1-1", &format!(r#""last":{{"fcc-auth":{last}}},"radio":{last}"#));
        root.run(&["status", "1-1"]).stdout
    };
    let said = ended("failed", "no answer: look");
    assert!(said.contains("problem         fcc-auth: failed: no answer: look"), "{said}");
    let said = ended("done", "unlocked");
    assert!(!said.contains("problem") && said.contains(" ago: unlocked"), "{said}");
    let suppressed = ended("suppressed", "the port is held");
    let problem = "problem         fcc-auth: not done yet (suppressed ";
    assert!(suppressed.contains(problem), "{suppressed}");
    assert!(suppressed.contains(" ago: the port is held); run `wwan-quirks apply 1-1`"), "{suppressed}");
    ended("done", "unlocked");
    let json: serde_json::Value = serde_json::from_str(&root.run(&["status", "--json"]).stdout).unwrap();
    let device = &json["devices"][0];
    assert_eq!((&device["last"]["fcc-auth"]["outcome"], &device["product"]), (&"done".into(), &"MC7710".into()));
}

/// The driver of the port is missing.
#[test]
fn a_missing_port_is_a_problem_and_printed_once() {
    let root = Root::new();
    root.plug("1-1", "1199:9071", &mc7710());
    root.policy("prefer = \"keep\"\n");
    let reason = "the modem has no QMI or MBIM port; check that the drivers qmi_wwan and cdc_mbim are loaded; \
                  see `wwan-quirks doctor`";
    let problem = format!("  problem         fcc-auth: not possible: {reason}\n");
    let said = root.run(&["status"]).stdout;
    assert!(said.contains(&problem) && !said.contains("suppressed"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&root.run(&["apply", "--dry-run", "--json"]).stdout).unwrap();
    assert_eq!(json["devices"][0]["plan"].as_array().unwrap().last().unwrap()["decision"], "not-possible");
    let ended = root.run(&["apply", "1-1"]);
    assert!(ended.code == 1 && ended.stdout.contains(&format!("fcc-auth: failed: {reason}")), "{ended:?}");
    let said = root.run(&["status"]).stdout;
    assert!(said.contains(&problem) && said.contains("fcc-auth: failed, "), "{said}");
    assert_eq!(said.matches("no QMI or MBIM port").count(), 1, "{said}");
}

#[test]
fn status_of_another_modem_on_the_port_shows_nothing_of_the_first_one() {
    let root = Root::new();
    root.plug("1-1", "1199:9071", &mc7710());
    let done = r#"{"at":1,"outcome":"done","text":"unlocked","id":"1199:9071","online":true}"#;
    root.results("1-1", &format!(r#""last":{{"fcc-auth":{done}}},"radio":{done}"#));
    assert_eq!(root.run(&["status", "1-1"]).stdout.matches("unlocked, ").count(), 1);
    fs::rename(root.0.join("sys/devices/pci0000:00/usb1/1-1"), root.0.join("sys/removed")).unwrap();
    fs::remove_file(root.0.join("sys/bus/usb/devices/1-1")).unwrap();
    root.plug("1-1", "1199:9079", &mc7710());
    let said = root.run(&["status", "1-1"]).stdout;
    assert!(!said.contains("unlocked") && !said.contains("last results"), "{said}");
    // A run on the new modem does not take the old result for its own.
    root.run(&["apply", "1-1"]);
    assert!(!root.read("run/wwan-quirks/state/1-1").contains("1199:9071"));
}

/// The state of a port whose device had the ID `id` and left install mode `ago` seconds ago, without suspend. It was
/// recorded when the machine booted, and the machine was suspended since.
fn switched(id: &str, ago: i64) -> String {
    let awake = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_secs() as i64 - ago;
    format!(r#"{{"last":{{"switch":{{"at":0,"awake":{awake},"outcome":"done","text":"it left","id":"{id}"}}}}}}"#)
}

#[test]
fn status_names_what_a_stick_has_become() {
    let root = Root::new();
    // The network card itself has no entry.
    let device = root.plug("1-1", "12d1:14dc", &mc7710());
    root.write(&format!("{device}/power/connected_duration"), "600000\n");
    for verb in [&["status"][..], &["apply"], &["apply", "--dry-run"]] {
        assert_eq!(root.run(verb).stdout, "no known modem is plugged in\n", "{verb:?}");
    }
    root.write("run/wwan-quirks/state/1-1", switched("12d1:1f01", 605));
    let said = root.run(&["status"]).stdout;
    assert!(said.starts_with("1-1 12d1:14dc HiLink network card\n"), "{said}");
    assert!(said.contains("it left; 12d1:1f01 came back as 12d1:14dc, HiLink network card\n"), "{said}");
    assert!(!said.contains("radio"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&root.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["devices"][0]["came-from"], "12d1:1f01");
    // If no entry has a name for it, the device's own name is shown.
    root.write("run/wwan-quirks/state/1-1", switched("12d1:1446", 605));
    assert!(root.run(&["status"]).stdout.starts_with("1-1 12d1:14dc MC7710\n"));
    // A device that is plugged in later is another device.
    root.write("run/wwan-quirks/state/1-1", switched("12d1:1f01", 700));
    assert_eq!(root.run(&["status"]).stdout, "no known modem is plugged in\n");
}

#[test]
fn the_return_from_a_switch_is_reported_once() {
    let root = Root::new();
    root.plug("1-1", "1199:68a2", &mc7710());
    root.write("run/wwan-quirks/state/1-1", switched("1199:0fff", 2));
    let text = "switch: nothing to do: 1199:0fff came back as 1199:68a2, Sierra Wireless MC7710";
    let said = root.run(&["apply", "1-1"]).stdout;
    assert!(said.contains(text), "{said}");
    let said = root.run(&["apply", "1-1"]).stdout;
    assert!(!said.contains("switch:"), "{said}");
}

/// Most sticks become a device that needs nothing. It may be there before the unit starts to watch the switch.
#[test]
fn a_unit_that_finds_what_the_stick_has_become_reports_the_return_and_does_not_fail() {
    let root = Root::new();
    root.plug("1-1", "12d1:14dc", &mc7710());
    let unit = || root.run(&["apply", "--unit", "1-1"]);
    root.write("run/wwan-quirks/state/1-1", switched("12d1:1f01", 2).replace("done", "unfinished"));
    let ended = unit();
    let text = "1-1 12d1:14dc HiLink network card: switch: done: 12d1:1f01 came back as 12d1:14dc, HiLink network card";
    assert!(ended.code == 0 && ended.stderr.contains(text), "{ended:?}");
    assert!(root.run(&["status"]).stdout.contains("switch: done"));
    let again = unit();
    assert!(again.code == 0 && !again.stderr.contains("came back"), "{again:?}");
    // Another device without a quirk is on the port.
    root.write("run/wwan-quirks/state/1-1", "");
    let other = unit();
    assert!(other.code == 0 && other.stderr.is_empty(), "{other:?}");
    assert_eq!(root.run(&["apply", "1-1"]).code, 1);
}

/// If no entry has a name for what a stick has become, messages have the device's own string.
#[test]
fn a_devices_own_string_is_escaped_in_the_journal_and_on_the_terminal() {
    let root = Root::new();
    let device = root.plug("1-1", "12d1:14dc", &mc7710());
    root.write(&format!("{device}/product"), "a\nPRIORITY=0\n\u{1b}[2J\u{202e}b\n");
    root.write("run/wwan-quirks/state/1-1", switched("12d1:1446", 2));
    fs::create_dir_all(root.0.join("run/systemd/journal")).unwrap();
    let journal = UnixDatagram::bind(root.0.join("run/systemd/journal/socket")).unwrap();
    journal.set_nonblocking(true).unwrap();
    assert_eq!(root.run(&["apply", "--unit", "1-1"]).code, 0);
    let mut entry = [0; 4096];
    let length = journal.recv(&mut entry).unwrap();
    let entry = String::from_utf8_lossy(&entry[..length]);
    let name = "a\\u{a}PRIORITY=0\\u{a}\\u{1b}[2J\\u{202e}b";
    assert!(entry.starts_with(&format!("MESSAGE=1-1 12d1:14dc {name}: switch: ")), "{entry}");
    assert_eq!(entry.lines().filter(|line| line.starts_with("PRIORITY=")).count(), 1, "{entry}");
    let shown = root.run(&["status"]).stdout;
    assert!(shown.starts_with(&format!("1-1 12d1:14dc {name}\n")), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
}

#[test]
fn a_verbose_plan_has_every_message_in_hex() {
    let root = Root::new();
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    root.control_port("1-1", "1.8", "qmi_wwan", "cdc-wdm0");
    root.write(&format!("{device}/bConfigurationValue"), "2\n");
    let message = "DMS Set FCC Authentication: 010c000002000000005f550000";
    for verb in [&["explain", "1-1"][..], &["apply", "--dry-run"]] {
        assert!(!root.run(verb).stdout.contains(message));
        let said = root.run(&[verb, &["-v"]].concat()).stdout;
        assert!(said.contains(message), "{said}");
    }
}

#[test]
fn an_empty_plan_and_a_run_without_a_step_say_the_same() {
    let root = Root::new();
    root.plug("1-1", "1199:0fff", &install_mode());
    for arguments in [&["apply", "--unlock", "1-1"][..], &["apply", "--unlock", "1-1", "--dry-run"]] {
        let ended = root.run(arguments);
        let expected = "1-1 1199:0fff Sierra Wireless, TRU-Install mode: nothing to do\n";
        assert_eq!((ended.code, ended.stdout.as_str()), (0, expected), "{arguments:?}");
    }
}
