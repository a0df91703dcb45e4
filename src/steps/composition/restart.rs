//! The restart of a modem with a new composition: whether the modem comes back, with which composition, and whether it
//! reports that composition.

use std::time::Duration;

use super::connect::Connector;
use super::dialogue::CompositionError;
use crate::bus::Bus;
use crate::database::compositions::{Composition, Compositions, Functions, Value};
use crate::host::deadline::Deadline;
use crate::host::sys;
use crate::modem::device::Device;
use crate::modem::device::descriptors::Configuration;
use crate::modem::device::vendor_interfaces::VendorInterfaces;
use crate::outcome::Failure;
use crate::usb::Function;

/// How long a modem may take to leave the bus after a reset, and then to return to it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);
const RETURN_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a modem may take to reply after its return to the bus.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one query for the composition may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const UDEV_IS_AT_WORK: &str = "/run/udev/queue";

/// Waits until the modem has left the bus, is back on the same port with this composition, and reports it. Returns a
/// description of its return.
pub(super) fn wait_for_return(connector: &Connector, device: &Device, chosen: &Composition) -> Result<String, Failure> {
    let by = Deadline::after(LEAVE_TIMEOUT);
    while device.is_present() {
        pause(by)?;
        if by.has_passed() {
            let reason = format!("composition {} is set, but the modem does not restart", chosen.value);
            return Err(Failure::new(reason, "power it off and on"));
        }
    }
    let by = Deadline::after(RETURN_TIMEOUT);
    let mut seen = "it has not come back".to_owned();
    let mut speaks_by: Option<Deadline> = None;
    while !by.has_passed() {
        pause(by)?;
        let Ok(back) = Device::at_port(connector.root, device.port.clone()) else {
            // Some modems leave and return several times.
            speaks_by = None;
            continue;
        };
        if !connector.compositions.knows(back.id) {
            seen = format!("it came back as {}, an ID that no family in compositions.toml has", back.id);
            continue;
        }
        seen = format!("it came back as {}", back.id);
        if !matches!(back.configuration(), Ok(Some(_))) {
            continue;
        }
        // While udev processes events, the port belongs to the events that unlock the modem.
        let Some(speaks_by) = speaks_by.filter(|_| !connector.root.at(UDEV_IS_AT_WORK).exists()) else {
            speaks_by = speaks_by.or_else(|| Some(Deadline::after(ANSWER_TIMEOUT)));
            continue;
        };
        match judge(connector, &back, chosen, speaks_by.has_passed()) {
            Return::Final(result) => return result,
            Return::Seen(what) => seen = what,
            Return::WithoutPort(what) => {
                seen = what;
                if speaks_by.has_passed() {
                    break;
                }
            }
        }
    }
    let reason = format!("composition {} is set, but the modem does not report it: {seen}", chosen.value);
    Err(Failure::new(reason, "see `wwan-quirks status`; power it off and on"))
}

/// What a modem that is back on the bus shows.
enum Return {
    Final(Result<String, Failure>),
    /// It may still change.
    Seen(String),
    WithoutPort(String),
}

/// Compares the modem on the bus with `chosen`, and asks it for its composition. `is_late`: it has had time to start.
fn judge(connector: &Connector, back: &Device, chosen: &Composition, is_late: bool) -> Return {
    let seen = format!("it came back as {}", back.id);
    // A composition number of QMI cannot be compared with a product ID. A modem without an AT port may be unable to
    // reply.
    let needs_answer = matches!(chosen.value, Value::Text(_)) && chosen.has_at_port();
    let is_on_bus = is_on_bus(connector.compositions, back, chosen);
    let current = connector.talk(back, QUERY_TIMEOUT, |dialogue| Ok(dialogue.read(None)?.current));
    match current.map(|current| chosen.is_same_as(&current)) {
        Ok(Some(false)) => {
            let reason = format!("{seen} with its previous composition, although it accepted {}", chosen.value);
            let remedy = "the modem's firmware may not support this composition; choose another one";
            Return::Final(Err(Failure::new(reason, remedy)))
        }
        Ok(_) if is_on_bus => {
            let hint = if lacks_driver(back, chosen) { ", which the kernel's qmi_wwan does not know" } else { "" };
            Return::Final(Ok(format!("the modem came back with this composition as {}{hint}", back.id)))
        }
        Err(fault) if is_on_bus && is_late && !needs_answer => {
            log::info!("{}: {fault}", back.port);
            Return::Final(Ok(format!("the modem came back as {}, and its descriptors match", back.id)))
        }
        Ok(_) => Return::Seen(format!("{seen}, but its descriptors do not match")),
        Err(CompositionError::NoPort) => Return::WithoutPort(format!("{seen} without an AT port")),
        Err(fault @ CompositionError::Unavailable(_)) if is_late => {
            let failure = fault.failure();
            let reason = format!("composition {} is set, and {seen}: {}", chosen.value, failure.reason);
            Return::Final(Err(Failure::new(reason, failure.remedy)))
        }
        Err(fault) => {
            log::debug!("{}: {fault}", back.port);
            Return::Seen(format!("{seen} and does not answer"))
        }
    }
}

/// Whether this is a composition with QMI of a family, and the kernel's qmi_wwan does not know the modem's ID.
fn lacks_driver(device: &Device, composition: &Composition) -> bool {
    matches!(composition.value, Value::Text(_))
        && composition.functions().contains(&Function::Qmi)
        && device.id.bus == Bus::Usb
        && VendorInterfaces::of(device.id, &[]).lacks_qmi()
}

fn pause(by: Deadline) -> Result<(), Failure> {
    by.sleep(POLL_INTERVAL);
    if sys::stop_requests() == 0 {
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
            let qmi = VendorInterfaces::of(device.id, &sierra.qmi_interfaces);
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
        None => has_network(found, &composition.functions(), &VendorInterfaces::of(device.id, &[])),
    }
}

/// Whether a configuration has the network functions of `wanted` and no others. QMI is compared only if the kernel's
/// qmi_wwan knows the modem's ID: without it, a QMI interface cannot be distinguished from a serial port. Nor can it if
/// the driver knows only its number, and `wanted` has no QMI.
fn has_network(configurations: &[Configuration], wanted: &Functions, qmi: &VendorInterfaces) -> bool {
    let compares_qmi = !qmi.lacks_qmi() && (wanted.contains(&Function::Qmi) || !qmi.has_numbers());
    let network = |functions: &mut dyn Iterator<Item = Function>| -> Functions {
        functions.filter(|it| it.is_network() && (*it != Function::Qmi || compares_qmi)).collect()
    };
    let compared = network(&mut wanted.iter().copied());
    let has = |found: &Configuration| network(&mut found.functions(qmi).into_iter()) == compared;
    !wanted.iter().any(|it| it.is_network()) || configurations.iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modem::device::descriptors::parse;
    use crate::modem::device::descriptors::samples::{configuration, device, interface};

    #[test]
    fn network_functions_are_those_of_the_kernels_drivers() {
        let has = |id: &str, class: [u8; 3], wanted: &[Function]| {
            let bytes = device(&[configuration(1, &[interface(4, class, &[(0x82, 3), (0x83, 2), (0x02, 2)])])]);
            let qmi = VendorInterfaces::of(id.parse().unwrap(), &[]);
            has_network(&parse(&bytes).unwrap().configurations, &wanted.iter().copied().collect(), &qmi)
        };
        let [qmi, ecm] = [[0xff, 0xff, 0xff], [0x02, 0x06, 0x00]];
        assert!(has("2c7c:0125", qmi, &[Function::Qmi, Function::Serial]));
        assert!(!has("2c7c:0125", ecm, &[Function::Qmi]) && has("2c7c:0125", ecm, &[Function::Ecm]));
        assert!(has("2c7c:0125", ecm, &[Function::Serial]));
        // The kernel does not know the QMI interface of these modems.
        for id in ["305a:1403", "2c7c:030c"] {
            assert!(has(id, qmi, &[Function::Qmi, Function::Serial]), "{id}");
            assert!(!has(id, ecm, &[Function::Qmi]) && !has(id, qmi, &[Function::Ecm]), "{id}");
        }
        assert!(has("12d1:1506", [0xff, 0x03, 0x16], &[Function::Ncm]));
    }

    /// The AT port of an EC21 with RNDIS has the number that QMI has in other compositions.
    #[test]
    fn an_interface_with_the_number_of_qmi_may_be_a_serial_port() {
        let interfaces = [
            interface(0, [0xe0, 0x01, 0x03], &[(0x81, 3)]),
            interface(1, [0x0a, 0x00, 0x00], &[(0x82, 2), (0x01, 2)]),
            interface(4, [0xff, 0x00, 0x00], &[(0x85, 3), (0x86, 2), (0x03, 2)]),
        ];
        let all = parse(&device(&[configuration(1, &interfaces)])).unwrap().configurations;
        let has = |id: &str, wanted: Function| {
            has_network(&all, &[wanted].into_iter().collect(), &VendorInterfaces::of(id.parse().unwrap(), &[]))
        };
        assert!(has("2c7c:0121", Function::Rndis) && has("2c7c:0125", Function::Rndis));
        assert!(!has("2c7c:0121", Function::Qmi) && !has("2c7c:0121", Function::Ecm));
    }
}
