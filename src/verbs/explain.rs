//! `explain`: which quirk applies, from where, which policy, and the plan that follows.

use std::fmt::Display;
use std::io::Write;

use serde_json::{Value, json};

use crate::database::policy::{Policy, Setting};
use crate::database::quirks;
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Occasion;
use crate::serve::run::{Known, NOTHING_YET, look_up};
use crate::usb::Port;
use crate::usb::UsbId;

/// Explains a device that is plugged in, or an ID; byte for byte where `verbose`.
pub fn run(root: &Root, name: &str, verbose: bool, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut exit = Exit::Fine;
    let mut complain = |error: Error| {
        exit = exit.max(error.exit());
        eprintln!("wwan-quirks: {error}");
    };
    let explained = match (Device::named(root, name), name.parse::<UsbId>()) {
        (Ok(devices), _) => {
            let mut explained = Vec::new();
            for device in devices {
                let known = look_up(root, &device, &mut complain);
                let planned = match &known {
                    Some(known) => known.planned(&device, &Occasion::ByHand, verbose)?,
                    None => Vec::new(),
                };
                explained.push(Explained { port: Some(device.port.clone()), id: device.id, known, planned });
            }
            explained
        }
        (Err(_), Ok(id)) => vec![of_id(root, id, &mut complain)],
        (Err(error), Err(_)) => return Err(error.into()),
    };
    if json {
        let values: Vec<Value> = explained.iter().map(Explained::json).collect();
        serde_json::to_writer_pretty(&mut *out, &values)?;
        writeln!(out)?;
    } else {
        for explained in &explained {
            explained.print(out)?;
        }
    }
    Ok(exit)
}

/// What would hold for a device of this ID, if nothing else were known of it.
fn of_id(root: &Root, id: UsbId, complain: &mut dyn FnMut(Error)) -> Explained {
    let found = quirks::lookup(root, id, |_| None);
    let (policy, errors) = Policy::load(root);
    let is_sure = found.errors.is_empty() && errors.is_empty();
    found.errors.into_iter().for_each(|error| complain(error.into()));
    errors.into_iter().for_each(|error| complain(error.into()));
    let known = found.quirk.map(|quirk| Known { policy: policy.resolve(id, None, || None), quirk, is_sure });
    let planned = match &known {
        Some(known) if is_sure => {
            known.quirk.steps.iter().map(|step| format!("{step}, once it is plugged in")).collect()
        }
        Some(_) => vec![NOTHING_YET.to_owned()],
        None => Vec::new(),
    };
    Explained { port: None, id, planned, known }
}

struct Explained {
    port: Option<Port>,
    id: UsbId,
    known: Option<Known>,
    planned: Vec<String>,
}

impl Explained {
    fn settings(known: &Known) -> [(&'static str, String, String); 5] {
        fn row<T>(name: &'static str, setting: &Setting<T>, value: impl Display) -> (&'static str, String, String) {
            (name, value.to_string(), setting.origin.to_string())
        }
        let policy = &known.policy;
        [
            row("prefer", &policy.prefer, policy.prefer.value),
            row("switch", &policy.switch, policy.switch.value),
            row("fcc-auth", &policy.fcc_auth, policy.fcc_auth.value),
            row("timeouts.hook", &policy.hook, policy.hook.value.as_secs_f64()),
            row("timeouts.modem-ready", &policy.modem_ready, policy.modem_ready.value.as_secs_f64()),
        ]
    }

    fn print(&self, out: &mut impl Write) -> Result<(), Error> {
        let port = self.port.as_ref().map_or("not plugged in", Port::as_str);
        let Some(known) = &self.known else {
            writeln!(out, "{} ({port}): no quirk applies, and nothing is done", self.id)?;
            return Ok(());
        };
        let Known { quirk, .. } = known;
        writeln!(out, "{} ({port}): {}", self.id, quirk.name)?;
        writeln!(out, "  quirk   {}", quirk.place)?;
        if let Some(note) = &quirk.note {
            writeln!(out, "  note    {note}")?;
        }
        for (name, value, origin) in Self::settings(known) {
            writeln!(out, "  policy  {name} = {value}  ({origin})")?;
        }
        for step in &self.planned {
            writeln!(out, "  plan    {step}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let known = self.known.as_ref();
        let policy = known.map(|known| {
            let settings =
                Self::settings(known).map(|(name, value, origin)| (name, json!({ "value": value, "origin": origin })));
            settings.into_iter().collect::<std::collections::BTreeMap<_, _>>()
        });
        json!({
            "port": self.port.as_ref().map(Port::as_str),
            "id": self.id.to_string(),
            "name": known.map(|known| &known.quirk.name),
            "note": known.and_then(|known| known.quirk.note.as_ref()),
            "quirk": known.map(|known| &known.quirk.place),
            "policy": policy,
            "plan": self.planned,
        })
    }
}
