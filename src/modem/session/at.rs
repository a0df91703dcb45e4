//! A session of AT commands. The modem answers each command with lines and a final result code.

use std::time::Duration;

use log::debug;

use super::{CLEANUP_RESERVE, LONGEST_WAIT, SessionError, fill, no_answer, retry_until};
use crate::host::deadline::Deadline;
use crate::modem::link::Link;
use crate::modem::wire::Framer;
use crate::modem::wire::at;

/// How long late answers are discarded after a command was repeated, or was refused.
const LATE_ANSWER_WAIT: Duration = Duration::from_millis(200);

/// How many lines of an answer are kept. The longest known answer has about a hundred.
const LINES: usize = 1000;

pub(crate) struct Conversation<'p> {
    port: &'p mut dyn Link,
    framer: Framer,
    deadline: Deadline,
}

impl<'p> Conversation<'p> {
    /// Repeats `ATE0` until the modem answers. This also turns the echo off. The profile of a modem may turn results off
    /// (`ATQ1`) or into numbers (`ATV0`), so every second attempt restores them. Not every modem knows combined commands.
    ///
    /// The conversation, including the close of the port, ends by `deadline`.
    pub(crate) fn open(port: &'p mut dyn Link, deadline: Deadline) -> Result<Conversation<'p>, SessionError> {
        let mut conversation = Conversation { port, framer: at::framer(), deadline };
        let (by, mut tries) = (conversation.work_deadline(), 0);
        let attempt = |conversation: &mut Self, until: Deadline| {
            tries += 1;
            let command = if tries % 2 == 0 { "ATE0Q0V1" } else { "ate0" };
            let mut answer = conversation.exchange("ATE0", command, until);
            // The tty may have echoed late answers to an earlier run, which the modem takes for commands.
            while let Err(SessionError::At { .. }) = answer {
                answer = conversation.receive_answer("ATE0", until);
            }
            answer
        };
        retry_until(&mut conversation, by, attempt, Self::pause)?
            .ok_or_else(|| no_answer("ATE0", conversation.framer.skipped()))?;
        if tries > 1 {
            conversation.pause(by.at_most(LATE_ANSWER_WAIT))?;
        }
        Ok(conversation)
    }

    /// Changes the deadline of the conversation.
    pub(crate) fn extend(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Sends a command once and returns the lines before the result code. It is not repeated, because an answer does
    /// not name its command. `name` is for messages.
    pub(crate) fn command(&mut self, name: &'static str, command: &str) -> Result<Vec<String>, SessionError> {
        self.exchange(name, command, self.work_deadline())?.ok_or(SessionError::NoAnswer { request: name })
    }

    /// Reads a setting (`+CFUN` with `AT+CFUN?`), and returns its values.
    pub(crate) fn read(&mut self, name: &'static str) -> Result<Vec<String>, SessionError> {
        let find = |lines: &[String]| {
            let values = lines.iter().find_map(|line| at::values(line, name))?;
            Some(values.into_iter().map(str::to_owned).collect())
        };
        self.query_once(name, &format!("AT{name}?"), &find)?.ok_or_else(|| no_answer(name, self.framer.skipped()))
    }

    /// Sends a query, and returns what `find` extracts from the lines of its answer. `None` if it finds nothing. A busy
    /// modem is asked again.
    pub(crate) fn query<T>(
        &mut self,
        name: &'static str,
        command: &str,
        find: impl Fn(&[String]) -> Option<T>,
    ) -> Result<Option<T>, SessionError> {
        let by = self.work_deadline();
        let attempt = |conversation: &mut Self, _| conversation.query_once(name, command, &find).map(Some);
        retry_until(self, by, attempt, Self::pause)?.ok_or_else(|| no_answer(name, self.framer.skipped()))
    }

    /// An answer in which `find` finds nothing may be the late answer to an earlier command. The last answer counts.
    fn query_once<T>(
        &mut self,
        name: &'static str,
        command: &str,
        find: &impl Fn(&[String]) -> Option<T>,
    ) -> Result<Option<T>, SessionError> {
        let by = self.work_deadline();
        let mut answer = self.exchange(name, command, by);
        let (mut until, mut last) = (by, None);
        loop {
            match answer {
                Ok(Some(lines)) => {
                    if let Some(found) = find(&lines) {
                        return Ok(Some(found));
                    }
                    until = by.at_most(LONGEST_WAIT);
                    last = Some(Ok(None));
                }
                Err(error @ SessionError::At { .. }) => {
                    until = until.at_most(LATE_ANSWER_WAIT);
                    last = Some(Err(error));
                }
                Ok(None) => return last.unwrap_or_else(|| Err(no_answer(name, self.framer.skipped()))),
                Err(error) => return Err(error),
            }
            answer = self.receive_answer(name, until);
        }
    }

    /// Runs `talk` with the earlier deadline `by` for its commands.
    pub(crate) fn within<T>(&mut self, by: Deadline, talk: impl FnOnce(&mut Self) -> T) -> T {
        let deadline = self.deadline;
        self.deadline = deadline.min(by.plus(CLEANUP_RESERVE));
        let result = talk(self);
        self.deadline = deadline;
        result
    }

    /// The deadline for commands. The rest of the time is for closing the port.
    pub(crate) fn work_deadline(&self) -> Deadline {
        self.deadline.minus(CLEANUP_RESERVE)
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

    /// The lines before the next result, at most [`LINES`]; `None` if it does not come in time.
    fn receive_answer(&mut self, name: &'static str, until: Deadline) -> Result<Option<Vec<String>>, SessionError> {
        let mut lines = Vec::new();
        while let Some(line) = self.receive_line(until)? {
            match at::final_result(&line) {
                Some(Ok(())) => return Ok(Some(lines)),
                Some(Err(error)) => return Err(SessionError::At { request: name, error: error.to_owned() }),
                None if lines.len() < LINES => lines.push(line),
                None => debug!("ignored {line:?}"),
            }
        }
        Ok(None)
    }

    /// Reads and discards what the modem sends until the deadline.
    pub(crate) fn pause(&mut self, until: Deadline) -> Result<(), SessionError> {
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
            if !fill(&mut self.framer, self.port, until)? {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::fake::{Modem, Port};
    use crate::modem::transport::Protocol;

    #[test]
    fn a_modem_that_answers_late_is_not_misread() {
        for late in [0, 300, 450, 600, 1000, 1500, 2500] {
            let _clock = StoppedClock::stop();
            let mut modem =
                Modem::at("", &[("AT+CFUN?", "+CFUN: 4"), ("AT+X?", "+X: 1")]).with(&format!("late={late}"));
            let mut at = Conversation::open(&mut modem, Deadline::after(Duration::from_secs(20))).unwrap();
            assert_eq!(at.query("x", "AT+X?", |lines| lines.first().cloned()), Ok(Some("+X: 1".to_owned())), "{late}");
            assert_eq!(at.read("+CFUN"), Ok(vec!["4".to_owned()]), "{late}");
        }
    }

    #[test]
    fn a_busy_modem_is_asked_again() {
        let _clock = StoppedClock::stop();
        let mut modem = Modem::at("", &[("AT+X?", "+X: 1")]).with("busy=3 at-message=X?");
        let mut at = Conversation::open(&mut modem, Deadline::after(Duration::from_secs(5))).unwrap();
        assert_eq!(at.query("x", "AT+X?", |lines| lines.first().cloned()), Ok(Some("+X: 1".to_owned())));
        let refused = SessionError::At { request: "x", error: "ERROR".to_owned() };
        assert_eq!(at.query("x", "AT+Y?", |lines| lines.first().cloned()), Err(refused));
        assert_eq!(modem.seen, ["ate0", "AT+X?", "AT+X?", "AT+X?", "AT+X?", "AT+Y?"]);
    }

    #[test]
    fn a_modem_that_never_ends_its_answer_does_not_fill_the_memory() {
        let _clock = StoppedClock::stop();
        let endless = "x\r\n".repeat(3 * LINES);
        let mut modem = Modem::at("", &[("AT+X?", endless.as_str())]);
        let mut at = Conversation::open(&mut modem, Deadline::after(Duration::from_secs(5))).unwrap();
        assert_eq!(at.command("x", "AT+X?").unwrap().len(), LINES);
    }

    #[test]
    fn results_are_turned_on_as_words() {
        for (quiet, numbers) in [(false, false), (true, false), (false, true), (true, true)] {
            let _clock = StoppedClock::stop();
            let mut profile = (quiet, numbers);
            // A modem whose stored profile turns results off, or into numbers.
            let mut modem = Port::replying(Protocol::At, |message: &[u8]| {
                if message == b"ATE0Q0V1\r" {
                    profile = (false, false);
                }
                match profile {
                    (true, _) => Vec::new(),
                    (_, true) => vec![b"0\r".to_vec()],
                    _ => vec![b"\r\nok\r\n".to_vec()],
                }
            });
            let mut at = Conversation::open(&mut modem, Deadline::after(Duration::from_secs(2))).unwrap();
            assert_eq!(at.command("x", "AT"), Ok(Vec::new()), "{quiet} {numbers}");
        }
    }
}
