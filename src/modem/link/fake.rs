//! A port in memory for unit tests, with the faults that every port can have. Behind it is a modem of the simulator in
//! `tests/modem`, or the replies of a test.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use ::modem::models::{self, Dialect};
use ::modem::port::Port as Simulated;
use ::modem::radio::{Lock, Modem as Radio};

use super::{Link, LinkError};
use crate::host::deadline::{Deadline, clock};
use crate::modem::transport::Protocol;

/// The duration of a transfer, so that time passes even if the host never waits.
const TRANSFER: Duration = Duration::from_micros(20);

/// What replies to the host.
pub(crate) trait Replies {
    /// Takes a message. Returns the reads that answer it, and their delay.
    fn receive(&mut self, message: &[u8]) -> (Duration, Vec<Vec<u8>>);
}

impl Replies for Simulated {
    fn receive(&mut self, message: &[u8]) -> (Duration, Vec<Vec<u8>>) {
        Simulated::receive(self, message)
    }
}

impl<F: FnMut(&[u8]) -> Vec<Vec<u8>>> Replies for F {
    fn receive(&mut self, message: &[u8]) -> (Duration, Vec<Vec<u8>>) {
        (Duration::ZERO, self(message))
    }
}

pub(crate) struct Port<R> {
    replies: R,
    pub protocol: Protocol,
    /// `wMaxControlMessage`, in both directions.
    longest: usize,
    /// The modem disconnects at this transfer.
    pub gone_at: Option<usize>,
    /// The process receives a stop request at this transfer.
    pub interrupted_at: Option<usize>,
    /// Another program opens the port before this message is sent.
    pub contended_at: Option<usize>,
    pub sends: usize,
    /// The port accepts no message.
    pub jammed: bool,
    /// The modem sends these bytes endlessly, and nothing else.
    pub flood: Vec<u8>,
    /// Replies to an earlier host that did not read them. Each new reply releases the oldest one, and is queued behind
    /// the others.
    pub held: VecDeque<Vec<u8>>,
    pub transfers: usize,
    /// Each read, with the time from which it is available.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    read: Vec<u8>,
}

/// A modem of the simulator that has this lock, and is locked. `longest` is for MBIM.
pub(crate) fn simulated(protocol: Protocol, lock: Lock, longest: u16) -> Simulated {
    let mut model = models::row("em7455").unwrap().model();
    model.lock = lock;
    let mut radio = Radio::of(&model);
    radio.clock = clock::now;
    match protocol {
        Protocol::Qmi => Simulated::qmi(radio),
        Protocol::Mbim => Simulated::mbim(radio, longest),
        Protocol::XmmRpc => Simulated::xmm(radio),
        Protocol::At => Simulated::at(radio, Dialect::Sierra75),
    }
}

/// A simulated modem behind a port.
pub(crate) type Modem = Port<Simulated>;

impl Port<Simulated> {
    /// A modem that has this lock, and is locked.
    pub(crate) fn with_lock(protocol: Protocol, lock: Lock) -> Modem {
        Modem::with_longest(protocol, lock, 4096)
    }

    pub(crate) fn with_longest(protocol: Protocol, lock: Lock, longest: u16) -> Modem {
        Port { longest: longest.into(), ..Port::replying(protocol, simulated(protocol, lock, longest)) }
    }

    /// An AT port that knows these commands and replies: lines, or an error. It requires the password of `AT!ENTERCND`
    /// for `AT!` commands, if there is one.
    pub(crate) fn at(password: &str, answers: &[(&str, &str)]) -> Modem {
        let mut modem = Modem::with_lock(Protocol::At, Lock::Free);
        let password = if password.is_empty() { "no-password".to_owned() } else { format!("password={password}") };
        modem.fault(&password);
        modem.next_composition = None;
        modem.answers = answers.iter().map(|(command, answer)| ((*command).to_owned(), (*answer).to_owned())).collect();
        modem
    }

    /// Sets a fault of the simulator.
    pub(crate) fn fault(&mut self, fault: &str) {
        self.faults.set(fault).unwrap();
    }

    /// The same modem with these faults, separated by spaces.
    pub(crate) fn with(mut self, faults: &str) -> Modem {
        faults.split(' ').filter(|fault| !fault.is_empty()).for_each(|fault| self.fault(fault));
        self
    }

    /// The number of requests whose name in the simulator's transcript contains `name`.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.seen.iter().filter(|seen| seen.contains(name)).count()
    }

    /// Whether the host has left an MBIM session open.
    pub(crate) fn is_open(&self) -> bool {
        self.replies.is_open()
    }
}

impl Deref for Port<Simulated> {
    type Target = Radio;

    fn deref(&self) -> &Radio {
        &self.replies.modem
    }
}

impl DerefMut for Port<Simulated> {
    fn deref_mut(&mut self) -> &mut Radio {
        &mut self.replies.modem
    }
}

impl<R: Replies> Port<R> {
    pub(crate) fn replying(protocol: Protocol, replies: R) -> Port<R> {
        Port {
            replies,
            protocol,
            longest: 4096,
            gone_at: None,
            interrupted_at: None,
            contended_at: None,
            sends: 0,
            jammed: false,
            flood: Vec::new(),
            held: VecDeque::new(),
            transfers: 0,
            waiting: VecDeque::new(),
            read: Vec::new(),
        }
    }

    /// Queues bytes for an earlier host. They can be read now.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.waiting.push_back((clock::now(), bytes.to_vec()));
    }

    /// The common part of every transfer: the modem may have disconnected, or the process may have been asked to stop.
    fn transfer(&mut self) -> Result<(), LinkError> {
        let number = self.transfers;
        self.transfers += 1;
        clock::wait(TRANSFER);
        match self.gone_at {
            Some(at) if number >= at => Err(LinkError::Gone),
            _ if self.interrupted_at == Some(number) => Err(LinkError::Interrupted),
            _ => Ok(()),
        }
    }
}

impl<R: Replies> Link for Port<R> {
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
        const ONLINE: [u8; 8] = [0x2e, 0x00, 0x04, 0x00, 0x01, 0x01, 0x00, 0x00];
        self.transfer()?;
        self.sends += 1;
        if self.contended_at == Some(self.sends - 1) {
            return Err(LinkError::Contended);
        }
        assert!(message.len() <= self.longest);
        assert!(!message.ends_with(&ONLINE), "the host must never switch the radio on");
        if self.protocol == Protocol::Mbim && message.starts_with(&[1, 0, 0, 0]) {
            assert_eq!(message[12..], (self.longest as u32).to_le_bytes(), "the limit in OPEN");
        }
        if self.jammed {
            clock::wait(by.remaining());
            return Err(LinkError::WriteTimeout);
        }
        let (delay, reads) = self.replies.receive(message);
        // Messages with a TID are answered one after another.
        let now = clock::now();
        let last = self.waiting.back().map_or(now, |(last, _)| now.max(*last));
        let due = match self.protocol {
            Protocol::Qmi | Protocol::Mbim => last + delay,
            Protocol::At | Protocol::XmmRpc => last.max(now + delay),
        };
        for mut read in reads {
            if let Some(held) = self.held.pop_front() {
                self.held.push_back(std::mem::replace(&mut read, held));
            }
            self.waiting.push_back((due, read));
        }
        Ok(())
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        self.transfer()?;
        if !self.flood.is_empty() {
            clock::wait(Duration::from_millis(1).min(by.remaining()));
            return Ok((!by.has_passed()).then_some(&self.flood));
        }
        if by.has_passed() {
            return Ok(None);
        }
        let wait = self.waiting.front().map_or(Duration::MAX, |(due, _)| due.saturating_duration_since(clock::now()));
        clock::wait(wait.min(by.remaining()));
        if by.has_passed() && !wait.is_zero() {
            return Ok(None);
        }
        self.read = self.waiting.pop_front().map_or_else(Vec::new, |(_, read)| read);
        Ok(Some(&self.read))
    }

    fn longest(&self) -> usize {
        self.longest
    }
}
