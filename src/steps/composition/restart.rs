//! The restart of a modem with a new composition: whether the modem comes back, with which composition, and whether it
//! reports that composition.

use std::thread;
use std::time::Duration;

use super::reach::Reach;
use super::{Fault, QUESTION};
use crate::bus::Bus;
use crate::database::compositions::{Composition, Compositions, Functions, Value};
use crate::host::deadline::Deadline;
use crate::host::sys;
use crate::modem::device::Device;
use crate::modem::device::descriptors::Configuration;
use crate::modem::device::qmi_wwan::QmiInterfaces;
use crate::outcome::Failure;
use crate::usb::Function;

/// How long a modem may take to leave the bus after a reset, and then to return to it.
const LEAVING: Duration = Duration::from_secs(20);
const RETURNING: Duration = Duration::from_secs(90);
/// How long a modem may take to reply after its return to the bus.
const SPEAKING: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);
const UDEV_IS_AT_WORK: &str = "/run/udev/queue";

/// Waits until the modem has left the bus, is back on the same port with this composition, and reports it. Returns a
/// description of its return.
pub(super) fn wait_for_return(reach: &Reach, device: &Device, chosen: &Composition) -> Result<String, Failure> {
    let by = Deadline::after(LEAVING);
    while device.is_present() {
        rest()?;
        if by.has_passed() {
            let reason = format!("composition {} is set, but the modem does not restart", chosen.value);
            return Err(Failure::new(reason, "power it off and on"));
        }
    }
    let by = Deadline::after(RETURNING);
    let mut seen = "it has not come back".to_owned();
    let mut speaks_by: Option<Deadline> = None;
    // A composition number of QMI cannot be compared with a product ID. A modem without an AT port may be unable to
    // reply.
    let needs_answer = matches!(chosen.value, Value::Text(_)) && chosen.has_at_port();
    while !by.has_passed() {
        rest()?;
        let Ok(back) = Device::at_port(reach.root, device.port.clone()) else {
            // Some modems leave and return several times.
            speaks_by = None;
            continue;
        };
        seen = format!("it came back as {}", back.id);
        if !reach.compositions.knows(back.id) || !matches!(back.configuration(), Ok(Some(_))) {
            continue;
        }
        let is_on_bus = is_on_bus(reach.compositions, &back, chosen);
        // While udev processes events, the port belongs to the events that unlock the modem.
        let Some(speaks_by) = speaks_by.filter(|_| !reach.root.at(UDEV_IS_AT_WORK).exists()) else {
            speaks_by = speaks_by.or_else(|| Some(Deadline::after(SPEAKING)));
            continue;
        };
        let current = reach.talk(&back, QUESTION, |dialogue| Ok(dialogue.read(None)?.current));
        match current.map(|current| chosen.is(&current)) {
            Ok(Some(false)) => {
                let reason = format!("{seen} with its previous composition, although it accepted {}", chosen.value);
                return Err(Failure::new(reason, "its firmware may not support this composition; choose another one"));
            }
            Ok(_) if is_on_bus => return Ok(format!("the modem came back with this composition as {}", back.id)),
            Err(fault) if is_on_bus && speaks_by.has_passed() && !needs_answer => {
                log::info!("{}: {fault}", back.port);
                return Ok(format!("the modem came back as {}, and its descriptors match", back.id));
            }
            Ok(_) => seen = format!("it came back as {}, but its descriptors do not match", back.id),
            Err(Fault::NoPort) => {
                seen = format!("it came back as {} without an AT port", back.id);
                if speaks_by.has_passed() {
                    break;
                }
            }
            Err(fault @ Fault::Unavailable(_)) if speaks_by.has_passed() => {
                let failure = fault.failure();
                let reason = format!("composition {} is set, and {seen}: {}", chosen.value, failure.reason);
                return Err(Failure::new(reason, failure.remedy));
            }
            Err(fault) => {
                seen = format!("it came back as {} and does not answer", back.id);
                log::debug!("{}: {fault}", back.port);
            }
        }
    }
    let reason = format!("composition {} is set, but the modem does not report it: {seen}", chosen.value);
    Err(Failure::new(reason, "see `wwan-quirks status`; power it off and on"))
}

fn rest() -> Result<(), Failure> {
    thread::sleep(LOOK);
    if sys::stops() == 0 {
        return Ok(());
    }
    Err(Failure::new("stopped by a signal while the modem restarts", "see `wwan-quirks status`"))
}

/// Whether ID and descriptors of `device` match this composition, as far as it is known. Always `true` on PCI.
pub(super) fn is_on_bus(compositions: &Compositions, device: &Device, composition: &Composition) -> bool {
    match composition.value {
        _ if device.id.bus == Bus::Pci => return true,
        Value::Product(product) => return device.id.product == product,
        _ if composition.id.is_some_and(|id| id != device.id) => return false,
        _ if composition.configurations.is_empty() => return true,
        _ => {}
    }
    let Ok(descriptors) = device.descriptors() else { return false };
    let found = &descriptors.configurations;
    match compositions.sierra.as_ref().filter(|sierra| sierra.knows(device.id)) {
        Some(sierra) => {
            let qmi = QmiInterfaces::of(device.id, &sierra.qmi_interfaces);
            // The QMI interfaces of EM919x and EM929x are not known.
            let known: &[Function] = match sierra.has_only_masks(device.id) {
                true => &[Function::Mbim],
                false => &[Function::Mbim, Function::Qmi],
            };
            let same = |(wanted, found): (&Functions, &Configuration)| {
                let has = |function| found.functions(&qmi).contains(&function);
                let at_port = found.interfaces.iter().any(|on| on.number == sierra.at_interface);
                known.iter().all(|it| wanted.contains(it) == has(*it)) && wanted.contains(&Function::Serial) == at_port
            };
            let all = &composition.configurations;
            all.len() == found.len() && all.iter().zip(found).all(same)
        }
        None => {
            let is_network = |function: &Function| function.is_network();
            let wanted: Functions = composition.functions().into_iter().filter(is_network).collect();
            let qmi = QmiInterfaces::of(device.id, &[]);
            let has = |found: &Configuration| {
                found.functions(&qmi).into_iter().filter(is_network).collect::<Functions>() == wanted
            };
            wanted.is_empty() || found.iter().any(has)
        }
    }
}
