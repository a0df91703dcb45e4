//! `explain`: which quirk applies, from where, which policy, and the plan that follows.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::database::policy::{Policy, Resolved, Setting};
use crate::database::quirks;
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::lookup::{MatchedDevice, lookup};
use crate::serve::{NO_ACTION, preview};
use crate::usb::Port;
use crate::usb::UsbId;
use crate::verbs::output::print_json;

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
                let (known, errors) = lookup(root, &device);
                errors.into_iter().for_each(&mut complain);
                let planned = match &known {
                    Some(known) => preview(root, &device, &Scope::All, known, verbose)?,
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
        print_json(out, "explain", &json!({ "devices": values }))?;
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
    let known =
        found.quirk.map(|quirk| MatchedDevice { policy: policy.resolve(id, None, || None), quirk, complete: is_sure });
    let planned = match &known {
        Some(known) if is_sure => {
            known.quirk.steps.iter().map(|step| format!("{step}, once it is plugged in")).collect()
        }
        Some(_) => vec![NO_ACTION.to_owned()],
        None => Vec::new(),
    };
    Explained { port: None, id, planned, known }
}

struct Explained {
    port: Option<Port>,
    id: UsbId,
    known: Option<MatchedDevice>,
    planned: Vec<String>,
}

impl Explained {
    fn print(&self, out: &mut impl Write) -> Result<(), Error> {
        let port = self.port.as_ref().map_or("not plugged in", Port::as_str);
        let Some(known) = &self.known else {
            writeln!(out, "{} ({port}): no quirk applies, and nothing is done", self.id)?;
            return Ok(());
        };
        let MatchedDevice { quirk, .. } = known;
        writeln!(out, "{} ({port}): {}", self.id, quirk.name)?;
        writeln!(out, "  quirk   {}", quirk.location)?;
        if let Some(note) = &quirk.note {
            writeln!(out, "  note    {note}")?;
        }
        let Resolved { prefer, switch, fcc_auth, hook, modem_ready } = &known.policy;
        let (prefer_value, switch_value, fcc_auth_value) = (prefer.value, switch.value, fcc_auth.value);
        writeln!(out, "  policy  prefer = {prefer_value}  ({})", prefer.origin)?;
        writeln!(out, "  policy  switch = {switch_value}  ({})", switch.origin)?;
        writeln!(out, "  policy  fcc-auth = {fcc_auth_value}  ({})", fcc_auth.origin)?;
        for (name, timeout) in [("hook", hook), ("modem-ready", modem_ready)] {
            writeln!(out, "  policy  timeouts.{name} = {}  ({})", timeout.value.as_secs_f64(), timeout.origin)?;
        }
        for step in &self.planned {
            writeln!(out, "  plan    {step}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let known = self.known.as_ref();
        let seconds =
            |timeout: &Setting<Duration>| json!({ "value": timeout.value.as_secs_f64(), "origin": timeout.origin });
        let policy = known.map(|known| {
            let Resolved { prefer, switch, fcc_auth, hook, modem_ready } = &known.policy;
            let timeouts = json!({ "hook": seconds(hook), "modem-ready": seconds(modem_ready) });
            json!({ "prefer": prefer, "switch": switch, "fcc-auth": fcc_auth, "timeouts": timeouts })
        });
        json!({
            "port": self.port.as_ref().map(Port::as_str),
            "id": self.id.to_string(),
            "name": known.map(|known| &known.quirk.name),
            "note": known.and_then(|known| known.quirk.note.as_ref()),
            "quirk": known.map(|known| &known.quirk.location),
            "policy": policy,
            "plan": self.planned,
        })
    }
}
