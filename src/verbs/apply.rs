//! `apply`: does by hand what the hook would do.

use std::io::Write;

use serde_json::json;

use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Occasion;
use crate::serve::run::{Run, look_up};

/// Serves the devices named, or all that the database knows.
pub fn run(
    root: &Root,
    names: &[String],
    unlock: bool,
    dry_run: bool,
    verbose: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<Exit, Error> {
    let devices = devices(root, names)?;
    let occasion = if unlock { Occasion::Unlock } else { Occasion::ByHand };
    if dry_run {
        return print_plans(root, &devices, &occasion, verbose, json, out);
    }
    let mut exit = Exit::Fine;
    let count = devices.len();
    for (index, device) in devices.into_iter().enumerate() {
        let (journal, last) = (Journal::open(root), index + 1 == count);
        let mut run =
            Run { root, journal, echo: Some(out), by_hand: true, asked: true, last, start: None, opted_in: None };
        exit = exit.max(run.serve(&device, &occasion));
    }
    Ok(exit)
}

/// The devices that `names` mean, or all that are plugged in.
pub fn devices(root: &Root, names: &[String]) -> Result<Vec<Device>, Error> {
    if names.is_empty() {
        return Ok(Device::all(root)?);
    }
    let mut devices: Vec<Device> = Vec::new();
    for name in names {
        for device in Device::named(root, name)? {
            if devices.iter().all(|known| known.port != device.port) {
                devices.push(device);
            }
        }
    }
    Ok(devices)
}

fn print_plans(
    root: &Root,
    devices: &[Device],
    occasion: &Occasion,
    verbose: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<Exit, Error> {
    let mut exit = Exit::Fine;
    let mut plans = Vec::new();
    for device in devices {
        let known = look_up(root, device, &mut |error| {
            exit = exit.max(error.exit());
            eprintln!("wwan-quirks: {error}");
        });
        let Some(known) = known else { continue };
        let steps = known.planned(device, occasion, verbose)?;
        let name = &known.quirk.name;
        if json {
            plans.push(
                json!({ "port": device.port.as_str(), "id": device.id.to_string(), "name": name, "plan": steps }),
            );
        } else {
            writeln!(out, "{} {} {}", device.port, device.id, name)?;
            for step in steps {
                writeln!(out, "  {step}")?;
            }
        }
    }
    if json {
        serde_json::to_writer_pretty(&mut *out, &plans)?;
        writeln!(out)?;
    }
    Ok(exit)
}
