//! Checks the values of an entry.

use crate::bus::{Bus, DeviceId};
use crate::database::quirks::{DeviceString, Gtfcclock, NewId, Procedure, Quirk, Step};

/// Checks the names, which become part of a command.
pub(super) fn check_names(NewId { module, driver, .. }: &NewId) -> Result<(), String> {
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_plain(module) && is_plain(driver) {
        return Ok(());
    }
    Err("the name of a module or driver may contain only letters, digits, `_` and `-`".to_owned())
}

/// Checks that no step occurs twice, and that each step has what it needs.
pub(super) fn check_steps(quirk: &Quirk) -> Result<(), String> {
    // A modem can have one of several locks.
    let kind = |step: &Step| match step {
        Step::FccAuth(procedure) => procedure.to_string(),
        step => step.kind().to_string(),
    };
    for (at, step) in quirk.steps.iter().enumerate() {
        if quirk.steps.iter().take(at).any(|other| kind(other) == kind(step)) {
            return Err(match step {
                Step::FccAuth(procedure) => format!("the unlock procedure {procedure} occurs twice"),
                step => format!("two {} steps: an entry can have only one", step.kind()),
            });
        }
        check_step(step, quirk.is_pci())?;
    }
    Ok(())
}

/// Checks that a step is possible on the bus, and can have an effect.
fn check_step(step: &Step, is_pci: bool) -> Result<(), String> {
    let is_keyless = |strings: &[String]| strings.is_empty() || strings.iter().any(String::is_empty);
    match step {
        Step::FccAuth(Procedure::Xmm { .. }) if !is_pci => {
            Err(format!("{step} is for PCI modems, but this is a USB ID"))
        }
        Step::Switch(_) | Step::Configuration { .. } | Step::FccAuth(Procedure::Sierra) if is_pci => {
            Err(format!("{step} is for USB modems, but this is a PCI ID"))
        }
        Step::FccAuth(Procedure::Gtfcclock(Gtfcclock { interface, .. })) if is_pci == interface.is_some() => {
            Err(match is_pci {
                true => "a PCI modem has no `interface`: omit the key".to_owned(),
                false => "gtfcclock needs `interface`, the number of the interface with the AT port".to_owned(),
            })
        }
        Step::FccAuth(procedure @ Procedure::Foxconn { magic, .. }) if magic.is_empty() => {
            Err(format!("{procedure} needs the magic string of the vendor"))
        }
        Step::FccAuth(procedure) if procedure.oem_strings().is_some_and(is_keyless) => {
            Err("oem-strings needs at least one string, and none may be empty".to_owned())
        }
        _ => Ok(()),
    }
}

/// Several manufacturers use Qualcomm's own PCI IDs.
const SHARED_PCI_VENDOR: u16 = 0x17cb;

/// Checks that an entry has only keys that are possible on the bus of its IDs.
pub(super) fn fits_bus(quirk: &Quirk) -> Result<(), String> {
    let subsystem = quirk.matchers.contains_key(&DeviceString::Subsystem);
    let (pci, usb): (Vec<DeviceId>, Vec<DeviceId>) = quirk.ids().partition(|id| id.bus == Bus::Pci);
    if !pci.is_empty() && !usb.is_empty() {
        return Err("an entry cannot have both USB IDs and PCI IDs".to_owned());
    }
    if pci.is_empty() {
        return if subsystem { Err("only PCI IDs have a subsystem".to_owned()) } else { Ok(()) };
    }
    if let Some(shared) = pci.iter().find(|id| id.vendor == SHARED_PCI_VENDOR && !subsystem) {
        return Err(format!("several manufacturers use {shared}: the entry needs a subsystem, such as \"105b:*\""));
    }
    if let Some(string) = quirk.matchers.keys().find(|string| **string != DeviceString::Subsystem) {
        return Err(format!("a PCI device has no {string}"));
    }
    let of_usb = [
        ("qmi-interfaces", !quirk.qmi_interfaces.is_empty()),
        ("online-after-reset", quirk.online_after_reset.is_some()),
        ("new-id", quirk.new_id.is_some()),
    ];
    match of_usb.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(format!("`{key}` is for USB modems, but this is a PCI ID")),
        None => Ok(()),
    }
}
