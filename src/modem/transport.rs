//! How a conversation reaches the modem: which protocol the port speaks, and whether a proxy is in between.

use std::fmt;
use std::path::Path;

use crate::host::deadline::Deadline;
use crate::modem::device::ControlPort;
use crate::modem::link::Link;
use crate::modem::session::SessionError;
use crate::modem::session::mbim::Session;
use crate::modem::session::qmi::{self, QmuxTransport, RawQmux};

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Qmi,
    Mbim,
    At,
    /// The RPC of Intel's XMM7360.
    XmmRpc,
}

impl Protocol {
    /// The type of a WWAN port that speaks it, in the kernel's words.
    pub fn wwan_type(self) -> &'static str {
        match self {
            Protocol::Qmi => "QMI",
            Protocol::Mbim => "MBIM",
            Protocol::At => "AT",
            Protocol::XmmRpc => "XMMRPC",
        }
    }

    /// By the type of a WWAN port, or by the driver that made the port. `None`: the port is left alone.
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

/// The way to the modem.
pub struct Transport<'p> {
    pub port: &'p mut dyn Link,
    pub protocol: Protocol,
    /// Where `port` is a new connection to qmi-proxy or mbim-proxy: the path of the port that the proxy holds.
    pub proxied: Option<&'p Path>,
}

/// Runs `procedure` on what carries QMI to this modem: the port itself, or its MBIM session.
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

/// Opens an MBIM session on the port itself, or a session of our own at mbim-proxy.
pub(crate) fn open_mbim(transport: Transport<'_>, deadline: Deadline) -> Result<Session<'_>, SessionError> {
    match transport.proxied {
        Some(port) => Session::open_through_proxy(transport.port, port, deadline),
        None => Session::open(transport.port, deadline),
    }
}
