//! Checks that the output of each verb with `--json` matches `docs/schema/VERB.schema.json`.

mod fake;

use std::fs;
use std::path::Path;

use fake::{Root, install_mode, mc7710};
use serde_json::{Value, json};

/// The differences between `value` and `schema`. Supports only those keywords of JSON Schema that our schemas need.
fn differences(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let types: &[&str] = match value {
        Value::Null => &["null"],
        Value::Bool(_) => &["boolean"],
        Value::Number(number) if number.is_f64() => &["number"],
        Value::Number(_) => &["integer", "number"],
        Value::String(_) => &["string"],
        Value::Array(_) => &["array"],
        Value::Object(_) => &["object"],
    };
    const KEYWORDS: [&str; 12] = [
        "$ref",
        "anyOf",
        "$schema",
        "title",
        "description",
        "type",
        "const",
        "enum",
        "items",
        "required",
        "properties",
        "additionalProperties",
    ];
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{at}: the schema is no object"));
    for keyword in keywords.keys() {
        assert!(KEYWORDS.contains(&keyword.as_str()), "{at}: this test does not know the keyword {keyword}");
    }
    let mut differences = Vec::new();
    if let Some((file, pointer)) = schema["$ref"].as_str().and_then(|reference| reference.split_once(".schema.json#")) {
        return self::differences(self::schema(file).pointer(pointer).unwrap(), value, at);
    }
    if let Some(schemas) = schema["anyOf"].as_array() {
        let all: Vec<_> = schemas.iter().map(|schema| self::differences(schema, value, at)).collect();
        if all.iter().all(|differences| !differences.is_empty()) {
            differences.extend(all.into_iter().flatten());
        }
        return differences;
    }
    let allowed = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect::<Vec<_>>(),
    };
    if !allowed.is_empty() && !allowed.iter().any(|name| types.contains(name)) {
        differences.push(format!("{at} has the type {types:?}"));
    }
    let values = schema.get("const").map(std::slice::from_ref).or(schema["enum"].as_array().map(Vec::as_slice));
    if values.is_some_and(|values| !values.contains(value)) {
        differences.push(format!("{at} is {value}"));
    }
    if !differences.is_empty() {
        return differences;
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        differences.extend(self::differences(&schema["items"], item, &format!("{at}/{index}")));
    }
    let Some(members) = value.as_object() else { return differences };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            differences.push(format!("{at} has no {name}"));
        }
    }
    for (name, member) in members {
        let at = format!("{at}/{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => differences.push(format!("{at} is not described")),
            (Value::Null, other) => differences.extend(self::differences(other, member, &at)),
            (described, _) => differences.extend(self::differences(described, member, &at)),
        }
    }
    differences
}

fn schema(verb: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schema/{verb}.schema.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A root with modems in install mode and in modem mode, a device without a quirk, policy and state.
fn root() -> Root {
    let root = Root::new();
    root.plug("1-1", "1199:68a2", &mc7710());
    root.control_port("1-1", "1.8", "qmi_wwan", "cdc-wdm0");
    root.plug("1-2", "1199:0fff", &install_mode());
    root.plug("1-3", "1234:5678", &install_mode());
    root.plug("1-4", "12d1:14dc", &mc7710());
    root.plug("1-5", "05c6:1000", &install_mode());
    root.results("1-4", r#""last":{"switch":{"at":1,"outcome":"done","text":"1","id":"12d1:1f01"}}"#);
    let last = r#"{"at":1,"outcome":"done","text":"1"}"#;
    root.results("1-1", &format!(r#""last":{{"configuration":{last}}},"radio":{last}"#));
    root.policy(
        "[timeouts]\nhook = 2.5\n[[device]]\nmatch = { port = \"1-1\" }\nfcc-auth = false\n[[device]]\nmatch = { serial = \"1\" }\n",
    );
    root.write("etc/wwan-quirks/quirks.d/0421-nokia.toml", "");
    root.write("usb_modeswitch/1234:5678", "NeedResponse=1\nStandardEject=1\n");
    root.write("usb_modeswitch/1234:567a", "# A\n");
    root.write("usb_modeswitch/1234:5679", "StandardEjekt=1\n");
    root
}

/// The output of `arguments` with `--json`.
fn output(root: &Root, arguments: &[&str]) -> Value {
    let ended = root.run(&[arguments, &["--json"]].concat());
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {ended:?}"))
}

#[test]
fn real_output_agrees_with_its_schema() {
    let root = root();
    let broken = Root::new();
    broken.write("/etc/wwan-quirks/quirks.d/own.toml", "schema = 1\n[[device]]\nid = \"1199:907\"\n");
    broken.policy("prefer = 1\n");
    broken.write("/etc/wwan-quirks/quirks.d/bytes.toml", [0xff]);
    broken.plug("1-1", "1199:68a2", &mc7710());
    let files = root.0.join("usb_modeswitch").display().to_string();
    let mut verbs = std::collections::BTreeSet::new();
    for (root, arguments, has) in [
        (&root, &["list"][..], "/quirks/0/models/0/id"),
        (&root, &["explain", "1-1"], "/devices/0/policy/fcc-auth/origin/device"),
        (&root, &["explain", "1-1"], "/devices/0/others/0/matchers/serial"),
        (&root, &["explain", "0421:060c"], "/devices/0/hidden/0/by"),
        (&root, &["explain", "1199:9079", "-v"], "/devices/0/plan/0/decision"),
        (&root, &["apply", "--dry-run", "1-2", "-v"], "/devices/0/plan/0/decision"),
        (&root, &["explain", "1-3"], "/devices/0/id"),
        (&root, &["explain", "1199:9079"], "/devices/0/quirk/layer"),
        (&root, &["explain", "05c6:1000"], "/devices/0/others/0/matchers"),
        (&broken, &["explain", "1199:9079"], "/devices/0/complete"),
        (&broken, &["apply", "--dry-run"], "/devices/0/complete"),
        (&root, &["check"], "/diagnostics"),
        (&broken, &["check"], "/diagnostics/2/column"),
        (&root, &["rules"], "/rules"),
        (&root, &["import", &files], "/ignored-keys/0/files"),
        (&root, &["import", &files], "/diagnostics/0/line"),
        (&root, &["import", &files], "/warnings/0"),
        (&root, &["doctor"], "/problems/0/remedy"),
        (&root, &["report", "1-1"], "/configurations/0/interfaces/0/endpoints/0/address"),
        (&root, &["status"], "/devices/0/interfaces/0/nodes/0"),
        (&root, &["status", "1-1", "--query"], "/devices/0/query/error"),
        (&root, &["status", "1-1"], "/devices/0/last/configuration/at"),
        (&root, &["status", "1-4"], "/devices/0/last/switch/id"),
        (&root, &["composition", "1-1"], "/result/text"),
        (&root, &["apply", "--dry-run"], "/devices/0/plan/0"),
        (&root, &["apply"], "/devices/0/results/0/outcome"),
        (&broken, &["apply", "1-1"], "/devices/0/errors/0/line"),
        (&broken, &["apply", "1-1"], "/errors/0/line"),
        (&root, &["apply", "1-3"], "/errors/0/message"),
        (&root, &["apply", "1-3", "--dry-run"], "/errors/0/message"),
        (&root, &["apply", "1-9"], "/errors/0/message"),
        (&root, &["status", "1-3"], "/errors/0/message"),
        (&broken, &["status"], "/errors/0/line"),
        (&root, &["status", "1-9"], "/errors/0/message"),
        (&root, &["explain", "1-5"], "/devices/0/strings/scsi-vendor"),
        (&root, &["explain", "1-3"], "/errors/0/message"),
        (&root, &["explain", "1-9"], "/errors/0/message"),
        (&broken, &["explain", "1-1"], "/errors/0/column"),
        (&root, &["composition", "1-9"], "/errors/0/message"),
        (&broken, &["composition", "1-1", "8"], "/errors/0/path"),
        (&root, &["report", "1-9"], "/errors/0/message"),
        (&root, &["report"], "/errors/0/message"),
        (&broken, &["report", "1-1"], "/errors/0/line"),
        (&broken, &["list"], "/errors/0/line"),
        (&broken, &["rules"], "/errors/0/line"),
        (&root, &["export", "json"], "/device/0/steps/0"),
        (&root, &["export", "ids"], "/ids/0/name"),
        (&broken, &["export", "json"], "/errors/0/line"),
        (&broken, &["export", "ids"], "/ids"),
        (&root, &["check", "/nonexistent"], "/errors/0/path"),
        (&root, &["import", "/nonexistent"], "/errors/0/path"),
    ] {
        let output = output(root, arguments);
        assert_eq!(differences(&schema(arguments[0]), &output, ""), [""; 0], "{arguments:?}: {output:#}");
        assert_eq!((&output["schema"], &output["verb"]), (&json!(1), &json!(arguments[0])));
        assert!(output.pointer(has).is_some(), "{arguments:?} has no {has}: {output:#}");
        verbs.insert(arguments[0].to_owned());
    }
    // Unit tests compare what needs a modem with these files.
    let stored = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json")).unwrap();
    for file in stored.map(|file| file.unwrap().path()) {
        let stored: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let verb = stored["verb"].as_str().unwrap();
        assert_eq!(differences(&schema(verb), &stored, ""), [""; 0], "{}", file.display());
    }
    let schemas = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema")).unwrap();
    verbs.insert("quirks".to_owned());
    for schema in schemas {
        let name = schema.unwrap().file_name().into_string().unwrap();
        assert!(verbs.contains(name.trim_end_matches(".schema.json")), "no output is compared with {name}");
    }
}

#[test]
fn files_of_the_database_agree_with_their_schema() {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/quirks.d")).unwrap();
    for path in files.map(|file| file.unwrap().path()) {
        let table: toml::Table = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(differences(&schema("quirks"), &json!(table), ""), [""; 0], "{}", path.display());
    }
}

#[test]
fn values_are_typed() {
    let root = root();
    let explained = output(&root, &["explain", "1-1"]);
    let policy = &explained["devices"][0]["policy"];
    assert_eq!(policy["fcc-auth"]["value"], json!(false));
    assert_eq!(policy["timeouts"]["hook"]["value"], json!(2.5));
    assert_eq!(
        policy["timeouts"]["hook"]["origin"],
        json!({ "layer": "administrator", "path": "/etc/wwan-quirks/config.toml", "line": 2, "device": false })
    );
    let entry = |id: &str, configuration: &str| {
        format!("[[device]]\nid = \"1234:{id}\"\nname = \"{id}\"\nsteps = [{{ configuration = {configuration} }}]\n")
    };
    let entries = [entry("0001", "2"), entry("0002", "{ select = \"mbim\", fallback = 3 }")];
    root.write("/etc/wwan-quirks/quirks.d/1234-own.toml", format!("schema = 1\n{}", entries.concat()));
    let listed = output(&root, &["list"]);
    for (name, value, fallback) in [("0001", json!(2), json!(null)), ("0002", json!("mbim"), json!(3))] {
        let own = listed["quirks"].as_array().unwrap().iter().find(|quirk| quirk["name"] == name).unwrap();
        assert_eq!((&own["steps"][0]["value"], &own["steps"][0]["fallback"]), (&value, &fallback));
    }
}

#[test]
fn a_run_and_a_dry_run_have_different_members() {
    let with = |members: Value| {
        let mut device = json!({ "port": "1-1", "id": "1199:68a2", "name": null });
        device.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let output = json!({ "schema": 1, "verb": "apply", "devices": [device], "errors": [] });
        differences(&schema("apply"), &output, "").is_empty()
    };
    assert!(with(json!({ "results": [], "errors": [] })));
    assert!(with(json!({ "complete": true, "plan": [] })));
    assert!(!with(json!({})));
    assert!(!with(json!({ "results": [], "plan": [] })));
}

#[test]
fn output_that_differs_from_its_schema_is_found() {
    let schema = schema("explain");
    let good = output(&root(), &["explain", "1-1"]);
    for (pointer, value) in [
        ("/schema", json!(2)),
        ("/verb", json!("list")),
        ("/devices", json!({})),
        ("/devices/0/port", json!(1)),
        ("/devices/0/policy/switch/value", json!("true")),
        ("/devices/0/policy/prefer/value", json!("ecm")),
        ("/devices/0/quirk/line", json!(1.5)),
        ("/devices/0/quirk", json!({ "path": "x", "line": 1 })),
        ("/devices/0/note", json!([])),
        ("/devices/0/policy/timeouts/hook", json!({ "value": 1, "origin": null, "colour": 1 })),
    ] {
        let mut other = good.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert_eq!(differences(&schema, &other, "").len(), 1, "{pointer}");
    }
}
