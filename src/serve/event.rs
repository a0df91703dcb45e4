//! One udev event, as the environment of a helper describes it.
//!
//! Only the few variables below are read, and none is believed further than it must be: the device's identity comes
//! from sysfs, never from here.

use std::env;
use std::ffi::OsString;

use crate::modem::device::{is_control_port, is_tty};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    #[error("{0} is not set: the hook is for udev to run; by hand, use `wwan-quirks apply`")]
    Missing(&'static str),
    #[error("{0} is not valid UTF-8")]
    NotText(&'static str),
    #[error("ACTION {0:?} is none that udev knows")]
    UnknownAction(String),
}

/// What the event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occasion {
    /// The USB device itself.
    Device,
    /// A `cdc-wdm` port or a tty of it, by name.
    ControlPort(String),
    /// No event: somebody asks for all that the modem needs.
    ByHand,
    /// No event: somebody asks for the radio to be unlocked, and for nothing else.
    Unlock,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub devpath: String,
    pub occasion: Occasion,
    /// Somebody asked udev to look at the device again (`udevadm trigger`).
    pub asked: bool,
}

impl Event {
    /// The event of this process's environment; none where it is not one to act on.
    pub fn from_environment() -> Result<Option<Event>, EventError> {
        Event::read(|name| env::var_os(name))
    }

    /// A device that is new, or that somebody asked udev to look at again (`udevadm trigger` sets `SYNTH_UUID`), is
    /// acted on. The kernel's own `change` events follow from our own writes and are not, nor are those of leaving.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Event>, EventError> {
        let text = |name: &'static str| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value.into_string().map(Some).map_err(|_| EventError::NotText(name)),
        };
        let required = |name: &'static str| text(name)?.ok_or(EventError::Missing(name));

        let action = required("ACTION")?;
        let devpath = required("DEVPATH")?;
        let subsystem = required("SUBSYSTEM")?;
        let asked = text("SYNTH_UUID")?.is_some();
        match action.as_str() {
            "add" => {}
            "change" if asked => {}
            "change" | "remove" | "move" | "online" | "offline" | "bind" | "unbind" => return Ok(None),
            _ => return Err(EventError::UnknownAction(action)),
        }
        let name = devpath.rsplit('/').next().unwrap_or_default();
        let occasion = match subsystem.as_str() {
            "usb" if text("DEVTYPE")?.as_deref() == Some("usb_device") => Occasion::Device,
            // A device that is known by what it answers to a SCSI INQUIRY can be told from others now, and not before.
            "scsi" if text("DEVTYPE")?.as_deref() == Some("scsi_device") => Occasion::Device,
            "usbmisc" if is_control_port(name) => Occasion::ControlPort(name.to_owned()),
            "tty" if is_tty(name) => Occasion::ControlPort(name.to_owned()),
            _ => return Ok(None),
        };
        Ok(Some(Event { devpath, occasion, asked }))
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
    fn new_devices_and_those_asked_for_are_acted_on() {
        assert_eq!(device("add", &[]).unwrap().unwrap().occasion, Occasion::Device);
        assert!(device("change", &[("SYNTH_UUID", "0")]).unwrap().is_some());
        for action in ["change", "remove", "bind", "unbind"] {
            assert_eq!(device(action, &[]), Ok(None), "{action}");
        }
    }

    #[test]
    fn a_port_is_known_by_its_name() {
        let port = |devpath| read(&[("ACTION", "add"), ("DEVPATH", devpath), ("SUBSYSTEM", "usbmisc")]).unwrap();
        let event = port("/devices/usb1/1-1/1-1:1.8/usbmisc/cdc-wdm0").unwrap();
        assert_eq!(event.occasion, Occasion::ControlPort("cdc-wdm0".to_owned()));
        assert_eq!(port("/devices/usb1/1-1/1-1:1.8/usbmisc/hiddev0"), None);
        let tty = |name| {
            let path = format!("/devices/usb1/1-1/1-1:1.3/{name}/tty/{name}");
            read(&[("ACTION", "add"), ("DEVPATH", &path), ("SUBSYSTEM", "tty")]).unwrap().map(|event| event.occasion)
        };
        assert_eq!(tty("ttyUSB1"), Some(Occasion::ControlPort("ttyUSB1".to_owned())));
        assert_eq!(tty("ttyACM0"), Some(Occasion::ControlPort("ttyACM0".to_owned())));
        assert_eq!((tty("ttyS0"), tty("ttyUSB"), tty("tty0")), (None, None, None));
    }

    #[test]
    fn a_scsi_device_is_an_occasion_to_look_at_the_usb_device_again() {
        let event = |kind| {
            let path = "/devices/usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0";
            read(&[("ACTION", "add"), ("DEVPATH", path), ("SUBSYSTEM", "scsi"), ("DEVTYPE", kind)]).unwrap()
        };
        assert_eq!(event("scsi_device").unwrap().occasion, Occasion::Device);
        assert_eq!(event("scsi_host"), None);
    }

    #[test]
    fn what_is_missing_or_unknown_is_an_error() {
        assert_eq!(read(&[("ACTION", "add")]), Err(EventError::Missing("DEVPATH")));
        assert_eq!(read(&[("ACTION", ""), ("DEVPATH", "/devices/x")]), Err(EventError::Missing("ACTION")));
        assert!(matches!(device("frob", &[]), Err(EventError::UnknownAction(_))));
    }
}
