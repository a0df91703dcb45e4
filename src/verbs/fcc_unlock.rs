//! `VID:PID`: unlocks a modem for ModemManager, through ModemManager's own mechanism.
//!
//! An administrator links `/etc/ModemManager/fcc-unlock.d/VID:PID` to this program. If ModemManager fails to switch on
//! the radio, it runs the link as `VID:PID DBUS-PATH PORT…`, and then tries again. It discards the output, and kills a
//! program that takes 5 s (`MAX_FCC_UNLOCK_EXEC_TIME_SECS` in its `mm-dispatcher-fcc-unlock.c`). The program must be an
//! executable regular file that only root can write, or a link to such a file (`mm-dispatcher.c`).

use std::ffi::OsString;
use std::path::Path;

use crate::bus::DeviceId;
use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sys;
use crate::modem::device::{Device, DeviceError};
use crate::outcome::StepResult;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::lookup::lookup;
use crate::serve::serve;
use crate::serve::trigger::Trigger;

/// The names of the ports (`cdc-wdm0`, `wwan0mbim0`), if the program was called by an ID or a vendor ID instead of its
/// own name.
pub fn called_for(arguments: impl IntoIterator<Item = OsString>) -> Option<Vec<String>> {
    let mut arguments = arguments.into_iter();
    let name = arguments.next()?;
    let name = Path::new(&name).file_name()?.to_str()?;
    // The scripts of ModemManager have the name of a vendor, `1199`. The ports identify the modem in any case.
    let is_vendor = name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_vendor && name.parse::<DeviceId>().is_err() {
        return None;
    }
    // The first argument is the modem's D-Bus path, which is not needed.
    Some(arguments.skip(1).filter_map(|port| port.into_string().ok()).collect())
}

/// Unlocks the modem that has these ports, regardless of the policy: the administrator asked for it with the link.
pub fn run(root: &Root, ports: &[String]) -> Exit {
    let journal = Journal::open(root);
    match locked(root, ports) {
        Ok(device) => {
            let served = serve(root, &journal, &device, &Scope::Unlock, Trigger::ModemManager);
            if served.steps.iter().any(|report| report.result == StepResult::Suppressed) {
                continue_later(root, &device);
            }
            served.exit(&Scope::Unlock, Trigger::ModemManager)
        }
        Err(reason) => {
            journal.send(StepResult::Failed, &format!("fcc-unlock.d: {reason}"), &[]);
            Exit::Failed
        }
    }
}

/// Lets another process unlock the modem. ModemManager holds its AT ports while it waits for this one, and closes them
/// when it fails to switch on the radio. The next attempt to enable the modem then succeeds.
fn continue_later(root: &Root, device: &Device) {
    let later = sys::detached((), || {
        serve(root, &Journal::open(root), device, &Scope::Unlock, Trigger::AfterModemManager);
    });
    if let Err(errno) = later {
        log::warn!("{}: cannot start a process to continue after this call: {errno}", device.port);
    }
}

/// The modem that has these ports, if a quirk unlocks it. Otherwise, the reason why there is none.
fn locked(root: &Root, ports: &[String]) -> Result<Device, String> {
    match device(root, ports) {
        Ok(device) if has_lock(root, &device) => Ok(device),
        Ok(device) => {
            Err(format!("{} {}: no quirk unlocks this modem (see `wwan-quirks explain {0}`)", device.port, device.id))
        }
        Err(Some(error)) => Err(format!("no modem for ModemManager's ports {ports:?}: {}", Error::from(error).chain())),
        Err(None) => Err("ModemManager passed no ports, so the modem is not known".to_owned()),
    }
}

/// The modem of the first port that this program knows. The error is the one of the last port, if there are ports.
fn device(root: &Root, ports: &[String]) -> Result<Device, Option<DeviceError>> {
    let mut last = None;
    for port in ports {
        match Device::one_named(root, &format!("/dev/{port}")) {
            Ok(device) => return Ok(device),
            Err(error) => last = Some(error),
        }
    }
    Err(last)
}

fn has_lock(root: &Root, device: &Device) -> bool {
    // The run reports an invalid file.
    let (matched, errors) = lookup(root, device);
    !errors.is_empty() || matched.is_some_and(|matched| matched.quirk.procedure().is_some())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::root::tests::TempRoot;

    fn called(arguments: &[&str]) -> Option<Vec<String>> {
        called_for(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_name_of_the_call_selects_the_entry_point() {
        let path = "/org/freedesktop/ModemManager1/Modem/0";
        let ports = called(&["/etc/ModemManager/fcc-unlock.d/1199:9079", path, "cdc-wdm0", "ttyUSB0"]);
        assert_eq!(ports, Some(vec!["cdc-wdm0".to_owned(), "ttyUSB0".to_owned()]));
        assert_eq!(called(&["1199:9079"]), Some(Vec::new()));
        assert_eq!(
            called(&["/etc/ModemManager/fcc-unlock.d/14C3", path, "wwan0at0"]),
            Some(vec!["wwan0at0".to_owned()])
        );
        for own in [
            "/usr/sbin/wwan-quirks",
            "wwan-quirks",
            "",
            "119",
            "quir",
            "/1199:9079/hook",
            "/etc/fcc-unlock.d/1199:9079.sh",
        ] {
            assert_eq!(called(&[own, "hook", "cdc-wdm0"]), None, "{own}");
        }
        assert_eq!(called(&[]), None);
    }

    #[test]
    fn a_call_without_a_modem_has_its_reason() {
        let root = Root::new("/nowhere");
        let reason = |ports: &[&str]| {
            let ports: Vec<String> = ports.iter().map(|port| (*port).to_owned()).collect();
            locked(&root, &ports).err().unwrap_or_default()
        };
        assert_eq!(reason(&[]), "ModemManager passed no ports, so the modem is not known");
        let text = reason(&["cdc-wdm7", "cdc-wdm8"]);
        assert!(text.starts_with("no modem for ModemManager's ports [\"cdc-wdm7\", \"cdc-wdm8\"]: "), "{text}");
        assert!(text.contains("/dev/cdc-wdm8"), "{text}");
    }

    /// For a PCI modem, ModemManager also passes the network interface, and the ports in any order.
    #[test]
    fn a_pci_modem_is_found_by_any_of_its_ports() {
        let root = TempRoot::new("fcc-unlock");
        let write = |path: &str, text: &str| root.write(path, text);
        let quirks = include_str!("../../config/quirks.d/pci-1eac-quectel.toml");
        write("/usr/share/wwan-quirks/quirks.d/pci-1eac-quectel.toml", quirks);
        for folder in ["/sys/class/wwan", "/sys/bus/pci/devices"] {
            fs::create_dir_all(root.at(folder)).unwrap();
        }
        // Two modems, each behind its root port. The second one has no lock.
        for (number, (address, device)) in [("0000:08:00.0", "1007"), ("0000:09:00.0", "ffff")].iter().enumerate() {
            let bridge = format!("/sys/devices/pci0000:00/0000:00:1c.{number}");
            let function = format!("{bridge}/{address}");
            for (path, vendor, device) in [(&bridge, "8086", "9c9a"), (&function, "1eac", *device)] {
                write(&format!("{path}/vendor"), &format!("0x{vendor}\n"));
                write(&format!("{path}/device"), &format!("0x{device}\n"));
            }
            let link = root.at("/sys/bus/pci/devices").join(address);
            symlink(format!("../../..{}", function.trim_start_matches("/sys")), link).unwrap();
            for port in ["at0", "mbim0"] {
                let port = format!("wwan{number}{port}");
                write(&format!("{function}/mhi{number}/wwan/wwan{number}/{port}/dev"), "245:1\n");
                let target =
                    format!("../..{}/mhi{number}/wwan/wwan{number}/{port}", function.trim_start_matches("/sys"));
                symlink(target, root.at("/sys/class/wwan").join(port)).unwrap();
            }
        }
        let found = |ports: &[&str]| {
            let ports: Vec<String> = ports.iter().map(|port| (*port).to_owned()).collect();
            device(&root, &ports).map(|device| (device.port.to_string(), has_lock(&root, &device))).ok()
        };
        let (first, second) = (Some(("0000:08:00.0".to_owned(), true)), Some(("0000:09:00.0".to_owned(), false)));
        let all = [
            found(&["wwan0", "wwan0at0", "wwan0mbim0"]),
            found(&["wwan0mbim0", "wwan0at0"]),
            found(&["wwan0at0"]),
            found(&["wwan1", "wwan1mbim0"]),
            // A file outside of the class is not accepted, nor is a missing port.
            found(&["../../devices/pci0000:00/0000:00:1c.0/0000:08:00.0", "wwan2mbim0", ""]),
        ];
        assert_eq!(all, [first.clone(), first.clone(), first, second, None]);
    }
}
