//! How a conversation reaches the modem: which protocol the port uses, and whether a proxy is in between.

use std::fmt;
use std::path::Path;

use crate::host::deadline::Deadline;
use crate::modem::device::ControlPort;
use crate::modem::link::Link;
use crate::modem::session::SessionError;
use crate::modem::session::mbim::Session;
use crate::modem::session::qmi::{self, QmuxTransport, RawQmux};

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Qmi,
    Mbim,
    At,
    /// The RPC of Intel's XMM7360.
    XmmRpc,
}

impl Protocol {
    /// The kernel's name for a WWAN port with this protocol.
    pub fn wwan_type(self) -> &'static str {
        match self {
            Protocol::Qmi => "QMI",
            Protocol::Mbim => "MBIM",
            Protocol::At => "AT",
            Protocol::XmmRpc => "XMMRPC",
        }
    }

    /// The protocol of a port, from its WWAN type or its driver. `None` if neither is known.
    pub(crate) fn of_port(port: &ControlPort) -> Option<Protocol> {
        match (port.wwan_type.as_deref(), port.driver.as_deref()) {
            (Some("QMI"), _) | (None, Some("qmi_wwan")) => Some(Protocol::Qmi),
            (Some("MBIM"), _) | (None, Some("cdc_mbim")) => Some(Protocol::Mbim),
            (Some("AT"), _) | (None, Some("option" | "option1")) => Some(Protocol::At),
            (Some("XMMRPC"), _) => Some(Protocol::XmmRpc),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Qmi => "QMI",
            Protocol::Mbim => "MBIM",
            Protocol::At => "AT commands",
            Protocol::XmmRpc => "XMM RPC",
        })
    }
}

/// An open connection to the modem.
pub struct Transport<'p> {
    pub port: &'p mut dyn Link,
    pub protocol: Protocol,
    /// The path of the port that the proxy holds, if `port` is a connection to a proxy.
    pub proxied: Option<&'p Path>,
}

/// Runs `procedure` over QMI, on the port itself or inside an MBIM session.
pub(crate) fn over_qmi<T>(
    transport: Transport,
    deadline: Deadline,
    procedure: impl FnOnce(&mut dyn QmuxTransport) -> Result<T, SessionError>,
) -> Result<T, SessionError> {
    if transport.protocol == Protocol::Mbim {
        return procedure(&mut open_mbim(transport, deadline)?);
    }
    let mut qmux = RawQmux::new(transport.port);
    if let Some(port) = transport.proxied {
        qmi::open_through_proxy(&mut qmux, port, deadline)?;
    }
    procedure(&mut qmux)
}

/// Opens an MBIM session, on the port itself or through mbim-proxy.
pub(crate) fn open_mbim(transport: Transport<'_>, deadline: Deadline) -> Result<Session<'_>, SessionError> {
    match transport.proxied {
        Some(port) => Session::open_through_proxy(transport.port, port, deadline),
        None => Session::open(transport.port, deadline),
    }
}
