//! The verbs for the database: `check`, `rules`, `import`, `list` and `explain`.

mod fake;

use fake::Root;

const OWN: &str = "/etc/wwan-quirks/quirks.d/own.toml";

#[test]
fn check_compares_entries_with_each_other_and_with_the_rules() {
    let root = Root::new();
    let entry = |steps: &str| format!("[[device]]\nid = \"1234:5678\"\nname = \"A\"\nsteps = {steps}\n");
    root.write(OWN, format!("schema = 1\n{}{}", entry("[{ switch = \"eject\" }]"), entry("[]")));
    let ended = root.run(&["check"]);
    assert_eq!(ended.code, 3);
    assert_eq!(
        ended.stdout,
        "/etc/wwan-quirks/quirks.d/own.toml:3:7: this entry is shadowed by /etc/wwan-quirks/quirks.d/own.toml:6, which \
         has other steps\n3 | id = \"1234:5678\"\n  |       ^^^^^^^^^\n"
    );

    // If rules are installed, `check` finds an ID that they do not name, until the administrator's rules name it.
    root.write("/usr/lib/udev/rules.d/85-wwan-quirks.rules", root.run(&["rules"]).stdout);
    root.write(OWN, format!("schema = 1\n{}", entry("[{ switch = \"eject\" }]").replace("5678", "5679")));
    let ended = root.run(&["check"]);
    let place = "/etc/wwan-quirks/quirks.d/own.toml:3:7: warning: the installed udev rules lack this ID";
    assert!(ended.code == 0 && ended.stdout.starts_with(place), "{}", ended.stdout);
    root.write("/etc/udev/rules.d/86-wwan-quirks-local.rules", root.run(&["rules"]).stdout);
    assert_eq!(root.run(&["check"]).stdout, "no errors\n");
    // Masked rules lack all IDs.
    for name in ["85-wwan-quirks.rules", "86-wwan-quirks-local.rules"] {
        root.write(&format!("/etc/udev/rules.d/{name}"), "");
    }
    assert_eq!(root.run(&["check"]).stdout, "no errors\n");
}

#[test]
fn check_reports_every_file_that_cannot_be_read() {
    let root = Root::new();
    let folder = root.0.join("etc/wwan-quirks");
    std::fs::create_dir_all(folder.join("config.d/a.toml")).unwrap();
    std::fs::create_dir_all(folder.join("quirks.d/b.toml")).unwrap();
    std::os::unix::fs::symlink("nothing", folder.join("quirks.d/c.toml")).unwrap();
    root.write("/run/wwan-quirks/quirks.d/d.toml", [0xff]);
    let ended = root.run(&["check"]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (3, 4), "{}", ended.stdout);
    for path in ["/etc/wwan-quirks/config.d/a.toml", "/etc/wwan-quirks/quirks.d/b.toml"] {
        assert!(ended.stdout.contains(&format!("{path}: cannot read: not a regular file\n")), "{}", ended.stdout);
    }
    assert!(ended.stdout.contains("quirks.d/c.toml: cannot read: No such file"), "{}", ended.stdout);
    assert!(ended.stdout.contains("/run/wwan-quirks/quirks.d/d.toml: not UTF-8\n"), "{}", ended.stdout);
    // A named file that does not exist is wrong usage.
    let ended = root.run(&["check", "/nowhere/a.toml", "/nowhere/b.toml"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("/nowhere/a.toml") && ended.stderr.contains("/nowhere/b.toml"), "{}", ended.stderr);
    assert_eq!(root.run(&["check", "/dev/null/x.toml"]).code, 2);
    // A file that is not text has a diagnostic, whether it is named or installed.
    let named = folder.join("bytes.toml");
    std::fs::write(&named, [0xff]).unwrap();
    let ended = root.run(&["check", "--json", named.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let expected = serde_json::json!({ "path": named, "line": null, "column": null, "message": "not UTF-8" });
    assert_eq!((ended.code, &json["diagnostics"][0]), (3, &expected));
    std::fs::write(&named, "").unwrap();
    let ended = root.run(&["check", named.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "no errors\n"), "an empty file masks a name: {ended:?}");
}

#[test]
fn a_lookup_reads_an_administrators_file_regardless_of_its_name() {
    let root = Root::new();
    let text = "schema = 1\n[[device]]\nid = \"1199:aaaa\"\nname = \"Mine\"\nsteps = []\n";
    for folder in ["/etc", "/run"] {
        let path = format!("{folder}/wwan-quirks/quirks.d/2025-site.toml");
        root.write(&path, text);
        let explained = root.run(&["explain", "1199:aaaa"]).stdout;
        assert!(explained.contains("Mine") && explained.contains(&path), "{explained}");
        assert_eq!(root.run(&["check"]).code, 0);
        std::fs::remove_file(root.0.join(path.trim_start_matches('/'))).unwrap();
    }
    // A shipped file is for the vendor in its name.
    root.write("/usr/share/wwan-quirks/quirks.d/2025-site.toml", text);
    let ended = root.run(&["check"]);
    assert_eq!(ended.code, 3);
    assert!(ended.stdout.contains("2025-site.toml:3:6: a lookup of 1199:aaaa does not read this file"), "{ended:?}");
}

#[test]
fn rules_are_printed_for_the_whole_database_or_not_at_all() {
    let root = Root::new();
    let broken = ["/etc/wwan-quirks/quirks.d/a.toml", "/etc/wwan-quirks/quirks.d/b.toml"];
    for path in broken {
        root.write(path, "schema = 1\n[[device]]\nid = 1\n");
    }
    let ended = root.run(&["rules"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""));
    let listed = root.run(&["list"]);
    assert!(listed.code == 3 && listed.stdout.contains("1199:9079"), "{listed:?}");
    for path in broken {
        for stderr in [&ended.stderr, &listed.stderr] {
            assert!(stderr.contains(&format!("wwan-quirks: {path}:3:6: ")), "{stderr}");
        }
    }
}

#[test]
fn a_folder_of_usb_modeswitch_files_becomes_valid_quirks() {
    let root = Root::new();
    let folder = "/etc/usb_modeswitch.d";
    root.write(
        &format!("{folder}/1234:5678"),
        "# Some stick\nTargetVendor=0x1234\nTargetProduct=0x5670\nNeedResponse=1\nStandardEject=1\n",
    );
    root.write(&format!("{folder}/1234:5679"), "# Another\nStandardEject=1\n");
    root.write(&format!("{folder}/1234:5679.dpkg-old"), "nonsense = 1\n");
    let path = root.0.join(folder.trim_start_matches('/')).display().to_string();
    let ended = root.run(&["import", &path]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("NeedResponse, in "), "{}", ended.stderr);
    root.write(OWN, &ended.stdout);
    assert_eq!(root.run(&["check"]).code, 0);
    let explained = root.run(&["explain", "1234:5679"]).stdout;
    assert!(explained.contains("Another") && explained.contains("own.toml:3"), "{explained}");

    root.write(&format!("{folder}/1234:5680"), "StandardEjekt=1\n");
    let ended = root.run(&["import", &path]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("1234:5680:1:15: unknown key StandardEjekt"), "{}", ended.stderr);
    // The other files are imported.
    assert!(ended.stdout.contains("1234:5678"));
    assert_eq!(root.run(&["import"]).code, 2);
    // Of two files for one device, the last one counts.
    root.write("/other/1234:5679", "# Mine\nSierraMode=1\n");
    let other = root.0.join("other/1234:5679").display().to_string();
    let ended = root.run(&["import", &format!("{path}/1234:5679"), &other]);
    assert_eq!(ended.stderr, format!("{path}/1234:5679: replaced by {other}\n"));
    assert!(ended.stdout.contains("Mine") && !ended.stdout.contains("Another"), "{}", ended.stdout);
    // A missing file does not prevent the import of the others.
    let ended = root.run(&["import", "/nowhere/1234:5678", &format!("{path}/1234:5678")]);
    assert!(ended.code == 2 && ended.stdout.contains("1234:5678"), "{ended:?}");
    assert!(ended.stderr.contains("/nowhere/1234:5678: cannot read: No such file"), "{}", ended.stderr);
    // Without an entry, there is no output.
    let ended = root.run(&["import", "/nowhere/1234:5678"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    // Files of editors and package managers do not count.
    root.write("/empty/1234:5678~", "StandardEject=1\n");
    let empty = root.0.join("empty").display().to_string();
    let ended = root.run(&["import", &empty]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert_eq!(ended.stderr, format!("wwan-quirks: {empty}: the directory has no configuration file\n"));
}

#[test]
fn the_list_names_every_step() {
    let root = Root::new();
    let listed = root.run(&["list"]).stdout;
    for part in
        ["12d1:14fe", "switch=huawei-new", "switch=eject+bulk:5553424312345670", "switch=sony+set-configuration"]
    {
        assert!(listed.contains(part), "{part}");
    }
    assert!(listed.lines().all(|line| line.contains(".toml:")));
    let listed: serde_json::Value = serde_json::from_str(&root.run(&["list", "--json"]).stdout).unwrap();
    let entries = listed["quirks"].as_array().unwrap();
    assert!(entries.iter().any(|entry| entry["matchers"]["scsi-model"] == "U209"), "{listed}");
}

/// Other programs read these lines, and a terminal shows them.
#[test]
fn an_entry_with_control_characters_is_one_line() {
    let root = Root::new();
    root.write(
        OWN,
        "schema = 1\n[[device]]\nid = { id = \"1234:7777\", becomes = [{ id = \"1234:7778\", name = \"C\\nD\" }] }\n\
         name = \"A\\nB\\u001b[31m\"\nnote = \"\\u001b\\n\"\nsource = \"E\\nF\"\nsteps = [{ switch = \"eject\" }]\n\
         [[device]]\nid = \"1234:7777\"\nname = \"G\\nH\"\nproduct = \"I\"\nsteps = []\n",
    );
    let lines = |arguments: &[&str], part: &str| {
        let ended = root.run(arguments);
        assert!(ended.code == 0 && !ended.stdout.contains('\u{1b}'), "{ended:?}");
        ended.stdout.lines().filter(|line| line.contains(part)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&["list"], "1234:7777")[0], format!("1234:7777  A\\u{{a}}B\\u{{1b}}[31m  switch=eject  {OWN}:2"));
    let names = ["1234:7777\tA\\u{a}B\\u{1b}[31m", "1234:7777\tG\\u{a}H"];
    assert_eq!(lines(&["export", "ids"], "1234:7777"), names);
    let explained = lines(&["explain", "1234:7777"], "");
    for line in [
        "1234:7777 (not plugged in): A\\u{a}B\\u{1b}[31m",
        "  note    \\u{1b}\\u{a}",
        "  source  E\\u{a}F",
        "  becomes 1234:7778, C\\u{a}D",
    ] {
        assert!(explained.iter().any(|one| one == line), "{line:?} in {explained:#?}");
    }
    assert!(explained.iter().any(|line| line.starts_with("  other   G\\u{a}H (")), "{explained:#?}");
}

/// An entry for a device with certain strings.
#[test]
fn the_narrowest_entry_applies() {
    let root = Root::new();
    let device = root.plug("1-1", "1c9e:f000", &fake::install_mode());
    let explain = || root.run(&["explain", "1-1"]).stdout;
    assert!(explain().contains("Longcheer/Longsoon"), "{}", explain());
    root.write(&format!("{device}/manufacturer"), "My USB Modem Ltd.\n");
    assert!(explain().contains("MobiData"), "{}", explain());
    root.write(OWN, "schema = 1\n[[device]]\nid = \"1c9e:f000\"\nname = \"Mine\"\nsteps = []\n");
    assert!(explain().contains("MobiData"), "an entry that matches more narrowly counts before a higher layer");
    root.write(&format!("{device}/manufacturer"), "Other\n");
    assert!(explain().contains("Mine"), "{}", explain());
}

#[test]
fn a_function_that_the_modem_lacks_is_not_preferred() {
    let root = Root::new();
    let device = root.plug("1-1", "12d1:1d50", &fake::two_of_storage());
    let plan = || root.run(&["apply", "--dry-run", "1-1"]).stdout;
    let write = "configuration: write 2 to bConfigurationValue instead of 1\n";
    assert!(plan().ends_with(write), "the quirk is stronger than the shipped default: {}", plan());
    root.policy("prefer = \"qmi\"\n");
    assert!(plan().ends_with(write), "there is no QMI to be had: {}", plan());
    root.policy("prefer = \"keep\"\n");
    assert!(plan().contains("nothing to do"), "{}", plan());
    root.write(&format!("{device}/descriptors"), fake::mc7710());
    let quirk = "id = \"12d1:1d50\"\nname = \"Mine\"\nqmi-interfaces = [8]\nsteps = [{ configuration = 2 }]\n";
    root.write(OWN, format!("schema = 1\n[[device]]\n{quirk}"));
    root.policy("prefer = \"qmi\"\n");
    assert!(plan().contains("configuration 1 is active"), "the administrator's key is the strongest: {}", plan());
}

#[test]
fn a_configuration_with_the_preferred_function_replaces_the_switch() {
    for id in ["12d1:1f1c", "12d1:1446", "19d2:1030"] {
        let root = Root::new();
        let device = root.plug("1-1", id, &fake::mbim_behind_storage(1));
        let plan = || root.run(&["apply", "--dry-run", "1-1"]).stdout;
        assert!(plan().ends_with("\n  configuration: write 2 to bConfigurationValue instead of 1\n"), "{}", plan());
        root.write(&format!("{device}/bConfigurationValue"), "2\n");
        assert!(plan().ends_with("\n  configuration: nothing to do: configuration 2 is active\n"), "{}", plan());
        root.write(&format!("{device}/bConfigurationValue"), "1\n");
        // The stick has no QMI, and `keep` prefers nothing.
        for prefer in ["qmi", "keep"] {
            root.policy(&format!("prefer = \"{prefer}\"\n"));
            assert!(plan().contains("switch: ") && !plan().contains("configuration: "), "{prefer}: {}", plan());
        }
        root.policy("switch = false\n");
        assert!(plan().contains("switch: suppressed"), "{}", plan());
        root.policy("");
        root.write(&format!("{device}/descriptors"), fake::install_mode());
        assert!(plan().contains("switch: ") && !plan().contains("configuration: "), "{}", plan());
    }
}

#[test]
fn a_function_is_set_whatever_number_its_configuration_has() {
    let storage = [fake::interface(0, [8, 6, 0x50], &[(0x81, 2), (0x02, 2)])];
    let ecm = [fake::interface(0, [2, 6, 0], &[(0x81, 3)]), fake::interface(1, [10, 0, 0], &[(0x82, 2), (0x02, 2)])];
    for number in [2, 4] {
        let root = Root::new();
        let configurations = [fake::configuration(1, &storage), fake::configuration(number, &ecm)];
        root.plug("1-1", "1410:9020", &fake::device(&configurations));
        let plan = root.run(&["apply", "--dry-run", "1-1"]).stdout;
        assert!(plan.ends_with(&format!("write {number} to bConfigurationValue instead of 1\n")), "{plan}");
    }
    // In this order: the preferred function, the function of the entry, its number.
    let vendor = [fake::interface(0, [0xff, 0xff, 0xff], &[(0x81, 2), (0x02, 2)])];
    let mbim =
        [fake::interface(0, [2, 0x0e, 0], &[(0x81, 3)]), fake::interface(1, [10, 0, 2], &[(0x82, 2), (0x02, 2)])];
    for (third, policy, expected) in [
        (&mbim[..], "", "write 3 to bConfigurationValue instead of 1\n"),
        (&ecm, "", "write 3 to bConfigurationValue instead of 1\n"),
        (&vendor, "", "write 4 to bConfigurationValue instead of 1\n"),
        (&vendor, "prefer = \"qmi\"\n", "write 4 to bConfigurationValue instead of 1\n"),
        (&mbim, "prefer = \"keep\"\n", "the kernel's choice, configuration 1, is kept\n"),
    ] {
        let root = Root::new();
        root.policy(policy);
        let others = [fake::configuration(3, third), fake::configuration(4, &vendor)];
        let configurations = [&[fake::configuration(1, &storage)], &others[..]].concat();
        root.plug("1-1", "1410:9020", &fake::device(&configurations));
        let plan = root.run(&["apply", "--dry-run", "1-1"]).stdout;
        assert!(plan.ends_with(expected), "{policy}: {plan}");
    }
}

#[test]
fn a_number_applies_if_the_preferred_function_is_missing() {
    let root = Root::new();
    let device = root.plug("1-1", "1c9e:3003", &fake::mbim_behind_storage(2));
    let plan = || root.run(&["apply", "--dry-run", "1-1"]).stdout;
    assert!(plan().ends_with("write 3 to bConfigurationValue instead of 1\n"), "{}", plan());
    root.policy("prefer = \"qmi\"\n");
    assert!(plan().ends_with("write 2 to bConfigurationValue instead of 1\n"), "{}", plan());
    root.policy("");
    let quirk = "id = \"1c9e:3003\"\nname = \"Mine\"\nsteps = [{ configuration = 2 }]\n";
    root.write(OWN, format!("schema = 1\n[[device]]\n{quirk}"));
    assert!(plan().ends_with("write 2 to bConfigurationValue instead of 1\n"), "an own quirk is stronger: {}", plan());
    root.write(OWN, "");
    root.write(&format!("{device}/descriptors"), fake::two_of_storage());
    assert!(plan().ends_with("write 2 to bConfigurationValue instead of 1\n"), "{}", plan());
}

#[test]
fn the_policy_selects_what_a_huawei_stick_becomes() {
    let root = Root::new();
    root.plug("1-1", "12d1:1f01", &fake::install_mode());
    root.plug("1-2", "12d1:1f1c", &fake::mbim_behind_storage(1));
    root.plug("1-3", "12d1:1001", &fake::install_mode());
    root.plug("1-4", "0bda:1a2b", &fake::install_mode());
    let plan = |port: &str| root.run(&["apply", "--dry-run", port]).stdout;
    let message = |fields: &str| format!("bulk 555342431234567800000000000000110{fields}00000000000000\n");
    for (value, switch) in [
        ("network", format!("switch: huawei-new: {}", message("620000001010001"))),
        ("modem", format!("switch: huawei-alternative: {}", message("630000000000100"))),
        ("serial", format!("switch: huawei-serial: {}", message("630000001000000"))),
    ] {
        root.policy(&format!("huawei = \"{value}\"\n"));
        for port in ["1-1", "1-2"] {
            assert!(plan(port).ends_with(&switch), "{value}: {}", plan(port));
        }
        // Other devices are switched as before.
        assert!(plan("1-3").contains("switch: huawei: control") && plan("1-4").contains("switch: eject"), "{value}");
        // A `[[device]]` for such a device cannot apply the key.
        root.policy(&format!("[[device]]\nmatch = {{ port = \"1-3\" }}\nhuawei = \"{value}\"\n"));
        assert!(plan("1-3").contains("switch: not possible: `huawei = "), "{}", plan("1-3"));
        assert!(plan("1-3").contains("only for devices that accept Huawei's command"), "{}", plan("1-3"));
        assert!(plan("1-1").contains("switch: huawei-new: "), "{}", plan("1-1"));
    }
    root.policy("huawei = \"entry\"\n");
    assert!(plan("1-1").contains("switch: huawei-new: "), "{}", plan("1-1"));
    assert!(plan("1-2").contains("configuration: write 2"), "{}", plan("1-2"));
    // A stick that has left install mode is not touched. Brovi's stick has the same ID in both modes.
    root.policy("huawei = \"serial\"\n");
    root.plug("1-5", "3566:2001", &fake::mc7710());
    assert!(plan("1-5").contains("is not mass storage"), "{}", plan("1-5"));
    assert!(
        root.run(&["explain", "12d1:1f01"])
            .stdout
            .contains("policy  huawei = serial  (/etc/wwan-quirks/config.toml:1)")
    );
}

#[test]
fn explain_prints_how_well_an_entry_is_known() {
    let root = Root::new();
    for (keys, line) in [
        ("seen = \"hint\"\n", Some("  source  seen = hint")),
        ("source = \"A\"\n", Some("  source  A")),
        ("seen = \"hint\"\nsource = \"A\"\n", Some("  source  seen = hint; A")),
        ("", None),
    ] {
        root.write(OWN, format!("schema = 1\n[[device]]\nid = \"1234:0001\"\nname = \"B\"\n{keys}steps = []\n"));
        let explained = root.run(&["explain", "1234:0001"]).stdout;
        assert_eq!(explained.lines().find(|line| line.starts_with("  source")), line, "{explained}");
    }
}

#[test]
fn the_plan_for_an_id_follows_the_policy() {
    let root = Root::new();
    let huawei = "12d1:1f01";
    for (policy, id, expected) in [
        ("", huawei, "switch=huawei-new, when the device is plugged in"),
        ("huawei = \"modem\"", huawei, "switch=huawei-alternative, when the device is plugged in"),
        ("switch = false", huawei, "switch: suppressed: `switch = false` in /etc/wwan-quirks/config.toml:1"),
        ("", "1199:68a2", "configuration=mbim, when the device is plugged in"),
        ("prefer = \"qmi\"", "1199:68a2", "configuration=qmi, when the device is plugged in"),
        ("prefer = \"qmi\"", "1410:9020", "configuration=qmi or ecm or 4, when the device is plugged in"),
        ("prefer = \"keep\"", "1199:68a2", "configuration: nothing to do: the kernel's choice is kept"),
        ("", "1199:9079", "fcc-auth=sierra, when the device is plugged in"),
        ("fcc-auth = false", "1199:9079", "fcc-auth: suppressed: `fcc-auth = false` in /etc/wwan-quirks/config.toml:1"),
    ] {
        root.policy(policy);
        let explained = root.run(&["explain", id]).stdout;
        assert!(explained.contains(&format!("\n  plan    {expected}\n")), "{policy}: {explained}");
    }
    let explained: serde_json::Value =
        serde_json::from_str(&root.run(&["explain", "--json", "1199:9079"]).stdout).unwrap();
    let plan = explained["devices"][0]["plan"].as_array().unwrap();
    assert_eq!(plan.last().unwrap()["decision"], "suppressed");
}

/// Some devices have the same ID in each of their modes, or share it with other devices.
#[test]
fn only_the_install_mode_is_switched() {
    for (id, left_alone) in [
        ("0bda:8152", "is not mass storage"),
        ("3566:2001", "is not mass storage"),
        ("12d1:140c", "the device has already switched"),
        ("12d1:1da1", "is not of class 08"),
    ] {
        let root = Root::new();
        let plan = || root.run(&["apply", "--dry-run", "1-1"]).stdout;
        let device = root.plug("1-1", id, &fake::install_mode());
        assert!(plan().contains("switch: huawei: ") || plan().contains("bulk 5553"), "{id}: {}", plan());
        root.write(&format!("{device}/descriptors"), fake::mc7710());
        assert!(plan().contains(left_alone), "{id}: {}", plan());
    }
}

#[test]
fn an_invented_id_needs_its_strings() {
    let root = Root::new();
    let device = root.plug("1-1", "1111:1111", &fake::install_mode());
    let explain = || root.run(&["explain", "1-1"]).stdout;
    root.write(&format!("{device}/manufacturer"), "AIC\n");
    assert_eq!(["explain", "status", "apply"].map(|verb| root.run(&[verb, "1-1"]).code), [1; 3]);
    assert_eq!(root.run(&["explain", "1111:1112"]).code, 1);
    assert!(explain().contains("no quirk applies"), "{}", explain());
    root.write(&format!("{device}/product"), "88M80\n");
    assert!(explain().contains("LGX"), "{}", explain());
    assert_eq!(root.run(&["explain", "1-1"]).code, 0);
}

#[test]
fn entries_that_need_other_strings_are_explained() {
    let root = Root::new();
    let device = root.plug("1-1", "1234:5678", &fake::install_mode());
    root.write(&format!("{device}/product"), "Prod\n");
    let entry = |name: &str, strings: &str| {
        format!("[[device]]\nid = \"1234:5678\"\nname = \"{name}\"\n{strings}steps = [{{ switch = \"eject\" }}]\n")
    };
    let narrow = entry("A", "manufacturer = \"1\"\nproduct = \"prod\"\n");
    root.write(OWN, format!("schema = 1\n{narrow}"));
    for name in ["1-1", "1234:5678"] {
        let ended = root.run(&["explain", name]);
        let expected = "1234:5678 (1-1): no quirk applies\n  \
            other   A (/etc/wwan-quirks/quirks.d/own.toml:2), for manufacturer \"1\" and product \"prod\"\n  \
            device  manufacturer \"Sierra Wireless, Incorporated\"\n  device  product \"Prod\"\n";
        assert_eq!((ended.code, ended.stdout.as_str()), (1, expected), "{name}");
    }
    // A general entry applies.
    root.write(OWN, format!("schema = 1\n{narrow}{}", entry("B", "")));
    let explained = root.run(&["explain", "1-1"]).stdout;
    assert!(explained.starts_with("1234:5678 (1-1): B\n") && explained.contains("\n  other   A ("), "{explained}");
    // Both fit.
    root.write(&format!("{device}/product"), "prod\n");
    root.write(&format!("{device}/manufacturer"), "1\n");
    let explained = root.run(&["explain", "1-1"]).stdout;
    assert!(explained.contains(": A\n") && !explained.contains("\n  other"), "{explained}");
}

#[test]
fn a_modem_can_be_left_unconfigured_for_a_moment() {
    let root = Root::new();
    let device = root.plug("1-1", "12d1:15c1", &fake::mc7710());
    let planned = root.run(&["apply", "--dry-run", "1-1"]).stdout;
    assert!(
        planned.ends_with("write 2 to bConfigurationValue instead of 1, after 0.5 s without a configuration\n"),
        "{planned}"
    );
    let begun = std::time::Instant::now();
    assert_eq!(root.run(&["apply", "1-1"]).code, 0);
    assert_eq!(root.read(&format!("{device}/bConfigurationValue")), "2\n");
    assert!(begun.elapsed() >= std::time::Duration::from_millis(500));
}

#[test]
fn a_device_with_scsi_matchers_is_known_after_the_scsi_inquiry() {
    let root = Root::new();
    let device = root.plug("1-1", "04e8:f000", &fake::install_mode());
    let explain = || root.run(&["explain", "1-1"]).stdout;
    assert!(explain().contains("no quirk applies"), "{}", explain());
    // Without a device, every entry with the ID is possible.
    let ended = root.run(&["explain", "05c6:1000"]);
    assert_eq!(ended.code, 0);
    let explained = ended.stdout;
    assert!(explained.starts_with("05c6:1000 (not plugged in): depends on the device's strings\n"), "{explained}");
    assert!(explained.contains("for scsi-vendor \"GT\""), "{explained}");
    let scsi = format!("{device}/1-1:1.9/host0/target0:0:0/0:0:0:0");
    root.write(&format!("{device}/1-1:1.9/bInterfaceNumber"), "09\n");
    root.write(&format!("{scsi}/model"), "U209 CD-ROM      \n");
    assert!(explain().contains("U209"), "{}", explain());
    let rules = root.run(&["rules"]).stdout;
    let (_, rules) = rules.split_once("LABEL=\"wwan_quirks_scsi\"").unwrap();
    assert!(rules.contains("SUBSYSTEMS==\"usb\", ATTRS{idVendor}==\"04e8\", ATTRS{idProduct}==\"f000\""), "{rules}");
    let devpath = scsi.trim_start_matches("/sys");
    let event = [("ACTION", "add"), ("DEVPATH", devpath), ("SUBSYSTEM", "scsi"), ("DEVTYPE", "scsi_device")];
    // The switch is tried, and fails because there is no device node here.
    let ended = root.hook(&event);
    assert!(ended.stderr.contains("04e8:f000") && ended.stderr.contains("switch"), "{ended:?}");
}

#[test]
fn a_message_without_an_answer_needs_no_in_endpoint() {
    let root = Root::new();
    root.plug("1-1", "0922:1001", &fake::without_answer());
    let planned = root.run(&["apply", "--dry-run", "1-1"]).stdout;
    assert!(planned.contains("bulk 1b5a01"), "{planned}");
}

/// Every shipped entry has a source. Every device has its own name, or an entry gives one name to a few devices.
#[test]
fn every_shipped_entry_names_its_source() {
    let root = Root::new();
    let listed: serde_json::Value = serde_json::from_str(&root.run(&["list", "--json"]).stdout).unwrap();
    let entries = listed["quirks"].as_array().unwrap();
    let (mut devices, mut named, mut targets) = (0, 0, 0);
    for entry in entries {
        assert!(entry["source"].is_string() && entry["seen"].is_string(), "{entry}");
        for model in entry["models"].as_array().unwrap() {
            devices += 1;
            named += usize::from(model["name"].is_string());
            targets += model["becomes"].as_array().unwrap().len();
        }
    }
    assert!(devices > 650 && named > 350 && targets > 600, "{devices} devices, {named} names, {targets} targets");
    let explained = root.run(&["explain", "12d1:157d"]).stdout;
    assert!(
        explained.contains("Huawei E3331, E3372\n") && explained.contains("becomes 12d1:14dc, HiLink"),
        "{explained}"
    );
}

#[test]
fn a_lookup_parses_the_same_as_a_check() {
    use wwan_quirks::database::layers::{ConfigFile, Layer};
    use wwan_quirks::database::quirks::Quirk;
    use wwan_quirks::database::quirks::fragment::parse;
    use wwan_quirks::database::quirks::fragment::search::parse_for;
    let database = concat!(env!("CARGO_MANIFEST_DIR"), "/config/quirks.d");
    for entry in std::fs::read_dir(database).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let file = ConfigFile { layer: Layer::Shipped, path };
        let (all, errors) = parse(&file, &text);
        assert_eq!(errors, []);
        for id in all.iter().flat_map(Quirk::ids) {
            let (found, errors) = parse_for(&file, text.as_bytes(), id).unwrap();
            assert_eq!(errors, []);
            // A lookup leaves out the other models of an entry.
            let about = |quirks: Vec<Quirk>| {
                let mut about: Vec<_> = quirks.into_iter().filter(|quirk| quirk.model(id).is_some()).collect();
                about.iter_mut().for_each(|quirk| quirk.models.retain(|model| model.id == id));
                about
            };
            assert_eq!(about(found), about(all.clone()), "{id}");
        }
    }
}

/// Entries that `check` warns about, with the reason why they stay.
const WARNED: [(&str, &str); 2] = [
    ("6000:1000", "no string of the modem is known; only mass storage gets the message"),
    ("257a:", "no string of the modems is known; only mass storage is ejected"),
];

#[test]
fn check_warns_about_weak_entries() {
    use wwan_quirks::database::audit::warnings;
    let root = Root::new();
    let (shipped, errors) = wwan_quirks::database::load::all(&wwan_quirks::host::root::Root::new(&root.0));
    assert!(errors.is_empty());
    for warning in warnings(&shipped) {
        let id = warning.id.unwrap().to_string();
        let is_known = WARNED.iter().any(|(known, _)| id.starts_with(known));
        // HP's and Huawei's modems without QMI have MBIM, and `preferred` falls back to what the kernel chose.
        let without_qmi =
            warning.message.contains("no QMI interface") && (id.starts_with("03f0") || id.starts_with("0489"));
        assert!(is_known || without_qmi, "{}: {id}: {}", warning.location, warning.message);
    }

    let entry = |id: &str, more: &str| format!("[[device]]\nid = {id}\nname = \"A\"\n{more}\n");
    let own = [
        entry("\"8888:0001\"", "steps = [{ switch = \"eject\" }]"),
        entry("\"1234:0001\"", "steps = [{ configuration = 2 }]"),
        entry("{ id = \"1234:0002\", becomes = [\"1234:0002\"] }", "steps = [{ switch = \"eject\" }]"),
        entry("\"1234:0003\"", "steps = [{ configuration = \"preferred\" }]"),
        entry("\"1234:0004\"", "qmi-interfaces = [4]\nsteps = [{ configuration = \"qmi\" }]"),
        entry("\"1234:0005\"", "source = \"mine\"\nsteps = [{ configuration = 2 }]"),
        entry("\"8888:0001\"", "product = \"B\"\nsteps = [{ switch = \"eject\" }]"),
    ];
    root.write(OWN, format!("schema = 1\n{}", own.concat()));
    let ended = root.run(&["check"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let warned: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with(OWN)).collect();
    let expected = [
        "3:7: warning: other devices",
        "7:7: warning: configuration 2 may",
        "11:14: warning: 1234:0002 becomes",
        "15:7: warning: no QMI interface",
    ];
    assert_eq!(warned.len(), expected.len(), "{warned:?}");
    for (warning, expected) in warned.iter().zip(expected) {
        assert!(warning.starts_with(&format!("{OWN}:{expected}")), "{warning}");
    }
    let json: serde_json::Value = serde_json::from_str(&root.run(&["check", "--json"]).stdout).unwrap();
    assert!(json["warnings"][0]["message"].as_str().unwrap().starts_with("other devices"), "{json}");
    // For a named file, all warnings are printed.
    let path = root.0.join(OWN.trim_start_matches('/'));
    assert_eq!(root.run(&["check", path.to_str().unwrap()]).stdout.matches("warning: ").count(), 4);
}
