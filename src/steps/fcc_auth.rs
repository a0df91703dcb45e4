//! placeholder
use std::fmt;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Qmi,
    Mbim,
}
impl Protocol {
    pub fn of_driver(driver: &str) -> Option<Protocol> {
        match driver {
            "qmi_wwan" => Some(Protocol::Qmi),
            "cdc_mbim" => Some(Protocol::Mbim),
            _ => None,
        }
    }
}
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Qmi => "QMI",
            Protocol::Mbim => "QMI inside MBIM",
        })
    }
}
pub fn run(
    _root: &crate::root::Root,
    _port: &crate::device::ControlPort,
    _protocol: Protocol,
    _procedure: crate::quirks::Procedure,
    _deadline: crate::deadline::Deadline,
) -> super::Outcome {
    super::Outcome::Nothing("not yet".into())
}
