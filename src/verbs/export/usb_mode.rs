//! `usb-mode.json` of OpenWrt's `usbmode`.
//!
//! Numbers are decimal. `msg` refers to the list `messages`. The mode `MBIM` looks for an MBIM configuration. usbmode
//! takes the first entry of an ID whatever its strings, and does not compare the class of an interface. For this reason
//! entries that need either are left out.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::left_out::LeftOut;
use crate::database::quirks::switch::{Control, Op, Seconds};
use crate::database::quirks::{Model, Quirk, Select, Step, Switch};
use crate::usb::Function;
use crate::verbs::import::methods;

/// Modes of `usbmode`, and our methods for them. They have the names of usb_modeswitch's keys. usbmode has no mode for
/// `HuaweiAltMode`, and one with a value for `PantechMode`.
static MODES: LazyLock<Vec<(&str, Switch)>> = LazyLock::new(|| {
    let same = methods().filter(|(key, _)| !["HuaweiAltMode", "PantechMode"].contains(key));
    let modes = same.map(|(key, method)| (key.strip_suffix("Mode").unwrap_or(key), method));
    modes.map(|(mode, method)| (mode, Switch::built_in(method))).collect()
});

/// The whole file, and the entries that it cannot express.
pub(super) fn export(quirks: &[Quirk]) -> (Value, Vec<LeftOut<'_>>) {
    let (mut messages, mut devices, mut left_out) = (Vec::new(), Map::new(), Vec::new());
    for quirk in quirks {
        match entry(quirk, &mut messages) {
            Ok(entry) => {
                for model in &quirk.models {
                    devices.insert(model.id.to_string(), json!({ "*": with_targets(&entry, model) }));
                }
                if quirk.steps.iter().any(has_delay) {
                    left_out.push(LeftOut { quirk, reason: "only its delays, for which usbmode has no key" });
                }
            }
            Err(reason) => left_out.push(LeftOut { quirk, reason }),
        }
    }
    (json!({ "messages": messages, "devices": devices }), left_out)
}

fn with_targets(entry: &Map<String, Value>, model: &Model) -> Value {
    let mut entry = entry.clone();
    if let Some(first) = model.becomes.first() {
        let same = model.becomes.iter().filter(|target| target.id.vendor == first.id.vendor);
        let products: Vec<u16> = same.map(|target| target.id.product).collect();
        entry.insert("t_vendor".to_owned(), json!(first.id.vendor));
        entry.insert("t_product".to_owned(), json!(products));
    }
    Value::Object(entry)
}

fn entry(quirk: &Quirk, messages: &mut Vec<String>) -> Result<Map<String, Value>, &'static str> {
    if !quirk.matchers.is_empty() {
        return Err("usbmode does not compare strings reliably");
    }
    let mut entry = Map::new();
    for step in &quirk.steps {
        match step {
            Step::Switch(Switch { interface_class: Some(_), .. }) => {
                return Err("usbmode does not compare the class of an interface");
            }
            Step::Switch(_) if !entry.is_empty() => return Err("usbmode switches before it sets a configuration"),
            Step::Switch(switch) => switch_keys(switch, &mut entry, messages)?,
            Step::Configuration { select: Select::Preferred | Select::Function(Function::Mbim), .. } => {
                add(&mut entry, "mode", json!("MBIM"))?;
            }
            Step::Configuration { select: Select::Value(value), .. }
            | Step::Configuration { fallback: Some(value), .. } => add(&mut entry, "config", json!(value))?,
            Step::Configuration { select: Select::Function(_), .. } => {
                return Err("usbmode has no key for a function other than MBIM");
            }
            Step::Configuration { select: Select::Keep, .. } | Step::FccAuth(_) => {}
        }
    }
    if entry.is_empty() { Err("usbmode has no key for its steps") } else { Ok(entry) }
}

/// Adds a key that only one step can have.
fn add(entry: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), &'static str> {
    match entry.insert(key.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err("usbmode has one mode and one configuration per entry"),
    }
}

fn has_delay(step: &Step) -> bool {
    let Step::Switch(Switch { wait_before: Seconds(wait), release_delay: Seconds(delay), .. }) = step else {
        return false;
    };
    !wait.is_zero() || !delay.is_zero()
}

fn switch_keys(
    switch: &Switch,
    entry: &mut Map<String, Value>,
    messages: &mut Vec<String>,
) -> Result<(), &'static str> {
    for (key, value) in [
        ("interface", switch.interface),
        ("msg_endpoint", switch.out),
        ("response_endpoint", switch.r#in),
        ("t_class", switch.target_class),
    ] {
        if let Some(value) = value {
            entry.insert(key.to_owned(), json!(value));
        }
    }
    let mut ops = switch.ops();
    let mode = MODES.iter().find_map(|(mode, method)| Some((*mode, ops.strip_prefix(method.ops())?)));
    if let Some((mode, rest)) = mode {
        ops = rest;
        entry.insert("mode".to_owned(), json!(mode));
    } else if let [Op::Detach, Op::Control(Control { request_type: 0x40, request: 0x70, value, .. }), rest @ ..] = ops {
        entry.insert("mode".to_owned(), json!("Pantech"));
        entry.insert("modeval".to_owned(), json!(value));
        ops = rest;
    }
    let mut indexes = Vec::new();
    let takes_messages = mode.is_none_or(|(mode, _)| mode == "StandardEject");
    while let ([Op::Bulk(message), rest @ ..], true) = (ops, takes_messages) {
        if message.is_cbw() {
            entry.insert("response".to_owned(), json!(true));
        }
        let hex = message.to_string();
        let known = messages.iter().position(|known| *known == hex);
        indexes.push(known.unwrap_or_else(|| {
            messages.push(hex);
            messages.len() - 1
        }));
        ops = rest;
    }
    if !indexes.is_empty() {
        entry.insert("msg".to_owned(), json!(indexes));
        entry.entry("mode").or_insert_with(|| json!("Generic"));
    }
    if let [Op::SetConfiguration(value), rest @ ..] = ops {
        entry.insert("config".to_owned(), json!(value));
        ops = rest;
    }
    if let [Op::AlternateSetting(value), rest @ ..] = ops {
        entry.insert("alt".to_owned(), json!(value));
        ops = rest;
    }
    if ops.is_empty() { Ok(()) } else { Err("usbmode has no key for its operations") }
}
