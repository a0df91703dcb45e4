//! What the plan needs to know about a device, read once from sysfs and `/proc`.

use crate::bus::Bus;
use crate::database::quirks::{Procedure, Quirk, Step};
use crate::host::mounts::Mounts;
use crate::host::root::Root;
use crate::host::sys;
use crate::modem::access;
use crate::modem::device::descriptors::Descriptors;
use crate::modem::device::vendor_interfaces::VendorInterfaces;
use crate::modem::device::{ControlPort, Device, DeviceError, Drive};
use crate::modem::transport::Protocol;
use crate::serve::event::Scope;
use crate::serve::run::Run;

/// What the steps of the quirk in this scope need to know.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The kernel is allowed to use the device (`authorized`).
    pub authorized: bool,
    /// Empty if no step needs the descriptors, or if they cannot be read.
    pub descriptors: Descriptors,
    /// Why the descriptors cannot be read.
    pub unreadable: Option<String>,
    /// The interfaces that have QMI.
    pub qmi: VendorInterfaces,
    /// The active configuration; `None` if the device is unconfigured.
    pub configuration: Option<u8>,
    /// Ports that may carry an unlock.
    pub ports: Vec<ControlPort>,
    /// What uses the modem, if the run must not disturb it.
    pub used_by: Option<String>,
    /// A drive of the device that is in use, if the run must not eject it.
    pub used_drive: Option<String>,
}

pub(crate) fn snapshot(run: &Run, quirk: &Quirk) -> Result<Snapshot, DeviceError> {
    let Run { root, device, scope, trigger, deadline } = *run;
    let mut snapshot = Snapshot { authorized: device.is_authorized(), ..Snapshot::default() };
    let has = |step: fn(&Step) -> bool| quirk.steps.iter().any(step);
    let needs_descriptors = |step: &Step| match step {
        Step::Switch(switch) => switch.needs_interfaces(),
        step => matches!(step, Step::Configuration { .. }),
    };
    let is_for_device = matches!(scope, Scope::Device | Scope::All);
    if is_for_device && has(needs_descriptors) {
        match device.descriptors() {
            Ok(descriptors) => snapshot.descriptors = descriptors,
            Err(error @ DeviceError::Gone { .. }) => return Err(error),
            Err(error) => snapshot.unreadable = Some(error.to_string()),
        }
        snapshot.configuration = device.configuration_by(deadline)?;
        // Only a device with several configurations can change its configuration.
        if snapshot.descriptors.configurations.len() > 1 {
            snapshot.qmi = VendorInterfaces::of(device.id, &quirk.qmi_interfaces);
            if trigger.spares_users() {
                snapshot.used_by = used_by(root, device)?;
            }
        }
    }
    if is_for_device && has(|step| matches!(step, Step::Switch(_))) && trigger.spares_drives() {
        snapshot.used_drive = used_drive(root, device);
    }
    if *scope != Scope::Device {
        snapshot.ports = unlock_ports(device, quirk)?;
    }
    Ok(snapshot)
}

/// The ports that can carry an unlock, each once.
pub(crate) fn unlock_ports(device: &Device, quirk: &Quirk) -> Result<Vec<ControlPort>, DeviceError> {
    let mut found = Vec::new();
    for procedure in quirk.procedures() {
        for port in ports(device, Some(procedure))? {
            if !found.contains(&port) {
                found.push(port);
            }
        }
    }
    Ok(found)
}

/// The ports that can carry `procedure`. Without a procedure, the ports for any conversation with the modem.
pub(crate) fn ports(device: &Device, procedure: Option<&Procedure>) -> Result<Vec<ControlPort>, DeviceError> {
    if device.id.bus == Bus::Pci {
        let is_wanted = |port: &ControlPort| match procedure {
            Some(procedure) => Protocol::of_port(port) == procedure.wwan_protocol(),
            None => true,
        };
        return Ok(device.control_ports()?.into_iter().filter(is_wanted).collect());
    }
    match procedure.and_then(Procedure::interface) {
        Some(interface) => Ok(device.tty(interface)?.into_iter().collect()),
        None => device.control_ports(),
    }
}

/// A drive whose content may be lost if it is ejected. That of a CD-ROM is not.
fn used_drive(root: &Root, device: &Device) -> Option<String> {
    let drives = device.drives();
    let mounts = match Mounts::read(root) {
        _ if drives.is_empty() => return None,
        Err(error) => return Some(format!("the mounted file systems are not known ({error})")),
        Ok(mounts) => mounts,
    };
    drives.into_iter().find_map(|Drive { name, number, has_holders }| match mounts.has_writable(&name, &number) {
        true => Some(format!("/dev/{name} is mounted for writing")),
        false => has_holders.then(|| format!("another block device is on /dev/{name}")),
    })
}

/// What uses the modem: a program that holds a control port or a tty, or a network interface that is up.
fn used_by(root: &Root, device: &Device) -> Result<Option<String>, DeviceError> {
    let ports = device.control_ports()?.into_iter().chain(device.usb_wwan_ports()?).chain(device.ttys()?);
    for port in ports {
        match access::users(root, &port) {
            Ok(users) if users.is_empty() => {}
            Ok(users) => return Ok(Some(format!("{} holds /dev/{}", access::names(&users), port.name))),
            // This process may not change the configuration either. The run reports that.
            Err(error) if sys::lacks_root(&error) => {}
            Err(error) => return Ok(Some(format!("unknown programs ({error})"))),
        }
    }
    Ok(device.network_interface_up()?.map(|name| format!("the network interface {name} is up")))
}
