//! One udev event, as the environment of a helper describes it.
//!
//! Only the few variables below are read. The device's identity comes from sysfs, never from the environment.

use std::env;
use std::ffi::OsString;

use crate::host::state::Task;
use crate::modem::device::{is_cdc_wdm, is_tty, is_wwan_port};
use crate::outcome::StepResult;
use crate::serve::trigger::Trigger;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    #[error("{0} is not set: udev runs the hook (in a shell, use `wwan-quirks apply`)")]
    Missing(&'static str),
    #[error("{0} is not valid UTF-8")]
    NotText(&'static str),
    #[error("ACTION {0:?} is not a udev action")]
    UnknownAction(String),
}

/// The steps that a run considers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The steps of the USB device itself.
    Device,
    /// The unlock, if this port (`cdc-wdm0`, `ttyUSB1`, `wwan0mbim0`) carries it.
    Port(String),
    /// All steps.
    All,
    /// Only the unlock.
    Unlock,
}

impl Scope {
    /// The task of a run with this scope, for the lock of the port.
    pub(crate) fn task(&self) -> Task {
        match self {
            Scope::Device => Task::Device,
            Scope::Port(name) => Task::Port(name.clone()),
            Scope::All => Task::All,
            Scope::Unlock => Task::Unlock,
        }
    }

    pub(crate) fn is_unlock(&self) -> bool {
        matches!(self, Scope::Port(_) | Scope::Unlock)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub devpath: String,
    pub scope: Scope,
    pub trigger: Trigger,
    /// Whether the event matters only for a device that the kernel was not authorized to use before.
    pub(crate) only_if_blocked: bool,
}

impl Event {
    /// The event in this process's environment. `None` if there is nothing to do for it.
    pub(crate) fn from_environment() -> Result<Option<Event>, EventError> {
        Event::read(|name| env::var_os(name))
    }

    /// Returns the events to act on: a new device (`add`), a request (`SYNTH_UUID`), and the kernel's `change` of a
    /// device that it was not authorized to use before. All other `change` events follow from our own writes. If the
    /// kernel has no such event, the rules request one. mdev and procd have no such rules: there, the new interfaces of
    /// such a device count.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Event>, EventError> {
        let text = |name: &'static str| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value.into_string().map(Some).map_err(|_| EventError::NotText(name)),
        };
        let required = |name: &'static str| text(name)?.ok_or(EventError::Missing(name));

        let action = required("ACTION")?;
        let devpath = required("DEVPATH")?;
        let subsystem = required("SUBSYSTEM")?;
        let was_blocked = text("WWAN_QUIRKS")?.as_deref() == Some(StepResult::NotAuthorized.name());
        let trigger = match (action.as_str(), text("SYNTH_UUID")?.as_deref()) {
            ("add", None) => Trigger::Uevent,
            ("add" | "change", Some("0")) => Trigger::Coldplug,
            ("add" | "change", Some(_)) => Trigger::Requested,
            ("change", None) if was_blocked => Trigger::Coldplug,
            ("change" | "remove" | "move" | "online" | "offline" | "bind" | "unbind", _) => return Ok(None),
            _ => return Err(EventError::UnknownAction(action)),
        };
        let devtype = text("DEVTYPE")?;
        let kind = (subsystem.as_str(), devtype.as_deref());
        let is_interface = kind == ("usb", Some("usb_interface"));
        let trigger = if is_interface { Trigger::Coldplug } else { trigger };
        let name = devpath.rsplit('/').next().unwrap_or_default();
        let scope = match kind {
            ("usb", Some("usb_device" | "usb_interface")) => Scope::Device,
            // From these events on, the answer to SCSI INQUIRY is known. procd passes on no SCSI events.
            ("scsi", Some("scsi_device")) | ("block", Some("disk")) => Scope::Device,
            ("usbmisc", _) if is_cdc_wdm(name) => Scope::Port(name.to_owned()),
            ("tty", _) if is_tty(name) => Scope::Port(name.to_owned()),
            ("wwan", _) if is_wwan_port(name) => Scope::Port(name.to_owned()),
            _ => return Ok(None),
        };
        Ok(Some(Event { devpath, scope, trigger, only_if_blocked: is_interface }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> Result<Option<Event>, EventError> {
        Event::read(|name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    const DEVICE: [(&str, &str); 3] =
        [("DEVPATH", "/devices/pci0/usb1/1-1"), ("SUBSYSTEM", "usb"), ("DEVTYPE", "usb_device")];

    fn device(action: &str, more: &[(&str, &str)]) -> Result<Option<Event>, EventError> {
        read(&[&DEVICE[..], &[("ACTION", action)], more].concat())
    }

    #[test]
    fn each_scope_has_a_task_of_its_own() {
        let scopes = [Scope::Device, Scope::Port("cdc-wdm0".to_owned()), Scope::All, Scope::Unlock];
        let names = ["device", "cdc-wdm0", "all", "unlock"].map(serde_json::Value::from);
        assert_eq!(scopes.each_ref().map(|scope| serde_json::to_value(scope.task()).unwrap()), names);
        let tasks = names.map(|name| serde_json::from_value::<Task>(name).unwrap());
        assert_eq!(tasks, scopes.map(|scope| scope.task()));
    }

    #[test]
    fn new_and_requested_devices_are_served() {
        assert_eq!(device("add", &[]).unwrap().unwrap().scope, Scope::Device);
        let trigger = |action, more: &[_]| device(action, more).unwrap().map(|event| event.trigger);
        assert_eq!(trigger("add", &[]), Some(Trigger::Uevent));
        for action in ["add", "change"] {
            assert_eq!(trigger(action, &[("SYNTH_UUID", "0")]), Some(Trigger::Coldplug));
            assert_eq!(trigger(action, &[("SYNTH_UUID", "c9b2")]), Some(Trigger::Requested));
        }
        assert_eq!(trigger("change", &[("WWAN_QUIRKS", "not-authorized")]), Some(Trigger::Coldplug));
        assert_eq!(trigger("change", &[("WWAN_QUIRKS", "done")]), None);
        for action in ["change", "remove", "bind", "unbind"] {
            assert_eq!(device(action, &[]), Ok(None), "{action}");
        }
        assert!(!device("add", &[]).unwrap().unwrap().only_if_blocked);
    }

    #[test]
    fn an_interface_concerns_its_device_if_that_was_blocked() {
        let path = "/devices/pci0/usb1/1-1/1-1:1.0";
        let interface = |action| {
            read(&[("ACTION", action), ("DEVPATH", path), ("SUBSYSTEM", "usb"), ("DEVTYPE", "usb_interface")]).unwrap()
        };
        let event =
            Event { devpath: path.to_owned(), scope: Scope::Device, trigger: Trigger::Coldplug, only_if_blocked: true };
        assert_eq!(interface("add"), Some(event));
        assert_eq!((interface("bind"), interface("remove")), (None, None));
    }

    #[test]
    fn a_port_is_recognized_by_its_name() {
        let port = |devpath| read(&[("ACTION", "add"), ("DEVPATH", devpath), ("SUBSYSTEM", "usbmisc")]).unwrap();
        let event = port("/devices/usb1/1-1/1-1:1.8/usbmisc/cdc-wdm0").unwrap();
        assert_eq!(event.scope, Scope::Port("cdc-wdm0".to_owned()));
        assert_eq!(port("/devices/usb1/1-1/1-1:1.8/usbmisc/hiddev0"), None);
        let tty = |name| {
            let path = format!("/devices/usb1/1-1/1-1:1.3/{name}/tty/{name}");
            read(&[("ACTION", "add"), ("DEVPATH", &path), ("SUBSYSTEM", "tty")]).unwrap().map(|event| event.scope)
        };
        assert_eq!(tty("ttyUSB1"), Some(Scope::Port("ttyUSB1".to_owned())));
        assert_eq!(tty("ttyACM0"), Some(Scope::Port("ttyACM0".to_owned())));
        assert_eq!((tty("ttyS0"), tty("ttyUSB"), tty("tty0")), (None, None, None));
        let wwan = |name| {
            let path = format!("/devices/pci0000:00/0000:00:1c.6/0000:08:00.0/mhi0/wwan/wwan0/{name}");
            read(&[("ACTION", "add"), ("DEVPATH", &path), ("SUBSYSTEM", "wwan")]).unwrap().map(|event| event.scope)
        };
        assert_eq!(wwan("wwan0mbim0"), Some(Scope::Port("wwan0mbim0".to_owned())));
        assert_eq!((wwan("wwan0"), wwan("wwan0at"), wwan("wwanat0"), wwan("wwan0p2MBIM")), (None, None, None, None));
    }

    #[test]
    fn an_event_of_a_drive_concerns_the_usb_device() {
        let event = |subsystem, kind| {
            let path = "/devices/usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0";
            read(&[("ACTION", "add"), ("DEVPATH", path), ("SUBSYSTEM", subsystem), ("DEVTYPE", kind)]).unwrap()
        };
        assert_eq!(event("scsi", "scsi_device").unwrap().scope, Scope::Device);
        assert_eq!(event("scsi", "scsi_host"), None);
        assert_eq!(event("block", "disk").unwrap().scope, Scope::Device);
        assert_eq!(event("block", "partition"), None);
    }

    #[test]
    fn six_variables_are_read() {
        let names = std::cell::RefCell::new(std::collections::BTreeSet::new());
        for subsystem in ["usb", "scsi", "block", "usbmisc", "tty", "wwan", "net"] {
            let values = [("ACTION", "add"), ("DEVPATH", "/devices/usb1/1-1"), ("SUBSYSTEM", subsystem)];
            let _ = Event::read(|name| {
                names.borrow_mut().insert(name.to_owned());
                values.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            });
        }
        let names: Vec<String> = names.into_inner().into_iter().collect();
        assert_eq!(names, ["ACTION", "DEVPATH", "DEVTYPE", "SUBSYSTEM", "SYNTH_UUID", "WWAN_QUIRKS"]);
    }

    #[test]
    fn a_missing_or_unknown_value_is_an_error() {
        assert_eq!(read(&[("ACTION", "add")]), Err(EventError::Missing("DEVPATH")));
        assert_eq!(read(&[("ACTION", ""), ("DEVPATH", "/devices/x")]), Err(EventError::Missing("ACTION")));
        assert!(matches!(device("frob", &[]), Err(EventError::UnknownAction(_))));
    }
}
