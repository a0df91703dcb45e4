//! What a person is told: `doctor` and `report`.

mod fake;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use fake::{Root, mc7710};

/// A root on which nothing stands in the way.
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

/// What `doctor` says of `root`, which is expected to be one finding.
fn only_finding(root: &Root) -> String {
    let ended = root.run(&["doctor"]);
    assert_eq!((ended.code, ended.stdout.matches("  cure: ").count()), (1, 1), "{}", ended.stdout);
    ended.stdout
}

#[test]
fn where_nothing_stands_in_the_way_the_doctor_says_so() {
    let root = healthy();
    // Installed, and told what to leave alone.
    let rules = "ATTR{idVendor}==\"1199\", ATTR{idProduct}==\"0fff\", RUN+=\"usb_modeswitch '%b/%k'\"\n";
    root.write("usr/lib/udev/rules.d/40-usb_modeswitch.rules", rules);
    root.write("usr/lib/systemd/system/usb_modeswitch@.service.d/wwan-quirks.conf", "[Unit]\n");
    let ended = root.run(&["doctor"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "nothing stands in the way\n"));
}

#[test]
fn each_trouble_is_found_with_its_cure() {
    type Failure = (&'static str, fn(&Root));
    let troubles: [Failure; 11] = [
        ("usb_modeswitch switches 2 of the same IDs", |root| {
            root.write(
                "lib/udev/rules.d/40-usb_modeswitch.rules",
                "ATTR{idVendor}==\"1199\", ATTR{idProduct}==\"0fff\", RUN+=\"usb_modeswitch '%b/%k'\"\n\
                 ATTR{idVendor}==\"12d1\", ATTR{idProduct}==\"1446\", RUN+=\"usb_modeswitch '%b/%k'\"\n\
                 ATTR{idVendor}==\"ffff\", ATTR{idProduct}==\"0001\", RUN+=\"usb_modeswitch '%b/%k'\"\n",
            );
        }),
        ("usbmode switches the same devices", |root| root.write("etc/init.d/usbmode", "")),
        ("keep Sierra's modems in install mode", |root| {
            root.write("sys/module/usb_storage/parameters/swi_tru_install", "2\n");
        }),
        ("this kernel has no cdc_mbim", |root| {
            let path = "lib/modules/6.1.0/modules.dep";
            root.write(path, root.read(path).replace("cdc_mbim", "cdc_other"));
        }),
        ("ModemManager unlocks 1199:9079 as well", |root| {
            root.write("etc/ModemManager/fcc-unlock.d/1199:9079", "");
            root.write("etc/ModemManager/fcc-unlock.d/1234:5678", "");
        }),
        ("udev has no rules of wwan-quirks", |root| {
            fs::create_dir_all(root.0.join("etc/udev/rules.d")).unwrap();
            symlink("/dev/null", root.0.join("etc/udev/rules.d/85-wwan-quirks.rules")).unwrap();
        }),
        (
            "calls wwan-quirks for 1199:aaaa, the administrator's quirk in /etc/wwan-quirks/quirks.d/1199-own.toml:2",
            |root| {
                let quirk =
                    "schema = 1\n[[device]]\nid = \"1199:aaaa\"\nname = \"x\"\nsteps = [{ switch = \"sierra\" }]\n";
                root.write("etc/wwan-quirks/quirks.d/1199-own.toml", quirk);
            },
        ),
        ("runs /usr/sbin/wwan-quirks, which is not there", |root| {
            fs::remove_file(root.0.join("usr/sbin/wwan-quirks")).unwrap();
        }),
        ("others than root may write /usr/sbin/wwan-quirks", |root| {
            fs::set_permissions(root.0.join("usr/sbin/wwan-quirks"), fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("it is not authorized", |root| {
            let device = root.plug("1-1", "1199:68a2", &mc7710());
            root.write(&format!("{device}/authorized"), "0\n");
        }),
        ("SELinux has denied wwan-quirks 1 calls", |root| {
            root.write("sys/fs/selinux/enforce", "1");
            let log = "avc:  denied  { write } comm=\"wwan-quirks\"\navc:  denied  { write } comm=\"other\"\n";
            root.write("var/log/audit/audit.log", log);
        }),
    ];
    for (expected, make) in troubles {
        let root = healthy();
        make(&root);
        let said = only_finding(&root);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_policy_that_is_wrong_is_a_finding_and_json_says_the_same() {
    let root = healthy();
    root.policy("prefer = \"frob\"\n");
    let ended = root.run(&["doctor", "--json"]);
    assert_eq!(ended.code, 1);
    let told: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let finding = told["problems"][0]["problem"].as_str().unwrap();
    assert!(finding.contains("/etc/wwan-quirks/config.toml:1:"), "{finding}");
}

#[test]
fn a_report_holds_what_the_software_modem_loads_and_nothing_that_identifies() {
    const IMEI: &str = "358178040012345";
    let root = Root::new();
    let descriptors = mc7710();
    let device = root.plug("1-1", "1199:68a2", &descriptors);
    root.control_port("1-1", "1.8", "qmi_wwan", "cdc-wdm0");
    root.write(&format!("{device}/product"), format!("MC7710 {IMEI}\n"));
    let last = r#"{"at":1,"outcome":"failed","text":"LF53920000010 at 02:00:5e:10:00:0a"}"#;
    let state = format!(r#"{{"last":{{"fcc-auth":{last}}}}}"#);
    root.write("run/wwan-quirks/state/1-1", state);
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
    assert_eq!(root.run(&["report", "1-2"]).code, 2);
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
        root.write("run/wwan-quirks/state/1-1", format!(r#"{{"last":{{"fcc-auth":{last}}}}}"#));
        root.run(&["status", "1-1"]).stdout
    };
    let said = ended("failed", "no answer: look");
    assert!(said.contains("problem         fcc-auth: failed: no answer: look"), "{said}");
    let said = ended("done", "unlocked");
    assert!(!said.contains("problem") && said.contains("days ago: unlocked"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&root.run(&["status", "--json"]).stdout).unwrap();
    let device = &json["devices"][0];
    assert_eq!((&device["last"]["fcc-auth"]["outcome"], &device["product"]), (&"done".into(), &"MC7710".into()));
}

#[test]
fn a_plan_is_told_byte_for_byte_where_asked() {
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
