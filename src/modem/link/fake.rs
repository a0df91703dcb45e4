//! A port in memory for unit tests. It has the faults that every port can have. The modem behind it belongs to the
//! test.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Link, LinkError};
use crate::host::deadline::{Deadline, clock};

/// The behaviour of a test's modem. Every `Modem` is a [`Link`].
pub trait Modem {
    fn port(&mut self) -> &mut Port;

    /// Receives one message, and replies with [`Port::say`].
    fn take(&mut self, message: &[u8]);
}

#[derive(Default)]
pub struct Port {
    late: Duration,
    flood: Option<Vec<u8>>,
    gone_at: Option<usize>,
    interrupted_at: Option<usize>,
    pub transfers: usize,
    /// Each part, with the time from which it can be read.
    waiting: VecDeque<(Deadline, Vec<u8>)>,
    read: Vec<u8>,
}

impl Port {
    /// Each reply is this late.
    pub(crate) fn late(late: Duration) -> Port {
        Port { late, ..Port::default() }
    }

    /// The modem sends these bytes endlessly.
    pub(crate) fn flooded(bytes: Vec<u8>) -> Port {
        Port { flood: Some(bytes), ..Port::default() }
    }

    /// The modem leaves at this transfer.
    pub(crate) fn gone_at(transfer: usize) -> Port {
        Port { gone_at: Some(transfer), ..Port::default() }
    }

    /// The process receives a stop request at this transfer.
    pub(crate) fn interrupted_at(transfer: usize) -> Port {
        Port { interrupted_at: Some(transfer), ..Port::default() }
    }

    /// Queues `bytes`, which the host reads in parts of this length.
    pub fn say(&mut self, bytes: &[u8], length: usize) {
        let from = Deadline::after(self.late);
        self.waiting.extend(bytes.chunks(length).map(|part| (from, part.to_vec())));
    }

    fn transfer(&mut self) -> Result<(), LinkError> {
        let number = self.transfers;
        self.transfers += 1;
        match self.gone_at {
            Some(at) if number >= at => Err(LinkError::Gone),
            _ if self.interrupted_at == Some(number) => Err(LinkError::Interrupted),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        self.transfer()?;
        if let Some(flood) = &self.flood {
            clock::wait(Duration::from_millis(1).min(by.remaining()));
            return Ok((!by.has_passed()).then_some(flood));
        }
        match self.waiting.front().map(|(from, _)| from.remaining()) {
            Some(wait) if wait <= by.remaining() => clock::wait(wait),
            _ => {
                clock::wait(by.remaining());
                return Ok(None);
            }
        }
        self.read = self.waiting.pop_front().map_or_else(Vec::new, |(_, part)| part);
        Ok(Some(&self.read))
    }
}

impl<M: Modem> Link for M {
    fn send(&mut self, message: &[u8], _: Deadline) -> Result<(), LinkError> {
        self.port().transfer()?;
        self.take(message);
        Ok(())
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        self.port().receive(by)
    }

    fn longest(&self) -> usize {
        4096
    }
}

/// Instead of a reply to an AT command: no reply.
pub(crate) const MUTE: &str = "no reply";

/// A modem that knows some AT commands and their replies, which are given without `OK`. It requires the password of
/// `AT!ENTERCND` first.
pub(crate) struct AtModem<'a> {
    answers: Vec<(&'a str, &'a str)>,
    password: &'a str,
    is_open: bool,
    /// Refuses this many commands because the SIM is busy.
    pub busy: usize,
    pub seen: Vec<String>,
    pub port: Port,
}

impl<'a> AtModem<'a> {
    pub(crate) fn new(password: &'a str, answers: &[(&'a str, &'a str)]) -> AtModem<'a> {
        let is_open = password.is_empty();
        AtModem { answers: answers.to_vec(), password, is_open, busy: 0, seen: Vec::new(), port: Port::default() }
    }
}

impl Modem for AtModem<'_> {
    fn port(&mut self) -> &mut Port {
        &mut self.port
    }

    fn take(&mut self, message: &[u8]) {
        let command = std::str::from_utf8(message).unwrap().trim_end().to_owned();
        let is_password = command == format!("AT!ENTERCND=\"{}\"", self.password);
        self.is_open |= is_password;
        let answer = self.answers.iter().find(|(asked, _)| *asked == command).map(|(_, answer)| *answer);
        let text = match answer {
            Some(MUTE) => String::new(),
            _ if is_password || ["ate0", "ATE0Q0V1"].contains(&command.as_str()) => "OK".to_owned(),
            _ if self.busy > 0 => {
                self.busy -= 1;
                "+CME ERROR: 14".to_owned()
            }
            Some(error) if error.starts_with("+CME ERROR:") => error.to_owned(),
            Some(answer) if self.is_open => format!("{answer}\r\n\r\nOK"),
            _ => "ERROR".to_owned(),
        };
        self.seen.push(command);
        self.port.say(format!("\r\n{text}\r\n").as_bytes(), usize::MAX);
    }
}
