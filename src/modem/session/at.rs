//! A session of AT commands. The modem answers each command with lines and a final result code.

use super::{CLEANUP_RESERVE, SessionError, no_answer, retry_until};
use crate::host::deadline::Deadline;
use crate::modem::link::{Link, LinkError};
use crate::modem::wire::Framer;
use crate::modem::wire::at;
use log::debug;
use std::time::Duration;

/// How long late answers are discarded after a command was repeated.
const AFTERMATH: Duration = Duration::from_millis(200);

pub(crate) struct Conversation<'p> {
    port: &'p mut dyn Link,
    framer: Framer,
    deadline: Deadline,
}

impl<'p> Conversation<'p> {
    /// Repeats `ATE0` until the modem answers. This also turns the echo off.
    pub(crate) fn open(port: &'p mut dyn Link, deadline: Deadline) -> Result<Conversation<'p>, SessionError> {
        let mut conversation = Conversation { port, framer: at::framer(), deadline: deadline.minus(CLEANUP_RESERVE) };
        let (by, mut tries) = (conversation.deadline, 0);
        let attempt = |conversation: &mut Self, until: Deadline| {
            tries += 1;
            let mut answer = conversation.exchange("ATE0", "ate0", until);
            // The tty may have echoed late answers to an earlier run, which the modem takes for commands.
            while let Err(SessionError::At { .. }) = answer {
                answer = conversation.receive_answer("ATE0", until);
            }
            answer
        };
        retry_until(&mut conversation, by, attempt, Self::pause)?
            .ok_or_else(|| no_answer("ATE0", conversation.framer.skipped()))?;
        if tries > 1 {
            conversation.pause(by.at_most(AFTERMATH))?;
        }
        Ok(conversation)
    }

    /// Gives the conversation another deadline.
    pub(crate) fn extend(&mut self, deadline: Deadline) {
        self.deadline = deadline.minus(CLEANUP_RESERVE);
    }

    /// Sends a command once and returns the lines before the result code. It is not repeated, because an answer does
    /// not name its command. `name` is for messages.
    pub(crate) fn command(&mut self, name: &'static str, command: &str) -> Result<Vec<String>, SessionError> {
        self.exchange(name, command, self.deadline)?.ok_or(SessionError::NoAnswer { request: name })
    }

    /// Reads a setting, `+CFUN` by `AT+CFUN?`, and returns its values. Results without a line of this name may be those of
    /// earlier commands, whose answers came late.
    pub(crate) fn read(&mut self, name: &'static str) -> Result<Vec<String>, SessionError> {
        let mut answer = self.exchange(name, &format!("AT{name}?"), self.deadline);
        let (mut until, mut refused) = (self.deadline, None);
        loop {
            match answer {
                Ok(Some(lines)) => {
                    if let Some(values) = lines.iter().find_map(|line| at::values(line, name)) {
                        return Ok(values.into_iter().map(str::to_owned).collect());
                    }
                }
                Ok(None) => return Err(refused.unwrap_or_else(|| no_answer(name, self.framer.skipped()))),
                Err(error @ SessionError::At { .. }) => {
                    until = until.at_most(AFTERMATH);
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
            answer = self.receive_answer(name, until);
        }
    }

    /// What is left for commands.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.remaining()
    }

    fn exchange(
        &mut self,
        name: &'static str,
        command: &str,
        until: Deadline,
    ) -> Result<Option<Vec<String>>, SessionError> {
        self.port.send(format!("{command}\r").as_bytes(), until)?;
        self.receive_answer(name, until)
    }

    /// The lines before the next result; `None` if it does not come in time.
    fn receive_answer(&mut self, name: &'static str, until: Deadline) -> Result<Option<Vec<String>>, SessionError> {
        let mut lines = Vec::new();
        while let Some(line) = self.receive_line(until)? {
            match at::final_result(&line) {
                Some(Ok(())) => return Ok(Some(lines)),
                Some(Err(error)) => return Err(SessionError::At { request: name, error: error.to_owned() }),
                None => lines.push(line),
            }
        }
        Ok(None)
    }

    /// Reads and discards what the modem sends until the deadline.
    fn pause(&mut self, until: Deadline) -> Result<(), SessionError> {
        while let Some(line) = self.receive_line(until)? {
            debug!("ignored {line:?}");
        }
        Ok(())
    }

    /// The next line that is not empty; `None` if the deadline passes first.
    fn receive_line(&mut self, until: Deadline) -> Result<Option<String>, SessionError> {
        loop {
            while let Some(line) = self.framer.next_message() {
                let line = String::from_utf8_lossy(line);
                match line.trim_matches(|c: char| c.is_whitespace() || c == '\0') {
                    "" => {}
                    line => return Ok(Some(line.to_owned())),
                }
            }
            match self.port.receive(until) {
                Ok(Some(read)) => self.framer.push(read),
                Ok(None) => return Ok(None),
                Err(LinkError::Overrun) => self.framer.clear(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
