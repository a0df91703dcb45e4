//! An MBIM session: OPEN, commands and their answers, CLOSE.

use std::path::Path;

use log::debug;

use super::qmi::QmuxTransport;
use super::{
    CLEANUP_RESERVE, CLOSE_RESERVE, Loss, STALE_REPLY_WAIT, SessionError, fill, first_tid, no_answer, retry_until,
    uninterrupted,
};
use crate::host::deadline::Deadline;
use crate::modem::link::{Link, LinkError};
use crate::modem::wire::mbim::{self, Body, CommandType, Message, ProtocolError, Reassembly, Status, Uuid};
use crate::modem::wire::{Fields, Framer, Malformed};

/// The names of requests in messages.
pub(crate) const OPEN: &str = "MBIM open";
pub(crate) const CLOSE: &str = "MBIM close";
pub(crate) const PROXY: &str = "mbim-proxy configuration";

/// A command of a service, and its name in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Command {
    pub service: Uuid,
    pub cid: u32,
    pub kind: CommandType,
    pub name: &'static str,
}

/// The only command of the QMI service.
pub(crate) const QMI: Command = Command { service: Uuid::QMI, cid: 1, kind: CommandType::Set, name: "QMI in MBIM" };

/// The first message to mbim-proxy.
const PROXY_CONFIGURATION: Command =
    Command { service: Uuid::PROXY_CONTROL, cid: 1, kind: CommandType::Set, name: PROXY };
/// How long mbim-proxy may take to open a port, in seconds.
const PROXY_OPENS_WITHIN: u32 = 5;

/// An open session. It is closed when it is dropped.
pub(crate) struct Session<'p> {
    port: &'p mut dyn Link,
    framer: Framer,
    reassembly: Reassembly,
    /// The number of bytes in malformed messages.
    garbage: usize,
    /// The command in progress.
    pending: Option<PendingCommand>,
    may_reopen: bool,
    /// Another program has opened the port: an OPEN or CLOSE would end its session.
    contended: bool,
    tid: u32,
    deadline: Deadline,
}

struct PendingCommand {
    command: Command,
    buffer: Vec<u8>,
    /// The TIDs with which it was sent.
    tids: Vec<u32>,
}

/// What to do with a set command whose answer is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfLost {
    Repeat,
    Fail,
}

/// What the port received.
enum Received {
    Message(Vec<u8>),
    /// A fragment of a COMMAND_DONE that is not complete.
    AnswerFragment {
        tid: u32,
    },
}

/// A COMMAND_DONE.
struct CommandDone {
    tid: u32,
    service: Uuid,
    cid: u32,
    /// Whether it answers the command in progress.
    answers: bool,
    status: Status,
    buffer: Vec<u8>,
}

impl<'p> Session<'p> {
    /// Opens the session. OPEN is repeated until the modem answers, because the modem may still be starting.
    ///
    /// The session, including CLOSE, ends by `deadline`.
    pub(crate) fn open(port: &'p mut dyn Link, deadline: Deadline) -> Result<Session<'p>, SessionError> {
        let mut session = Session::over(port, deadline);
        session.open_function()?;
        Ok(session)
    }

    /// Opens a session through mbim-proxy, on a new connection.
    pub(crate) fn open_through_proxy(
        proxy: &'p mut dyn Link,
        port: &Path,
        deadline: Deadline,
    ) -> Result<Session<'p>, SessionError> {
        let mut session = Session::over(proxy, deadline);
        let configuration = mbim::proxy_configuration(&port.to_string_lossy(), PROXY_OPENS_WITHIN);
        session.command(PROXY_CONFIGURATION, &configuration)?;
        session.open_function()?;
        Ok(session)
    }

    fn over(port: &'p mut dyn Link, deadline: Deadline) -> Session<'p> {
        Session {
            port,
            framer: mbim::framer(),
            reassembly: Reassembly::default(),
            garbage: 0,
            pending: None,
            may_reopen: true,
            contended: false,
            tid: first_tid(),
            deadline,
        }
    }

    /// Sends a command and returns the answer. A busy modem is asked again until the deadline.
    ///
    /// A query is repeated while no answer comes. A set command is not: instead, queries flush stale replies that may
    /// hold back its answer. It is repeated only if its answer is lost.
    pub(crate) fn command(&mut self, command: Command, buffer: &[u8]) -> Result<Vec<u8>, SessionError> {
        self.exchange(command, buffer, IfLost::Repeat)
    }

    /// Like [`Session::command`]. Returns the numbers at the start of the answer, one for each of `fields`.
    pub(crate) fn words<const N: usize>(
        &mut self,
        command: Command,
        buffer: &[u8],
        fields: [&'static str; N],
    ) -> Result<[u32; N], SessionError> {
        let answer = self.command(command, buffer)?;
        let malformed = |malformed| SessionError::Malformed { request: command.name, malformed };
        let (mut rest, mut words) = (Fields(&answer), [0; N]);
        for (word, field) in words.iter_mut().zip(fields) {
            *word = rest.u32(field).map_err(malformed)?;
        }
        Ok(words)
    }

    /// Like [`Session::command`], but does not repeat a set command whose answer is lost.
    pub(crate) fn command_once(&mut self, command: Command, buffer: &[u8]) -> Result<Vec<u8>, SessionError> {
        self.exchange(command, buffer, IfLost::Fail)
    }

    fn exchange(&mut self, command: Command, buffer: &[u8], if_lost: IfLost) -> Result<Vec<u8>, SessionError> {
        let (by, skipped) = (self.work_deadline(), self.skipped());
        let (mut is_new, mut flushes) = (true, Vec::new());
        // For a set command.
        let (mut is_sent, mut loss) = (false, Loss::default());
        let attempt = |session: &mut Self, until: Deadline| {
            if is_sent && if_lost == IfLost::Fail && loss.is_certain() {
                return Err(SessionError::NoAnswer { request: command.name });
            }
            if command.kind == CommandType::Set && is_sent && !loss.is_certain() {
                session.framer.resynchronise();
                // A proxy loses no message, and accepts no other message before this one.
                if command != PROXY_CONFIGURATION {
                    let query = Command { kind: CommandType::Query, ..command };
                    let flush = session.send_command(query, &[], by);
                    flushes.push(flush.map_err(|error| error.after(command.name))?);
                }
            } else {
                is_sent = true;
                loss.sent();
                flushes.clear();
                match std::mem::replace(&mut is_new, false) {
                    true => session.start(command, buffer, by)?,
                    false => session.repeat(by)?,
                }
            }
            let mut is_behind = false;
            while let Some(done) =
                session.receive_done(if is_behind { until.at_most(STALE_REPLY_WAIT) } else { until })?
            {
                if !done.answers {
                    match flushes.contains(&done.tid) {
                        true => loss.overtaken(),
                        false => is_behind = true,
                    }
                    continue;
                }
                is_sent = false;
                return match done.status {
                    Status::SUCCESS => Ok(Some(done.buffer)),
                    status => Err(SessionError::Mbim { request: command.name, status }),
                };
            }
            Ok(None)
        };
        retry_until(self, by, attempt, Self::pause)?.ok_or_else(|| no_answer(command.name, self.skipped() - skipped))
    }

    /// Reads and discards what the modem sends until the deadline.
    pub(crate) fn pause(&mut self, until: Deadline) -> Result<(), SessionError> {
        while self.receive_message(until)?.is_some() {}
        Ok(())
    }

    /// The deadline for commands. The rest of the time is for CLOSE.
    pub(crate) fn work_deadline(&self) -> Deadline {
        self.deadline.minus(CLEANUP_RESERVE)
    }

    /// Sends OPEN until the modem answers. A modem whose session an earlier host left open may always answer with
    /// CLOSE_DONE (EM7345, LN930). It needs CLOSE first, and then OPEN again. A CLOSE_DONE for an earlier host looks
    /// the same.
    fn open_function(&mut self) -> Result<(), SessionError> {
        let (by, skipped) = (self.work_deadline(), self.skipped());
        let max_control_transfer = self.port.longest() as u32;
        // An OPEN counts only if no CLOSE follows it.
        let (mut opens, mut closes) = (Vec::new(), Vec::new());
        let attempt = |session: &mut Self, until: Deadline| {
            if !opens.is_empty() {
                session.framer.resynchronise();
            }
            opens.push(session.send(Body::Open { max_control_transfer }, by)?);
            let (mut is_behind, mut is_closed) = (false, false);
            while let Some(received) =
                session.receive_message(if is_behind { until.at_most(STALE_REPLY_WAIT) } else { until })?
            {
                let Received::Message(bytes) = received else {
                    is_behind = true;
                    continue;
                };
                match Message::parse(&bytes) {
                    Ok(Message { tid, body: Body::OpenDone(status) }) if opens.contains(&tid) => {
                        return match status {
                            Status::SUCCESS => Ok(Some(())),
                            status => Err(SessionError::Mbim { request: OPEN, status }),
                        };
                    }
                    Ok(Message { tid, body: Body::FunctionError(error) }) if opens.contains(&tid) => {
                        return Err(SessionError::Function { request: OPEN, error });
                    }
                    Ok(Message { tid, body: Body::CloseDone(_) }) => {
                        is_behind = false;
                        if !is_closed && !closes.contains(&tid) {
                            is_closed = true;
                            closes.push(session.send(Body::Close, by)?);
                            opens = vec![session.send(Body::Open { max_control_transfer }, by)?];
                        }
                    }
                    ignored => {
                        is_behind |= is_answer(&ignored);
                        session.ignore(ignored, &bytes);
                    }
                }
            }
            Ok(None)
        };
        retry_until(self, by, attempt, Self::pause)?.ok_or_else(|| no_answer(OPEN, self.skipped() - skipped))
    }

    fn start(&mut self, command: Command, buffer: &[u8], by: Deadline) -> Result<(), SessionError> {
        self.pending = Some(PendingCommand { command, buffer: buffer.to_vec(), tids: Vec::new() });
        self.send_pending(by)
    }

    /// Discards incomplete messages and repeats the command.
    fn repeat(&mut self, by: Deadline) -> Result<(), SessionError> {
        self.framer.resynchronise();
        self.send_pending(by)
    }

    fn send_pending(&mut self, by: Deadline) -> Result<(), SessionError> {
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        let sent = self.send_command(pending.command, &pending.buffer, by);
        pending.tids.extend(sent.as_ref().ok());
        self.pending = Some(pending);
        sent.map(drop)
    }

    fn send_command(&mut self, command: Command, buffer: &[u8], by: Deadline) -> Result<u32, SessionError> {
        let Command { service, cid, kind, .. } = command;
        self.send(Body::Command { service, cid, kind, buffer }, by)
    }

    /// Sends a message with a new TID, and returns the TID.
    fn send(&mut self, body: Body, by: Deadline) -> Result<u32, SessionError> {
        if self.contended && matches!(body, Body::Open { .. } | Body::Close) {
            return Err(LinkError::WriteTimeout.into());
        }
        self.tid = self.tid.wrapping_add(1).max(1);
        let message = Message { tid: self.tid, body }.emit();
        for fragment in mbim::fragments(&message, self.port.longest()) {
            let sent = self.port.send(&fragment, by);
            self.contended |= sent == Err(LinkError::Contended);
            sent?;
        }
        Ok(self.tid)
    }

    /// The next COMMAND_DONE, whichever command it answers. If the modem reports that the session is not open, the
    /// session is opened again and the command is repeated, once.
    fn receive_done(&mut self, mut until: Deadline) -> Result<Option<CommandDone>, SessionError> {
        while let Some(received) = self.receive_message(until)? {
            let pending = |tid| {
                self.pending.as_ref().filter(|pending| pending.tids.contains(&tid)).map(|pending| pending.command)
            };
            let bytes = match received {
                Received::Message(bytes) => bytes,
                Received::AnswerFragment { tid } => {
                    if pending(tid).is_none() {
                        until = until.at_most(STALE_REPLY_WAIT);
                    }
                    continue;
                }
            };
            match Message::parse(&bytes) {
                Ok(Message { tid, body: Body::CommandDone { service, cid, status, buffer } }) => {
                    let answers = pending(tid).is_some_and(|command| (command.service, command.cid) == (service, cid));
                    return Ok(Some(CommandDone { tid, service, cid, answers, status, buffer: buffer.to_vec() }));
                }
                Ok(Message { tid, body: Body::FunctionError(error) }) => match pending(tid) {
                    Some(_) if error == ProtocolError::NOT_OPENED && self.may_reopen => {
                        debug!("the session is not open any more, and is opened again");
                        self.may_reopen = false;
                        self.open_function()?;
                        self.send_pending(self.work_deadline())?;
                    }
                    Some(command) => return Err(SessionError::Function { request: command.name, error }),
                    None => debug!("ignored function error {error}, TID {tid}"),
                },
                ignored => {
                    if is_answer(&ignored) {
                        until = until.at_most(STALE_REPLY_WAIT);
                    }
                    self.ignore(ignored, &bytes);
                }
            }
        }
        Ok(None)
    }

    /// The next complete message or fragment of an answer; `None` if the deadline passes first.
    fn receive_message(&mut self, until: Deadline) -> Result<Option<Received>, SessionError> {
        loop {
            while let Some(message) = self.framer.next_message() {
                match self.reassembly.push(message) {
                    Ok(Some(whole)) => return Ok(Some(Received::Message(whole))),
                    Ok(None) => {}
                    Err(malformed) => {
                        debug!("{malformed} in a fragment of {} bytes", message.len());
                        self.garbage += message.len();
                    }
                }
                if let Some(tid) = mbim::tid_of_answer(message) {
                    return Ok(Some(Received::AnswerFragment { tid }));
                }
            }
            if !fill(&mut self.framer, self.port, until)? {
                return Ok(None);
            }
        }
    }

    fn ignore(&mut self, message: Result<Message, Malformed>, bytes: &[u8]) {
        match message {
            Ok(Message { tid, body }) => debug!("ignored {body:?}, TID {tid}"),
            Err(malformed) => {
                debug!("{malformed} in a message of {} bytes", bytes.len());
                self.garbage += bytes.len();
            }
        }
    }

    /// Sends CLOSE and waits for the answer. Before the answer, the request may not have left the host, and closing the
    /// port would cancel it.
    fn close(&mut self) -> Result<(), SessionError> {
        // Even if the deadline has passed on a slow machine, the session must be closed.
        let by = self.deadline.at_most(CLEANUP_RESERVE).max(Deadline::after(CLOSE_RESERVE));
        let mut tids = Vec::new();
        // The modem may have missed the first CLOSE.
        for until in [by.at_most(CLEANUP_RESERVE / 2), by] {
            tids.push(uninterrupted(|| self.send(Body::Close, by))?);
            while let Some(received) = uninterrupted(|| self.receive_message(until))? {
                let Received::Message(bytes) = received else { continue };
                match Message::parse(&bytes) {
                    Ok(Message { tid, body: Body::CloseDone(_) | Body::FunctionError(_) }) if tids.contains(&tid) => {
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Whether the message answers a request of this or an earlier client.
fn is_answer(message: &Result<Message, Malformed>) -> bool {
    let bodies = message.as_ref().map(|message| &message.body);
    matches!(bodies, Ok(Body::OpenDone(_) | Body::CloseDone(_) | Body::CommandDone { .. }))
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            debug!("the MBIM session was not closed: {error}");
        }
    }
}

impl QmuxTransport for Session<'_> {
    fn send(&mut self, frame: &[u8], by: Deadline) -> Result<(), SessionError> {
        self.start(QMI, frame, by)
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<Vec<u8>>, SessionError> {
        while let Some(done) = self.receive_done(by)? {
            if (done.service, done.cid) != (QMI.service, QMI.cid) {
                continue;
            }
            match done.status {
                Status::SUCCESS => return Ok(Some(done.buffer)),
                status if done.answers => return Err(SessionError::Mbim { request: QMI.name, status }),
                _ => {}
            }
        }
        Ok(None)
    }

    fn resynchronise(&mut self) {
        self.framer.resynchronise();
    }

    fn skipped(&self) -> usize {
        self.framer.skipped() + self.garbage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::fake::Port;
    use crate::modem::transport::Protocol;
    use std::time::Duration;

    const BUDGET: Duration = Duration::from_secs(10);
    /// A TID of an earlier host.
    const STALE: u32 = 0xffff_fff0;
    const QUERY: Command =
        Command { service: Uuid::BASIC_CONNECT, cid: 3, kind: CommandType::Query, name: "radio state" };
    const GARBAGE: &[u8] = &[0xee; 5];

    fn reply(tid: u32, body: Body) -> Vec<u8> {
        Message { tid, body }.emit()
    }

    fn opened(tid: u32) -> Vec<u8> {
        reply(tid, Body::OpenDone(Status::SUCCESS))
    }

    fn done(tid: u32, status: Status) -> Vec<u8> {
        reply(tid, Body::CommandDone { service: QUERY.service, cid: QUERY.cid, status, buffer: &[7] })
    }

    /// Opens a session and sends the query. The replies to the Nth OPEN and to the Nth command are those of the test.
    /// Returns the result, the number of OPENs and of commands, and the time.
    fn ask(
        on_open: impl Fn(usize, u32) -> Vec<Vec<u8>>,
        on_command: impl Fn(usize, u32) -> Vec<Vec<u8>>,
    ) -> (Result<Vec<u8>, String>, usize, usize, Duration) {
        let clock = StoppedClock::stop();
        let (mut opens, mut commands) = (0, 0);
        let replies = |message: &[u8]| {
            let Message { tid, body } = Message::parse(message).unwrap();
            match body {
                Body::Open { .. } => {
                    opens += 1;
                    on_open(opens, tid)
                }
                Body::Command { .. } => {
                    commands += 1;
                    on_command(commands, tid)
                }
                _ => vec![reply(tid, Body::CloseDone(Status::SUCCESS))],
            }
        };
        let result = Session::open(&mut Port::replying(Protocol::Mbim, replies), Deadline::after(BUDGET))
            .and_then(|mut session| session.command(QUERY, &[]))
            .map_err(|error| error.to_string());
        (result, opens, commands, clock.elapsed())
    }

    fn answered(_: usize, tid: u32) -> Vec<Vec<u8>> {
        vec![done(tid, Status::SUCCESS)]
    }

    #[test]
    fn answers_to_the_open_of_an_earlier_host_do_not_count() {
        let stale = || {
            vec![
                reply(STALE, Body::OpenDone(Status::FAILURE)),
                reply(STALE, Body::FunctionError(ProtocolError::NOT_OPENED)),
                opened(STALE),
            ]
        };
        let (result, opens, ..) = ask(|_, tid| [stale(), vec![opened(tid)]].concat(), answered);
        assert_eq!((result, opens), (Ok(vec![7]), 1));
        // The modem answers only to the second OPEN.
        let (result, opens, ..) = ask(|count, tid| if count == 1 { stale() } else { vec![opened(tid)] }, answered);
        assert_eq!((result, opens), (Ok(vec![7]), 2));
        // An answer to the first OPEN is one, too.
        let first = std::cell::Cell::new(0);
        let (result, opens, ..) = ask(
            |count, tid| match count {
                1 => {
                    first.set(tid);
                    Vec::new()
                }
                _ => vec![opened(first.get())],
            },
            answered,
        );
        assert_eq!((result, opens), (Ok(vec![7]), 2));
    }

    #[test]
    fn a_refusal_of_the_open_is_reported_at_once() {
        let refused = |body: fn() -> Body<'static>| ask(|_, tid| vec![reply(tid, body())], answered);
        let (result, opens, commands, took) = refused(|| Body::OpenDone(Status::FAILURE));
        assert_eq!(
            (result.unwrap_err().as_str(), opens, commands),
            ("MBIM open returned MBIM status Failure (2)", 1, 0)
        );
        assert!(took < Duration::from_millis(100), "{took:?}");
        let (result, opens, ..) = refused(|| Body::FunctionError(ProtocolError(7)));
        assert_eq!((result.unwrap_err().as_str(), opens), ("MBIM open returned MBIM function error Cancel (7)", 1));
    }

    #[test]
    fn half_a_reply_does_not_spoil_the_next_one() {
        let half = |tid| opened(tid)[..8].to_vec();
        let (result, opens, ..) = ask(|count, tid| vec![if count == 1 { half(tid) } else { opened(tid) }], answered);
        assert_eq!((result, opens), (Ok(vec![7]), 2));
        let cut = |count, tid| {
            vec![if count == 1 { done(tid, Status::SUCCESS)[..20].to_vec() } else { done(tid, Status::SUCCESS) }]
        };
        let (result, _, commands, _) = ask(|_, tid| vec![opened(tid)], cut);
        assert_eq!((result, commands), (Ok(vec![7]), 2));
    }

    #[test]
    fn only_garbage_since_the_request_is_reported() {
        let open = |_, tid| vec![opened(tid)];
        let (result, ..) = ask(|_, tid| vec![GARBAGE.to_vec(), opened(tid)], |_, _| Vec::new());
        assert_eq!(result.unwrap_err(), "no answer to radio state");
        let noisy =
            |count, _| if count == 1 { vec![GARBAGE.to_vec(), done(STALE, Status::SUCCESS)] } else { Vec::new() };
        let (result, ..) = ask(open, noisy);
        assert_eq!(result.unwrap_err(), "no answer to radio state, only 5 bytes that are not part of the protocol");
        let (result, ..) = ask(|_, tid| vec![GARBAGE.to_vec(), opened(tid)], noisy);
        assert_eq!(result.unwrap_err(), "no answer to radio state, only 5 bytes that are not part of the protocol");
        let (result, ..) = ask(|_, _| vec![GARBAGE.to_vec(), opened(STALE)], answered);
        assert!(result.unwrap_err().starts_with("no answer to MBIM open, only "));
    }

    #[test]
    fn a_busy_modem_is_asked_again_after_a_pause() {
        let busy = |count, tid| vec![done(tid, if count < 4 { Status::BUSY } else { Status::SUCCESS })];
        let (result, _, commands, took) = ask(|_, tid| vec![opened(tid)], busy);
        assert_eq!((result, commands), (Ok(vec![7]), 4));
        // Three pauses, each twice as long as the one before.
        assert!((Duration::from_millis(350)..Duration::from_millis(400)).contains(&took), "{took:?}");
    }

    #[test]
    fn a_session_that_the_modem_closed_is_opened_again_once() {
        let not_open = |_, tid| vec![reply(tid, Body::FunctionError(ProtocolError::NOT_OPENED))];
        let open = |_, tid| vec![opened(tid)];
        let (result, opens, commands, _) =
            ask(open, |count, tid| if count == 1 { not_open(count, tid) } else { answered(count, tid) });
        assert_eq!((result, opens, commands), (Ok(vec![7]), 2, 2));
        let (result, opens, commands, _) = ask(open, not_open);
        assert!(result.unwrap_err().starts_with("radio state returned MBIM function error"));
        assert_eq!((opens, commands), (2, 2));
        // Errors of other requests do not count.
        let others = |_, tid| {
            vec![
                reply(STALE, Body::FunctionError(ProtocolError::NOT_OPENED)),
                reply(STALE, Body::FunctionError(ProtocolError(7))),
                reply(tid, Body::CommandDone { service: QUERY.service, cid: 9, status: Status::SUCCESS, buffer: &[1] }),
                done(tid, Status::SUCCESS),
            ]
        };
        let (result, opens, commands, _) = ask(open, others);
        assert_eq!((result, opens, commands), (Ok(vec![7]), 1, 1));
    }
}
