//! Requests over the RPC of Intel's XMM7360.

use log::debug;

use super::{CLEANUP_RESERVE, SessionError, fill, no_answer, retry_until};
use crate::host::deadline::Deadline;
use crate::modem::link::Link;
use crate::modem::wire::Framer;
use crate::modem::wire::xmm::{self, Call, Message};

pub(crate) struct Rpc<'p> {
    port: &'p mut dyn Link,
    framer: Framer,
    deadline: Deadline,
}

impl<'p> Rpc<'p> {
    pub(crate) fn new(port: &'p mut dyn Link, deadline: Deadline) -> Rpc<'p> {
        Rpc { port, framer: xmm::framer(), deadline }
    }

    /// Sends a request again until it is answered. Only for requests that change nothing.
    pub(crate) fn query(&mut self, call: Call) -> Result<Vec<u32>, SessionError> {
        let by = self.work_deadline();
        let attempt = |rpc: &mut Self, until: Deadline| {
            rpc.framer.resynchronise();
            rpc.exchange(call, 0, until)
        };
        let answer = retry_until(self, by, attempt, |rpc, until| rpc.receive(call, until).map(drop))?;
        answer.ok_or_else(|| no_answer(call.name, self.framer.skipped()))
    }

    /// Sends a request once, because an answer does not identify its request.
    pub(crate) fn request(&mut self, call: Call, argument: u32) -> Result<Vec<u32>, SessionError> {
        self.exchange(call, argument, self.work_deadline())?.ok_or_else(|| no_answer(call.name, self.framer.skipped()))
    }

    /// The deadline for requests. The rest of the time is for closing the port.
    pub(crate) fn work_deadline(&self) -> Deadline {
        self.deadline.minus(CLEANUP_RESERVE)
    }

    fn exchange(&mut self, call: Call, argument: u32, until: Deadline) -> Result<Option<Vec<u32>>, SessionError> {
        self.port.send(&xmm::request(call, argument), until)?;
        self.receive(call, until)
    }

    /// The answer to `call`; `None` if it does not come in time. Acknowledgements and the modem's own messages are
    /// ignored.
    fn receive(&mut self, call: Call, until: Deadline) -> Result<Option<Vec<u32>>, SessionError> {
        loop {
            while let Some(frame) = self.framer.next_message() {
                match Message::parse(frame) {
                    Ok(message) => match message.answer_to(call) {
                        Some(integers) => return Ok(Some(integers)),
                        None => debug!("ignored XMM message {:#x}, TID {:#x}", message.code, message.tid),
                    },
                    Err(malformed) => debug!("{malformed} in an XMM frame of {} bytes", frame.len()),
                }
                if until.has_passed() {
                    return Ok(None);
                }
            }
            if !fill(&mut self.framer, self.port, until)? {
                return Ok(None);
            }
        }
    }
}
