//! The port over which a modem is queried for its composition: its control port (through a proxy if one holds it), or
//! its AT port.

use std::time::Duration;

use log::debug;

use super::dialogue::{CompositionError, Dialogue};
use super::family::FamilyAt;
use super::sierra_at::{Commands, SierraAt};
use super::sierra_qmi::SierraQmi;
use crate::bus::Bus;
use crate::database::compositions::{Compositions, Family, Sierra};
use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::host::sandbox::{self, GRACE};
use crate::host::state::{Holder, PortState, Task};
use crate::modem::access::{self, PortUnavailable, Sharing};
use crate::modem::device::{ControlPort, Device, DeviceError};
use crate::modem::link::OpenError;
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::session::qmi::Client;
use crate::modem::transport::{Protocol, over_qmi};
use crate::modem::wire::qmi::Service;

/// How long each of several ports may take to answer the first AT command.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct Connector<'a> {
    pub root: &'a Root,
    pub compositions: &'a Compositions,
    /// The password for AT!ENTERCND.
    pub password: Option<&'a str>,
}

impl Connector<'_> {
    /// Runs the conversation `talk` with the modem. Uses the control port if its vendor supports that, otherwise the AT
    /// port.
    pub(super) fn talk<T>(
        &self,
        device: &Device,
        budget: Duration,
        talk: impl Fn(&mut dyn Dialogue) -> Result<T, CompositionError>,
    ) -> Result<T, CompositionError> {
        let deadline = Deadline::after(budget);
        let _watchdog = sandbox::watchdog(budget + GRACE);
        // The lock excludes other runs on this modem.
        let holder = Holder { enumeration: device.enumeration_id(), task: Task::Composition };
        let state = PortState::lock_or_in_memory(self.root, &device.port, &holder, deadline, false)
            .map_err(CompositionError::Busy)?;
        let result = match self.compositions.sierra.as_ref().filter(|sierra| sierra.knows(device.id)) {
            Some(sierra) => self.talk_to_sierra(device, sierra, deadline, &talk),
            None => self.talk_to_family(device, deadline, &talk),
        };
        if let Err(CompositionError::Unavailable(PortUnavailable::Open(
            OpenError::NotReady { .. } | OpenError::Interrupted { .. },
        ))) = result
        {
            // A child process still opens the port.
            state.leave_to_child();
        }
        result
    }

    fn talk_to_sierra<T>(
        &self,
        device: &Device,
        sierra: &Sierra,
        deadline: Deadline,
        talk: impl Fn(&mut dyn Dialogue) -> Result<T, CompositionError>,
    ) -> Result<T, CompositionError> {
        match self.over_control_port(device, sierra, deadline, &talk) {
            Err(fault) if fault.is_unsupported() || matches!(fault, CompositionError::NoPort) => {
                let Some(tty) = device.tty(sierra.at_interface).map_err(not_read)? else { return Err(fault) };
                let password = self.password.unwrap_or(&sierra.password);
                self.over_at(device, &tty, deadline, deadline, |at| {
                    talk(&mut SierraAt::new(at, sierra, password, Commands::of(sierra, device.id)))
                })
            }
            result => result,
        }
    }

    fn over_control_port<T>(
        &self,
        device: &Device,
        sierra: &Sierra,
        deadline: Deadline,
        talk: impl Fn(&mut dyn Dialogue) -> Result<T, CompositionError>,
    ) -> Result<T, CompositionError> {
        let ports = device.control_ports().map_err(not_read)?;
        let speaks_qmi = !sierra.is_direct_ip(device.id) && !sierra.has_only_masks(device.id);
        let known = ports.iter().filter(|_| speaks_qmi).find_map(|port| Some((port, Protocol::of_port(port)?)));
        let (port, protocol) = known.ok_or(CompositionError::NoPort)?;
        let mut opened = access::open(self.root, device, port, protocol, Sharing::Possible, deadline)?;
        let transport = opened.transport();
        let by = if transport.protocol == Protocol::Mbim { "QMI in MBIM" } else { "QMI" };
        over_qmi(transport, deadline, |qmux| {
            let mut client = Client::allocate(qmux, Service::DMS, deadline)?;
            Ok(talk(&mut SierraQmi { client: &mut client, table: sierra, by }))
        })?
    }

    /// Uses the first port that answers AT commands, among the ports that the families name. Stops at a port that
    /// another program holds, because that program may be in the middle of a conversation.
    fn talk_to_family<T>(
        &self,
        device: &Device,
        deadline: Deadline,
        talk: impl Fn(&mut dyn Dialogue) -> Result<T, CompositionError>,
    ) -> Result<T, CompositionError> {
        let families: Vec<&Family> = self.compositions.families_of(device.id).collect();
        let mut last = CompositionError::NoPort;
        for port in at_ports(device, &families)? {
            let answers = deadline.at_most(PROBE_TIMEOUT);
            let over_this = |at: &mut Conversation| talk(&mut FamilyAt::new(at, families.clone(), device.id.bus));
            match self.over_at(device, &port, answers, deadline, over_this) {
                Err(
                    fault @ CompositionError::Session(
                        SessionError::NoAnswer { request: "ATE0" } | SessionError::Garbage { request: "ATE0", .. },
                    ),
                ) => {
                    debug!("{}: {} answers no AT command", device.port, port.name);
                    last = fault;
                }
                result => return result,
            }
        }
        Err(last)
    }

    /// Talks over an AT port, if the port answers the first command by `answers`.
    fn over_at<T>(
        &self,
        device: &Device,
        port: &ControlPort,
        answers: Deadline,
        deadline: Deadline,
        talk: impl FnOnce(&mut Conversation) -> Result<T, CompositionError>,
    ) -> Result<T, CompositionError> {
        let mut opened = access::open(self.root, device, port, Protocol::At, Sharing::Possible, deadline)?;
        let mut at = Conversation::open(opened.transport().port, answers)?;
        at.extend(deadline);
        talk(&mut at)
    }
}

/// The ports that may accept AT commands, in the order in which they are tried: ttys on USB, and AT ports of the
/// kernel's WWAN subsystem on PCI.
fn at_ports(device: &Device, families: &[&Family]) -> Result<Vec<ControlPort>, CompositionError> {
    if device.id.bus == Bus::Pci {
        let mut ports = device.control_ports().map_err(not_read)?;
        ports.retain(|port| Protocol::of_port(port) == Some(Protocol::At));
        return Ok(ports);
    }
    let descriptors = device.descriptors().map_err(not_read)?;
    let active = device.configuration().map_err(not_read)?;
    let configuration = descriptors.configurations.iter().find(|found| Some(found.value) == active);
    let mut numbers: Vec<u8> = Vec::new();
    for family in families {
        let interfaces = configuration.iter().flat_map(|configuration| &configuration.interfaces);
        let of_class = interfaces.filter(|interface| family.at_classes.contains(&interface.class_code()));
        numbers.extend(of_class.map(|interface| interface.number));
        numbers.extend(&family.at_interfaces);
    }
    let mut ports: Vec<ControlPort> = Vec::new();
    for number in numbers {
        let port = device.tty(number).map_err(not_read)?;
        ports.extend(port.filter(|port| !ports.contains(port)));
    }
    Ok(ports)
}

fn not_read(error: DeviceError) -> CompositionError {
    CompositionError::NotOpened(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::compositions::shipped;
    use crate::host::root::tests::TempRoot;
    use crate::modem::device::descriptors::samples::{configuration, device, interface};

    /// The interfaces are those in the `usb-devices` listings of luci-app-3ginfo-lite's issues 82 and 39.
    #[test]
    fn the_at_ports_of_an_l850_are_found_in_both_of_its_forms() {
        const ACM: [u8; 3] = [0x02, 0x02, 0x00];
        let order = |id: &str, ttys: &[u8], network: (u8, [u8; 3])| {
            let root = TempRoot::new("l850");
            let write = |name: &str, text: &[u8]| root.write(&format!("/sys/devices/usb1/1-1/{name}"), text);
            let (vendor, product) = id.split_once(':').unwrap();
            write("idVendor", vendor.as_bytes());
            write("idProduct", product.as_bytes());
            write("bConfigurationValue", b"1\n");
            let mut interfaces = vec![interface(network.0, network.1, &[(0x81, 3)])];
            interfaces.extend(ttys.iter().map(|number| interface(*number, ACM, &[(0x80 + number, 3)])));
            write("descriptors", &device(&[configuration(1, &interfaces)]));
            for number in ttys {
                write(&format!("1-1:1.{number}/bInterfaceNumber"), format!("{number:02x}\n").as_bytes());
                write(&format!("1-1:1.{number}/tty/ttyACM{number}/dev"), format!("166:{number}\n").as_bytes());
            }
            let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
            let compositions = shipped();
            let families: Vec<&Family> = compositions.families_of(device.id).collect();
            at_ports(&device, &families).unwrap().into_iter().map(|port| port.name).collect::<Vec<_>>()
        };
        // The debug port is last.
        assert_eq!(order("2cb7:0007", &[2, 4, 6], (0, [0x02, 0x0e, 0x00])), ["ttyACM2", "ttyACM6", "ttyACM4"]);
        assert_eq!(order("8087:095a", &[0, 2, 4], (6, [0x02, 0x0d, 0x00])), ["ttyACM0", "ttyACM2", "ttyACM4"]);
    }
}
