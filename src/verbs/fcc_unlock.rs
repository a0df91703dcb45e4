//! `VID:PID`: unlocks a modem for ModemManager, by ModemManager's own mechanism.
//!
//! An administrator who links `/etc/ModemManager/fcc-unlock.d/VID:PID` to this program has ModemManager run it, as
//! `VID:PID DBUS-PATH PORT…`, where switching the radio on has failed; then ModemManager tries again. What a program
//! prints is thrown away there, and one that takes 5 s is killed (`MAX_FCC_UNLOCK_EXEC_TIME_SECS` in its
//! `mm-dispatcher-fcc-unlock.c`). It must be a regular file of root's, executable, that nobody else may write to; a link
//! to one will do (`mm-dispatcher.c`).

use std::ffi::OsString;
use std::path::Path;

use crate::bus::DeviceId;
use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::modem::device::{Device, DeviceError};
use crate::outcome::StepResult;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::lookup::lookup;
use crate::serve::serve;
use crate::serve::trigger::Trigger;

/// The names of the ports (`cdc-wdm0`, `wwan0mbim0`), where the program was called by an ID and not by its own name.
pub fn called_for(arguments: impl IntoIterator<Item = OsString>) -> Option<Vec<String>> {
    let mut arguments = arguments.into_iter();
    let name = arguments.next()?;
    Path::new(&name).file_name()?.to_str()?.parse::<DeviceId>().ok()?;
    // The first is the modem's path on the bus, of which there is nothing to be learnt.
    Some(arguments.skip(1).filter_map(|port| port.into_string().ok()).collect())
}

/// Unlocks the modem that has these ports, whatever the policy says: the administrator who made the link asked for it.
pub fn run(root: &Root, ports: &[String]) -> Exit {
    let journal = Journal::open(root);
    let reason = match device(root, ports) {
        Ok(device) if has_lock(root, &device) => {
            let served = serve(root, &journal, &device, &Scope::Unlock, Trigger::ModemManager);
            return served.exit(&Scope::Unlock, Trigger::ModemManager);
        }
        Ok(device) => format!("{} {}: no quirk unlocks it (see `wwan-quirks explain {0}`)", device.port, device.id),
        Err(error) => format!("no modem for ModemManager's ports {ports:?}: {}", Error::from(error).chain()),
    };
    journal.send(StepResult::Failed, &format!("fcc-unlock.d: {reason}"), &[]);
    Exit::Failed
}

/// The modem is that of the first port that this program knows.
fn device(root: &Root, ports: &[String]) -> Result<Device, DeviceError> {
    let mut last = DeviceError::NotFound(String::new());
    for port in ports {
        match Device::named(root, &format!("/dev/{port}")).map(|devices| devices.into_iter().next()) {
            Ok(Some(device)) => return Ok(device),
            Ok(None) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn has_lock(root: &Root, device: &Device) -> bool {
    // If a file is invalid, the run says so.
    let (matched, errors) = lookup(root, device);
    !errors.is_empty() || matched.is_some_and(|matched| matched.quirk.procedure().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(arguments: &[&str]) -> Option<Vec<String>> {
        called_for(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_name_that_it_is_called_by_tells() {
        let path = "/org/freedesktop/ModemManager1/Modem/0";
        let ports = called(&["/etc/ModemManager/fcc-unlock.d/1199:9079", path, "cdc-wdm0", "ttyUSB0"]);
        assert_eq!(ports, Some(vec!["cdc-wdm0".to_owned(), "ttyUSB0".to_owned()]));
        assert_eq!(called(&["1199:9079"]), Some(Vec::new()));
        for own in
            ["/usr/sbin/wwan-quirks", "wwan-quirks", "", "1199", "/1199:9079/hook", "/etc/fcc-unlock.d/1199:9079.sh"]
        {
            assert_eq!(called(&[own, "hook", "cdc-wdm0"]), None, "{own}");
        }
        assert_eq!(called(&[]), None);
    }
}
