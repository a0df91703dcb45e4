//! Configuration files of usb_modeswitch.
//!
//! `import` reads them back. What is lost: notes, sources, `seen`, names of targets, targets of a second vendor,
//! `interface-class` and unlocks. `configuration = "preferred"` and `"mbim"` become `Configuration=0`, which looks for MBIM.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::left_out::LeftOut;
use crate::database::quirks::switch::{Control, Op, Seconds};
use crate::database::quirks::{Model, Quirk, Select, Step, Switch};
use crate::host::journal::printable;
use crate::usb::Function;
use crate::verbs::import::{STRINGS, methods};

/// The files by name, and the entries that have no file.
pub(super) fn export(quirks: &[Quirk]) -> (BTreeMap<String, String>, Vec<LeftOut<'_>>) {
    let (mut files, mut left_out) = (BTreeMap::new(), Vec::new());
    for quirk in quirks {
        match keys(quirk).and_then(|keys| fits_name(quirk).map(|()| keys)) {
            Ok(keys) => files.extend(quirk.models.iter().map(|model| (name(quirk, model), file(quirk, model, &keys)))),
            Err(reason) => left_out.push(LeftOut { quirk, reason }),
        }
    }
    (files, left_out)
}

/// Checks that the strings of an entry can be in a file name. usb_modeswitch splits the name at each colon.
fn fits_name(quirk: &Quirk) -> Result<(), &'static str> {
    match quirk.matchers.values().any(|part| part.contains([':', '\0'])) {
        true => Err("a string with `:` or NUL cannot be in the name of a file for usb_modeswitch"),
        false => Ok(()),
    }
}

fn name(quirk: &Quirk, model: &Model) -> String {
    let mut name = model.id.to_string();
    for (string, part) in &quirk.matchers {
        let Some((_, attribute)) = STRINGS.iter().find(|(known, _)| known == string) else { continue };
        // Writing to a String does not fail. No file name has a slash.
        let _ = write!(name, ":{attribute}={}", part.replace('/', "_"));
    }
    name
}

fn file(quirk: &Quirk, model: &Model, keys: &str) -> String {
    let mut text = format!("# {}\n", printable(quirk.name_of(model.id)));
    if let Some(first) = model.becomes.first() {
        let products = model.becomes.iter().filter(|target| target.id.vendor == first.id.vendor);
        let products: Vec<String> = products.map(|target| format!("{:04x}", target.id.product)).collect();
        let _ = writeln!(text, "TargetVendor=0x{:04x}\nTargetProductList=\"{}\"", first.id.vendor, products.join(","));
    }
    text + keys
}

/// The keys of an entry, one per line, or the reason why it has none.
fn keys(quirk: &Quirk) -> Result<String, &'static str> {
    let mut text = String::new();
    for step in &quirk.steps {
        match step {
            Step::Switch(switch) => switch_keys(switch, &mut text)?,
            Step::Configuration { fallback: Some(value), .. } => text.push_str(&format!("Configuration={value:x}\n")),
            Step::Configuration { select, .. } => match select {
                Select::Preferred | Select::Function(Function::Mbim) => text.push_str("Configuration=0\n"),
                Select::Value(value) => text.push_str(&format!("Configuration={value:x}\n")),
                Select::Function(_) => return Err("usb_modeswitch has no key for a function other than MBIM"),
                Select::Keep => {}
            },
            Step::FccAuth(_) => {}
        }
    }
    if text.is_empty() { Err("usb_modeswitch has no key for its steps") } else { Ok(text) }
}

fn switch_keys(switch: &Switch, text: &mut String) -> Result<(), &'static str> {
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key}={value}");
    };
    for (key, value) in [
        ("Interface", switch.interface),
        ("MessageEndpoint", switch.out),
        ("ResponseEndpoint", switch.r#in),
        ("TargetClass", switch.target_class),
    ] {
        if let Some(value) = value {
            line(key, format!("0x{value:02x}"));
        }
    }
    let Seconds(wait) = switch.wait_before;
    if !wait.is_zero() {
        line("WaitBefore", wait.as_secs().max(1).to_string());
    }
    let Seconds(delay) = switch.release_delay;
    if !delay.is_zero() {
        line("ReleaseDelay", delay.as_millis().to_string());
    }
    let mut ops = switch.ops();
    let method = methods().find(|(_, name)| switch.first_name() == Some(name));
    if let Some((key, name)) = method {
        line(key, if key == "PantechMode" { "2".to_owned() } else { "1".to_owned() });
        ops = ops.get(Switch::built_in(name).ops().len()..).unwrap_or_default();
    } else if let [Op::Detach, Op::Control(Control { request_type: 0x40, request: 0x70, value, .. }), rest @ ..] = ops {
        line("PantechMode", value.to_string());
        ops = rest;
    } else if let [Op::Detach, rest @ ..] = ops {
        line("DetachStorageOnly", "1".to_owned());
        ops = rest;
    }
    let takes_messages = method.is_none_or(|(key, _)| key == "StandardEject");
    for key in ["MessageContent", "MessageContent2", "MessageContent3"] {
        if let ([Op::Bulk(message), rest @ ..], true) = (ops, takes_messages) {
            line(key, format!("\"{message}\""));
            ops = rest;
        }
    }
    if let [Op::SetConfiguration(value), rest @ ..] = ops {
        line("Configuration", format!("{value:x}"));
        ops = rest;
    }
    if let [Op::AlternateSetting(value), rest @ ..] = ops {
        line("AltSetting", format!("{value:x}"));
        ops = rest;
    }
    if let [Op::Sleep(_), Op::Reset, rest @ ..] | [Op::Reset, rest @ ..] = ops {
        line("ResetUSB", "1".to_owned());
        ops = rest;
    }
    if ops.is_empty() { Ok(()) } else { Err("usb_modeswitch has no key for its operations") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(switch: &str) -> Result<String, &'static str> {
        let file = crate::database::layers::ConfigFile {
            layer: crate::database::layers::Layer::Shipped,
            path: "x.toml".into(),
        };
        let text = format!("schema = 1\n[[device]]\nid = \"1234:5678\"\nname = \"A\"\nsteps = [{switch}]\n");
        let (quirks, errors) = crate::database::quirks::fragment::parse(&file, &text);
        assert_eq!(errors, []);
        keys(&quirks[0])
    }

    #[test]
    fn steps_become_keys() {
        for (step, expected) in [
            ("{ switch = \"sierra\" }", "SierraMode=1\n"),
            ("{ switch = { target-class = 0xff, do = [\"eject\"] } }", "TargetClass=0xff\nStandardEject=1\n"),
            ("{ switch = [\"eject\", { bulk = \"0f\" }] }", "StandardEject=1\nMessageContent=\"0f\"\n"),
            ("{ switch = [{ bulk = \"0f\" }, { bulk = \"10\" }] }", "MessageContent=\"0f\"\nMessageContent2=\"10\"\n"),
            ("{ switch = [\"sony\", { set-configuration = 2 }] }", "SonyMode=1\nConfiguration=2\n"),
            ("{ switch = \"pantech\" }", "PantechMode=2\n"),
            ("{ switch = \"reset\" }", "ResetUSB=1\n"),
            ("{ configuration = 10 }", "Configuration=a\n"),
            ("{ configuration = \"preferred\" }", "Configuration=0\n"),
        ] {
            assert_eq!(keys_of(step).as_deref(), Ok(expected), "{step}");
        }
    }

    #[test]
    fn what_usb_modeswitch_cannot_express_is_left_out() {
        for step in [
            "{ fcc-auth = \"sierra\" }",
            "{ configuration = \"qmi\" }",
            "{ switch = \"sierra\" }, { configuration = \"qmi\" }",
            "{ switch = [\"huawei\", { bulk = \"0f\" }] }",
            "{ switch = [{ interrupt-out = { endpoint = 1, data = \"00\" } }] }",
        ] {
            assert!(keys_of(step).is_err(), "{step}");
        }
    }
}
