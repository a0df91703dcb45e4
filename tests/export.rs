//! Checks that other programs, and `import`, can read what `export` writes.

mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;

use fake::Root;
use serde_json::Value;
use wwan_quirks::database::diagnostic::Location;
use wwan_quirks::database::layers::{ConfigFile, Layer};
use wwan_quirks::database::load;
use wwan_quirks::database::quirks::{Quirk, Select, Step, fragment};
use wwan_quirks::usb::Function;

fn all(root: &Root) -> Vec<Quirk> {
    let (quirks, errors) = load::all(&wwan_quirks::host::root::Root::new(&root.0));
    assert!(errors.is_empty(), "{errors:?}");
    quirks
}

fn parsed(toml: &str) -> Vec<Quirk> {
    let (quirks, errors) = fragment::parse(&ConfigFile { layer: Layer::Shipped, path: "x.toml".into() }, toml);
    assert_eq!(errors, [], "{toml}");
    quirks
}

/// The quirk without its location.
fn content(mut quirk: Quirk) -> Quirk {
    quirk.location = Location { layer: Layer::Shipped, path: "x.toml".into(), line: 0 };
    quirk
}

#[test]
fn importing_the_exported_json_gives_the_database() {
    let root = Root::new();
    let own = "schema = 1\n[[device]]\nid = \"1234:5678\"\nname = \"It's \\\"mine\\\"\"\nnote = \"a\\nb\"\nserial = 'x\\y'\n\
        steps = [{ switch = { wait-before = 0.5, do = [\"detach\", { sleep = 1 }] } }]\n";
    root.write("/etc/wwan-quirks/quirks.d/own.toml", own);
    let file = root.0.join("all.json");
    fs::write(&file, root.run(&["export", "json"]).stdout).unwrap();
    assert_eq!(root.run(&["export", "json", "--json"]).stdout, fs::read_to_string(&file).unwrap());
    let imported = root.run(&["import", file.to_str().unwrap()]);
    assert_eq!((imported.code, imported.stderr.as_str()), (0, ""));
    let imported: Vec<Quirk> = parsed(&imported.stdout).into_iter().map(content).collect();
    let wanted: Vec<Quirk> = all(&root).into_iter().map(content).collect();
    assert!(wanted.len() > 250);
    assert_eq!(imported, wanted);
    for (text, expected) in [
        ("{ \"schema\": 1, \"device\": 1 }", "1:26: invalid type: integer `1`, expected a sequence"),
        ("{ \"schema\": 99, \"device\": [] }", "1:1: expected \"schema\": 1"),
        ("{ \"schema\": 1, \"device\": [] }", "1:1: the list `device` is empty"),
        ("{ \"schema\": 1,\n\"device\": [{\n  \"id\": \"1234:5678\", 7: 1 }] }", "3:22: key must be a string\n"),
        (
            "{ \"schema\": 1, \"device\": [{ \"a b\": 1, \"id\": \"zz\" }] }",
            "1:27: element 1 of `device`: unknown field `a b`",
        ),
        (
            "{ \"schema\": 1, \"device\": [\n  { \"id\": \"1234:5678\", \"name\": \"A\", \"steps\": [] },\n  { \"id\": \"zz\" }] }",
            "3:3: element 2 of `device`: missing field `name`",
        ),
        ("{ \"device\": [] }", "1:16: missing field `schema`"),
        (&root.run(&["export", "usb-mode.json"]).stdout, "1:1: the format of OpenWrt's usbmode cannot be imported: "),
        ("{ \"schema\": 1, \"device\": [\n  5] }", "2:3: invalid type: integer `5`, expected a map"),
    ] {
        fs::write(&file, text).unwrap();
        let refused = root.run(&["import", file.to_str().unwrap()]);
        assert!(refused.code == 1 && refused.stderr.contains(&format!("all.json:{expected}")), "{refused:?}");
        assert_eq!(refused.stdout, "");
    }
}

/// The steps that usb_modeswitch's files can express, as `import` reads them. Each difference has its reason.
fn expressible(steps: &[Step]) -> Vec<Step> {
    let expressible = steps.iter().filter_map(|step| match step {
        Step::FccAuth(_) => None,
        // usb_modeswitch has no key for a pause without a configuration, and looks for MBIM.
        Step::Configuration { select: Select::Preferred | Select::Function(Function::Mbim), .. } => {
            Some(Step::Configuration { select: Select::Preferred, fallback: None, unconfigured: None })
        }
        Step::Configuration { select: Select::Value(value), .. }
        | Step::Configuration { fallback: Some(value), .. } => {
            Some(Step::Configuration { select: Select::Value(*value), fallback: None, unconfigured: None })
        }
        Step::Configuration { .. } => None,
        Step::Switch(switch) => {
            let mut switch = switch.clone();
            switch.interface_class = None;
            Some(Step::Switch(switch))
        }
    });
    expressible.collect()
}

/// IDs whose file gives other steps when it is imported, with the reason.
const OTHER_STEPS: [(&str, &str); 2] =
    [("04e8:a100", "ResetUSB waits for a second first"), ("13b1:0040", "ResetUSB waits for a second first")];

#[test]
fn importing_the_exported_files_gives_what_they_can_express() {
    let root = Root::new();
    let folder = root.0.join("exported");
    let ended = root.run(&["export", "usb-modeswitch", folder.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let imported = root.run(&["import", folder.to_str().unwrap()]);
    assert_eq!((imported.code, imported.stderr.as_str()), (0, ""), "{imported:?}");
    let imported = parsed(&imported.stdout);
    let mut differs = BTreeSet::new();
    let mut files = 0;
    for quirk in all(&root) {
        let wanted = expressible(&quirk.steps);
        for model in &quirk.models {
            let same = |other: &&Quirk| other.model(model.id).is_some() && other.matchers == quirk.matchers;
            let found = imported.iter().find(same);
            if wanted.is_empty() {
                assert!(found.is_none(), "{}", model.id);
                assert!(ended.stderr.contains(&quirk.location.to_string()), "{}", quirk.location);
                continue;
            }
            files += 1;
            let found = found.unwrap_or_else(|| panic!("{} has no file", model.id));
            if found.steps != wanted {
                differs.insert(model.id.to_string());
            }
            assert_eq!(found.name_of(model.id), quirk.name_of(model.id));
            let targets = |quirk: &Quirk| -> Vec<_> {
                let becomes = &quirk.model(model.id).unwrap().becomes;
                let vendor = becomes.first().map(|target| target.id.vendor);
                becomes.iter().map(|target| target.id).filter(|id| Some(id.vendor) == vendor).collect()
            };
            assert_eq!(targets(found), targets(&quirk), "{}", model.id);
        }
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), files);
    assert!(files > 550, "{files}");
    assert_eq!(differs, OTHER_STEPS.iter().map(|(id, _)| (*id).to_owned()).collect());
}

/// The rules of usbmode's parser: known keys with numbers in decimal, and messages by their index.
#[test]
fn the_openwrt_file_follows_the_rules_of_its_parser() {
    let root = Root::new();
    let ended = root.run(&["export", "usb-mode.json"]);
    let file: Value = serde_json::from_str(&ended.stdout).unwrap();
    let messages = file["messages"].as_array().unwrap();
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    for message in messages {
        let message = message.as_str().unwrap();
        assert!(is_hex(message) && message.len() % 2 == 0, "{message}");
    }
    let distinct: BTreeSet<_> = messages.iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), messages.len());
    let modes = "Generic Huawei HuaweiNew Sierra StandardEject Sony Qisda GCT Kobil Sequans MobileAction Cisco MBIM Option \
                 Quanta Blackberry Pantech";
    let modes: BTreeSet<&str> = modes.split(' ').collect();
    let mut used = BTreeSet::new();
    let devices = file["devices"].as_object().unwrap();
    for (id, variants) in devices {
        let [vendor, product] = id.split(':').collect::<Vec<_>>()[..] else { panic!("{id}") };
        assert!([vendor, product].iter().all(|part| part.len() == 4 && is_hex(part)), "{id}");
        for (strings, entry) in variants.as_object().unwrap() {
            assert_eq!(strings, "*", "{id}");
            for (key, value) in entry.as_object().unwrap() {
                let within = |limit: u64| value.as_u64().is_some_and(|number| number <= limit);
                let valid = match key.as_str() {
                    "t_vendor" => within(0xffff),
                    "t_product" => value.as_array().is_some_and(|all| all.iter().all(Value::is_u64)),
                    "t_class" | "msg_endpoint" | "response_endpoint" | "interface" | "config" | "alt" => within(0xff),
                    "mode" => value.as_str().is_some_and(|mode| modes.contains(mode)),
                    "modeval" => within(0xffff),
                    "response" => value.is_boolean(),
                    "msg" => value.as_array().is_some_and(|all| {
                        all.iter().all(|index| index.as_u64().is_some_and(|index| index < messages.len() as u64))
                    }),
                    _ => false,
                };
                assert!(valid, "{id} {strings}: {key} = {value}");
                if key == "mode" {
                    used.insert(value.as_str().unwrap().to_owned());
                }
            }
            assert_eq!(
                entry.get("msg").is_some(),
                entry["mode"] == "Generic" || entry["response"] == true,
                "{id}: {entry}"
            );
        }
    }
    assert!(devices.len() > 540 && used.len() >= 15, "{} devices, {used:?}", devices.len());
    // usbmode would use these entries for other devices with the same ID.
    let needs_class = |step: &Step| matches!(step, Step::Switch(switch) if switch.interface_class.is_some());
    let narrowed = |quirk: &Quirk| !quirk.matchers.is_empty() || quirk.steps.iter().any(needs_class);
    for quirk in all(&root).iter().filter(|quirk| narrowed(quirk)) {
        let reason = format!("{}: {}: left out: usbmode does not compare ", quirk.location, quirk.name);
        assert!(ended.stderr.contains(&reason), "{reason}");
    }
    for id in ["1111:1111", "8888:6500", "05c6:98ff", "1c9e:9e08", "0af0:4007", "12d1:1da1"] {
        assert!(!devices.contains_key(id), "{id}");
    }
}

/// An entry is complete, left out, or without its delays. Then a message says so.
#[test]
fn the_openwrt_file_loses_nothing_silently() {
    let root = Root::new();
    let eject = "{ switch = \"eject\" }";
    for (steps, exported, message) in [
        (eject.to_owned(), true, None),
        (format!("{eject}, {{ configuration = \"preferred\" }}"), false, Some("one mode and one configuration")),
        (
            "{ switch = [\"sierra\", { set-configuration = 2 }] }, { configuration = 3 }".to_owned(),
            false,
            Some("one mode and one configuration"),
        ),
        (format!("{{ configuration = 2 }}, {eject}"), false, Some("switches before it sets a configuration")),
        (format!("{eject}, {{ configuration = 2 }}"), true, None),
        (format!("{eject}, {{ configuration = \"qmi\" }}"), false, Some("no key for a function other than MBIM")),
        (format!("{eject}, {{ configuration = \"keep\" }}"), true, None),
        ("{ switch = { wait-before = 2, do = [\"eject\"] } }".to_owned(), true, Some("only its delays")),
        ("{ switch = { release-delay = 2, do = [\"eject\"] } }".to_owned(), true, Some("only its delays")),
    ] {
        let own = format!("schema = 1\n[[device]]\nid = \"1234:0001\"\nname = \"Mine\"\nsteps = [{steps}]\n");
        root.write("/etc/wwan-quirks/quirks.d/own.toml", own);
        let ended = root.run(&["export", "usb-mode.json"]);
        let file: Value = serde_json::from_str(&ended.stdout).unwrap();
        let mode = &file["devices"]["1234:0001"]["*"]["mode"];
        assert_eq!(mode == "StandardEject", exported, "{steps}: {file}");
        let said = ended.stderr.lines().find(|line| line.contains("Mine: left out: "));
        assert_eq!(said.is_some(), message.is_some(), "{steps}: {said:?}");
        assert!(said.unwrap_or_default().contains(message.unwrap_or_default()), "{steps}: {said:?}");
    }
}

#[test]
fn the_list_of_ids_has_each_id_and_its_name() {
    let root = Root::new();
    let listed = root.run(&["export", "ids"]).stdout;
    let lines: Vec<(&str, &str)> = listed.lines().map(|line| line.split_once('\t').unwrap()).collect();
    assert_eq!(lines.len(), all(&root).iter().map(|quirk| quirk.models.len()).sum::<usize>());
    let names: BTreeMap<&str, &str> = lines.into_iter().collect();
    assert_eq!(names["12d1:157d"], "Huawei E3331, E3372");
}

#[test]
fn an_entry_of_a_higher_layer_replaces_the_exported_one() {
    let root = Root::new();
    // This file is read before the shipped one.
    let own = "schema = 1\n[[device]]\nid = \"12d1:1446\"\nname = \"Mine\"\nsteps = [{ switch = \"sierra\" }]\n";
    root.write("/etc/wwan-quirks/quirks.d/00-site.toml", own);
    let listed = root.run(&["export", "ids"]).stdout;
    let lines: Vec<&str> = listed.lines().filter(|line| line.starts_with("12d1:1446")).collect();
    assert_eq!(lines, ["12d1:1446\tMine"]);
    let folder = root.0.join("exported");
    assert_eq!(root.run(&["export", "usb-modeswitch", folder.to_str().unwrap()]).code, 0);
    assert_eq!(fs::read_to_string(folder.join("12d1:1446")).unwrap(), "# Mine\nSierraMode=1\n");
    let file: Value = serde_json::from_str(&root.run(&["export", "usb-mode.json"]).stdout).unwrap();
    assert_eq!(file["devices"]["12d1:1446"]["*"]["mode"], "Sierra");
    let file = root.0.join("all.json");
    fs::write(&file, root.run(&["export", "json"]).stdout).unwrap();
    let imported = root.run(&["import", file.to_str().unwrap()]).stdout;
    let named: Vec<Quirk> =
        parsed(&imported).into_iter().filter(|quirk| quirk.model("12d1:1446".parse().unwrap()).is_some()).collect();
    assert_eq!(named.iter().map(|quirk| quirk.name.as_str()).collect::<Vec<_>>(), ["Mine"]);
    fs::write(root.0.join("all.toml"), imported).unwrap();
    assert_eq!(root.run(&["check", root.0.join("all.toml").to_str().unwrap()]).code, 0);
}

#[test]
fn a_string_that_no_file_name_can_hold_is_left_out() {
    let root = Root::new();
    let entry = |id: &str, product: &str| {
        format!(
            "[[device]]\nid = \"{id}\"\nname = \"A\"\nproduct = \"{product}\"\nsteps = [{{ switch = \"eject\" }}]\n"
        )
    };
    let own = [entry("1234:0001", "x:y"), entry("1234:0002", "x\\u0000y"), entry("1234:0003", "x/y")].concat();
    root.write("/etc/wwan-quirks/quirks.d/own.toml", format!("schema = 1\n{own}"));
    let folder = root.0.join("exported");
    let ended = root.run(&["export", "usb-modeswitch", folder.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let reason = "A: left out: a string with `:` or NUL cannot be in the name of a file for usb_modeswitch";
    for line in [2, 7] {
        assert!(ended.stderr.contains(&format!("own.toml:{line}: {reason}\n")), "{}", ended.stderr);
    }
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name.starts_with("1234:")).collect();
    assert_eq!(names, ["1234:0003:uPr=x_y"]);
    assert_eq!(root.run(&["import", folder.to_str().unwrap()]).code, 0);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let root = Root::new();
    root.write("file", "");
    for path in ["file", "file/folder"] {
        let path = root.0.join(path).display().to_string();
        let ended = root.run(&["export", "usb-modeswitch", &path]);
        assert!(ended.code == 1 && ended.stderr.contains(&format!("{path}: cannot write: ")), "{ended:?}");
    }
}

#[test]
fn a_broken_database_is_not_exported() {
    let root = Root::new();
    root.write("/etc/wwan-quirks/quirks.d/own.toml", "schema = 1\n[[device]]\nid = 1\n");
    for format in [&["json"][..], &["ids"], &["usb-mode.json"], &["usb-modeswitch", "/nowhere"]] {
        let ended = root.run(&[&["export"], format].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{format:?}");
    }
    assert!(!Path::new("/nowhere").exists());
    for format in [&["usb-mode.json"][..], &["usb-modeswitch", "/nowhere"]] {
        let ended = root.run(&[&["export", "--json"], format].concat());
        assert!(ended.code == 2 && ended.stderr.contains("--json is for `export json` and `export ids`"), "{ended:?}");
    }
    let ended = root.run(&["export", "json", "/nowhere"]);
    assert!(ended.code == 2 && ended.stderr.contains("`export usb-modeswitch` writes to a directory"), "{ended:?}");
}

/// Verbs that print the database must be able to write long files.
#[test]
fn long_output_fits_into_a_file() {
    let root = Root::new();
    for arguments in [&["list", "--json"][..], &["export", "json"], &["rules"]] {
        let path = root.0.join("output");
        let mut command = fake::program();
        command.arg("--root").arg(&root.0).args(arguments).stdout(fs::File::create(&path).unwrap());
        assert!(command.stderr(Stdio::null()).status().unwrap().success(), "{arguments:?}");
    }
    let path = root.0.join("output");
    let mut command = fake::program();
    command.arg("--root").arg(&root.0).args(["export", "json"]).stdout(fs::File::create(&path).unwrap());
    assert!(command.status().unwrap().success());
    assert!(fs::metadata(&path).unwrap().len() > 100_000);
}
