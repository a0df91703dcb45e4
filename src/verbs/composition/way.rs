//! The way to a modem that a composition is asked of: its control port, through a proxy where one holds it, or its AT port.

use std::time::Duration;

use crate::database::quirks::composition::Table;
use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::host::state::{Holder, PortState, StateError};
use crate::modem::access::{self, Sharing};
use crate::modem::device::{Device, DeviceError};
use crate::modem::session::at::Conversation;
use crate::modem::session::qmi::Client;
use crate::modem::transport::{Protocol, over_qmi};
use crate::modem::wire::qmi::Service;
use crate::steps::composition::{Console, Dialogue, Dms, Fault};

/// What is said to the modem, once it is known how.
type Story<'s> = &'s mut dyn FnMut(&mut dyn Dialogue) -> Result<(), Fault>;

pub struct Way<'a> {
    pub root: &'a Root,
    pub table: &'a Table,
    /// For AT!ENTERCND.
    pub password: &'a str,
}

impl Way<'_> {
    /// Has `story` with the modem, over its control port, and where that is missing or knows no compositions, over its
    /// AT port.
    pub fn talk<T>(
        &self,
        device: &Device,
        budget: Duration,
        story: impl Fn(&mut dyn Dialogue) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut told = None;
        self.reach(device, Deadline::after(budget), &mut |dialogue| {
            told = Some(story(dialogue)?);
            Ok(())
        })?;
        told.ok_or(Fault::NoPort)
    }

    fn reach(&self, device: &Device, deadline: Deadline, story: Story) -> Result<(), Fault> {
        // Another run on this modem is waited for, and waits for us.
        let holder = Holder { enumeration: device.enumeration_id(), scope: "composition".to_owned() };
        let _alone = match PortState::lock(self.root, &device.port, &holder, deadline) {
            Ok(state) => state,
            Err(error @ (StateError::Busy | StateError::Interrupted)) => {
                return Err(Fault::NotOpened(error.to_string()));
            }
            Err(error) => {
                log::warn!("{}: {error}", device.port);
                PortState::forgetful(&device.port)
            }
        };
        let over_control_port = self.over_control_port(device, deadline, story);
        match over_control_port {
            Err(fault) if fault.is_unsupported() || matches!(fault, Fault::NoPort) => {
                match self.over_tty(device, deadline, story) {
                    Err(Fault::NoPort) => Err(fault),
                    told => told,
                }
            }
            told => told,
        }
    }

    fn over_control_port(&self, device: &Device, deadline: Deadline, story: Story) -> Result<(), Fault> {
        let ports = device.control_ports().map_err(not_read)?.into_iter();
        let mut ports = ports.filter_map(|port| {
            let protocol = Protocol::of_driver(port.driver.as_deref()?)?;
            Some((port, protocol))
        });
        let Some((port, protocol)) = ports.next().filter(|_| !self.table.is_direct_ip(device.id)) else {
            return Err(Fault::NoPort);
        };
        let mut opened = access::open(self.root, device, &port, protocol, Sharing::Possible)?;
        let transport = opened.transport();
        let by = if transport.protocol == Protocol::Mbim { "QMI in MBIM" } else { "QMI" };
        over_qmi(transport, deadline, |qmux| {
            let mut client = Client::allocate(qmux, Service::DMS, deadline)?;
            Ok(story(&mut Dms { client: &mut client, by }))
        })?
    }

    fn over_tty(&self, device: &Device, deadline: Deadline, story: Story) -> Result<(), Fault> {
        let tty = device.tty(self.table.at_interface).map_err(not_read)?.ok_or(Fault::NoPort)?;
        let mut opened = access::open(self.root, device, &tty, Protocol::At, Sharing::Possible)?;
        let mut at = Conversation::open(opened.transport().port, deadline)?;
        story(&mut Console::new(&mut at, self.password, self.table.is_direct_ip(device.id)))
    }
}

fn not_read(error: DeviceError) -> Fault {
    Fault::NotOpened(error.to_string())
}
