//! One port of a modem without a bus: bytes in, replies out. For the unit tests and fuzz targets of a host, and for the
//! other end of a pty.
//!
//! ```
//! use modem::{models, port::Port, radio::Modem};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut modem = Modem::of(&models::row("em7455-qmi").ok_or("no such model")?.model());
//! modem.faults.set("late=700")?;
//! let mut port = Port::qmi(modem);
//! let (delay, replies) = port.receive(&[1, 11, 0, 0, 0, 0, 0, 1, 0x21, 0, 0, 0]);
//! assert_eq!((delay.as_millis(), replies.len()), (700, 1));
//! assert_eq!(port.modem.seen, ["CTL Get Version Info"]);
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use crate::at::At;
use crate::mbim::Mbim;
use crate::models::Dialect;
use crate::radio::{Modem, Transition};
use crate::timers::Timers;
use crate::wdm::{Protocol, Wdm};

/// A port, and the modem behind it. All times are those of the modem's clock.
pub struct Port {
    pub modem: Modem,
    function: Function,
    online: Timers<()>,
}

enum Function {
    Messages(Wdm),
    At(At),
}

impl Port {
    pub fn qmi(modem: Modem) -> Port {
        Port::new(modem, Function::Messages(Wdm::new(Protocol::Qmi)))
    }

    /// The port takes and sends messages of up to `longest` bytes.
    pub fn mbim(modem: Modem, longest: u16) -> Port {
        Port::new(modem, Function::Messages(Wdm::new(Protocol::Mbim(Mbim::new(longest)))))
    }

    /// The RPC of an XMM7360.
    pub fn xmm(modem: Modem) -> Port {
        Port::new(modem, Function::Messages(Wdm::new(Protocol::Xmm)))
    }

    pub fn at(modem: Modem, dialect: Dialect) -> Port {
        Port::new(modem, Function::At(At::new(dialect)))
    }

    fn new(modem: Modem, function: Function) -> Port {
        Port { online: Timers::new(modem.clock), modem, function }
    }

    /// Takes bytes from the host: one message of QMI, MBIM or RPC, or part of an AT command. Returns the reads that
    /// answer it, and their delay. A reset that the host asks for stays in the modem's `transitions`.
    pub fn receive(&mut self, bytes: &[u8]) -> (Duration, Vec<Vec<u8>>) {
        while self.online.pop_due().is_some() {
            self.modem.come_online();
        }
        let replies = match &mut self.function {
            Function::Messages(wdm) => wdm.receive(&mut self.modem, bytes),
            Function::At(at) => at.replies(&mut self.modem, bytes),
        };
        self.modem.transitions.retain(|(delay, transition)| {
            if *transition == Transition::Online {
                self.online.after(*delay, ());
            }
            *transition != Transition::Online
        });
        replies
    }

    /// Whether the host has opened MBIM.
    pub fn is_open(&self) -> bool {
        matches!(&self.function, Function::Messages(Wdm { protocol: Protocol::Mbim(mbim), .. }) if mbim.is_open())
    }
}
