//! A QMI client: a CID for each service that it uses, over anything that carries QMUX frames.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use log::debug;

use super::{
    CLEANUP_RESERVE, CLOSE_RESERVE, Loss, STALE_REPLY_WAIT, SessionError, fill, first_tid, no_answer, retry_until,
    uninterrupted,
};
use crate::host::deadline::Deadline;
use crate::modem::link::Link;
use crate::modem::wire::qmi::{self, Call, ErrorCode, Kind, Message, Service, Tlvs, ctl, dms, fox};
use crate::modem::wire::{Framer, Malformed};

/// A transport for QMUX frames.
pub(crate) trait QmuxTransport {
    fn send(&mut self, frame: &[u8], by: Deadline) -> Result<(), SessionError>;

    /// The next frame; `None` if the deadline passes first.
    fn receive(&mut self, by: Deadline) -> Result<Option<Vec<u8>>, SessionError>;

    /// Discards incomplete frames. Called when an answer did not come.
    fn resynchronise(&mut self);

    /// The number of bytes that were not part of a message.
    fn skipped(&self) -> usize;
}

/// QMUX frames directly on a port.
pub(crate) struct RawQmux<'p> {
    port: &'p mut dyn Link,
    framer: Framer,
}

impl<'p> RawQmux<'p> {
    pub(crate) fn new(port: &'p mut dyn Link) -> RawQmux<'p> {
        RawQmux { port, framer: qmi::framer() }
    }
}

impl QmuxTransport for RawQmux<'_> {
    fn send(&mut self, frame: &[u8], by: Deadline) -> Result<(), SessionError> {
        Ok(self.port.send(frame, by)?)
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<Vec<u8>>, SessionError> {
        loop {
            if let Some(frame) = self.framer.next_message() {
                return Ok(Some(frame.to_vec()));
            }
            if !fill(&mut self.framer, self.port, by)? {
                return Ok(None);
            }
        }
    }

    fn resynchronise(&mut self) {
        self.framer.resynchronise();
    }

    fn skipped(&self) -> usize {
        self.framer.skipped()
    }
}

/// Sends qmi-proxy the path of the port, on a new connection.
pub(crate) fn open_through_proxy(
    qmux: &mut dyn QmuxTransport,
    port: &Path,
    deadline: Deadline,
) -> Result<(), SessionError> {
    let mut client = Client::without_cid(qmux, deadline);
    client.exchange(ctl::PROXY_OPEN, 0, &[(0x01, port.as_os_str().as_bytes())])?;
    Ok(())
}

/// An answer that reports success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    request: &'static str,
    tlvs: Vec<u8>,
}

impl Reply {
    /// Reads the answer's TLVs.
    pub(crate) fn read<T>(&self, read: impl FnOnce(Tlvs) -> Result<T, Malformed>) -> Result<T, SessionError> {
        Tlvs::parse(&self.tlvs)
            .and_then(read)
            .map_err(|malformed| SessionError::Malformed { request: self.request, malformed })
    }
}

/// A client. On drop, it releases its CIDs, and any CID that the modem allocated too late.
pub(crate) struct Client<'c> {
    qmux: &'c mut dyn QmuxTransport,
    /// One for each service that the client has used.
    cids: Vec<(Service, u8)>,
    /// The TID of an allocation without an answer.
    allocating: Option<u16>,
    /// The TIDs of releases without an answer.
    releasing: Vec<u16>,
    tid: u16,
    deadline: Deadline,
}

impl<'c> Client<'c> {
    /// Waits until the modem answers, then allocates a CID for `service`. Each allocation takes one of about ten CIDs.
    /// A request to another service allocates a CID for that service.
    ///
    /// The client, including the release of its CIDs, is done by `deadline`.
    pub(crate) fn allocate(
        qmux: &'c mut dyn QmuxTransport,
        service: Service,
        deadline: Deadline,
    ) -> Result<Self, SessionError> {
        let mut client = Client::without_cid(qmux, deadline);
        // CTL Sync would release the CIDs of all clients.
        client.exchange(ctl::GET_VERSION_INFO, 0, &[])?;
        client.take_cid(service)?;
        Ok(client)
    }

    fn without_cid(qmux: &'c mut dyn QmuxTransport, deadline: Deadline) -> Client<'c> {
        let tid = first_tid() as u16;
        Client { qmux, cids: Vec::new(), allocating: None, releasing: Vec::new(), tid, deadline }
    }

    /// Sends a request and returns the answer. A busy modem is asked again until the deadline.
    ///
    /// # Errors
    /// The modem's last error, if it answered at all.
    pub(crate) fn request(&mut self, call: Call, tlvs: &[(u8, &[u8])]) -> Result<Reply, SessionError> {
        let cid = match self.cids.iter().find(|(service, _)| *service == call.service) {
            Some((_, cid)) => *cid,
            None => self.take_cid(call.service)?,
        };
        match self.exchange(call, cid, tlvs) {
            // The modem restarted, or another program sent CTL Sync.
            Err(SessionError::Qmi { error: ErrorCode::INVALID_CLIENT_ID, .. }) => {
                debug!("CID {cid} is no longer valid");
                self.cids.retain(|(service, _)| *service != call.service);
                let cid = self.take_cid(call.service)?;
                self.exchange(call, cid, tlvs)
            }
            answered => answered,
        }
    }

    /// Reads and discards frames until the deadline: unread frames hold back later ones.
    pub(crate) fn pause(&mut self, until: Deadline) -> Result<(), SessionError> {
        while self.discard_next(until)? {}
        Ok(())
    }

    /// Discards the next frame. Returns whether there was one before the deadline.
    fn discard_next(&mut self, until: Deadline) -> Result<bool, SessionError> {
        let Some(frame) = self.qmux.receive(until)? else { return Ok(false) };
        if let Ok(message) = Message::parse(&frame) {
            self.discard(&message);
        }
        Ok(true)
    }

    /// Runs `talk` with the earlier deadline `by` for its requests.
    pub(crate) fn within<T>(&mut self, by: Deadline, talk: impl FnOnce(&mut Self) -> T) -> T {
        let deadline = self.deadline;
        self.deadline = deadline.min(by.plus(CLEANUP_RESERVE));
        let result = talk(self);
        self.deadline = deadline;
        result
    }

    /// The deadline for requests. The rest of the time is for the release of the CID.
    pub(crate) fn work_deadline(&self) -> Deadline {
        self.deadline.minus(CLEANUP_RESERVE)
    }

    fn take_cid(&mut self, service: Service) -> Result<u8, SessionError> {
        let reply = self.exchange(ctl::ALLOCATE_CID, 0, &[(0x01, &[service.0])])?;
        let cid = reply.read(|tlvs| allocated(tlvs).map(|(_, cid)| cid))?;
        self.cids.push((service, cid));
        Ok(cid)
    }

    /// Sends a request and waits for its answer: the same service, CID and message, and one of its TIDs.
    ///
    /// The request is repeated while no answer comes. A request that changes the modem is not: instead, other requests
    /// flush stale replies that may hold back its answer. It is repeated only if its answer is lost.
    fn exchange(&mut self, call: Call, cid: u8, tlvs: &[(u8, &[u8])]) -> Result<Reply, SessionError> {
        let by = self.work_deadline();
        let skipped = self.qmux.skipped();
        let (mut tids, mut flushes, mut garbage) = (Vec::new(), Vec::new(), 0);
        // For a request that changes the modem.
        let (mut is_sent, mut loss) = (false, Loss::default());
        let attempt = |client: &mut Self, until: Deadline| {
            if !tids.is_empty() {
                client.qmux.resynchronise();
            }
            if call.changes && is_sent && !loss.is_certain() {
                // A proxy loses no message, and accepts no other message before this one.
                if call != ctl::PROXY_OPEN {
                    let flush = client.flush_stale_reply(call.service, cid, by);
                    flushes.push(flush.map_err(|error| error.after(call.name))?);
                }
            } else {
                let tid = client.next_tid(call.service);
                tids.push(tid);
                if call == ctl::ALLOCATE_CID {
                    client.allocating = Some(tid);
                }
                is_sent = true;
                loss.sent();
                flushes.clear();
                client.qmux.send(&qmi::request(call, cid, tid, tlvs), by)?;
            }
            let mut is_behind = false;
            loop {
                let received = client.qmux.receive(if is_behind { until.at_most(STALE_REPLY_WAIT) } else { until });
                // The modem's MBIM function was busy, and has not passed the request on.
                if flushes.is_empty() && received.as_ref().is_err_and(SessionError::is_transient) {
                    is_sent = false;
                }
                let Some(frame) = received? else { break };
                let message = match Message::parse(&frame) {
                    Ok(message) => message,
                    Err(malformed) => {
                        debug!("{malformed} in a frame of {} bytes", frame.len());
                        garbage += frame.len();
                        continue;
                    }
                };
                let answers = (message.kind, message.service, message.cid, message.id)
                    == (Kind::Response, call.service, cid, call.id)
                    && tids.contains(&message.tid);
                if answers {
                    is_sent = false;
                    return client.take_answer(call, &message).map(Some);
                }
                if flushes.contains(&message.tid) {
                    loss.overtaken();
                } else {
                    is_behind |= message.kind == Kind::Response;
                }
                client.discard(&message);
            }
            Ok(None)
        };
        retry_until(self, by, attempt, Self::pause)?
            .ok_or_else(|| no_answer(call.name, garbage + self.qmux.skipped() - skipped))
    }

    /// Sends a request to flush one stale reply. Returns the TID. The answer is ignored.
    ///
    /// The request goes to the same service and CID, because each service has its own queue.
    fn flush_stale_reply(&mut self, service: Service, cid: u8, by: Deadline) -> Result<u16, SessionError> {
        let (call, cid) = match service {
            Service::DMS => (dms::GET_OPERATING_MODE, cid),
            Service::FOX | Service::FOXAP => (fox::get_fcc_lock(service), cid),
            _ => (ctl::GET_VERSION_INFO, 0),
        };
        let tid = self.next_tid(call.service);
        self.qmux.send(&qmi::request(call, cid, tid, &[]), by)?;
        Ok(tid)
    }

    fn take_answer(&mut self, call: Call, message: &Message) -> Result<Reply, SessionError> {
        let request = call.name;
        if call == ctl::ALLOCATE_CID {
            self.allocating = None;
        }
        match message.result() {
            Ok(Ok(())) => Ok(Reply { request, tlvs: message.tlvs.as_bytes().to_vec() }),
            Ok(Err(error)) => Err(SessionError::Qmi { request, error }),
            Err(malformed) => Err(SessionError::Malformed { request, malformed }),
        }
    }

    /// Handles a message that does not answer the request in progress. A CID that was allocated too late, or for a
    /// process that has ended, is released.
    fn discard(&mut self, message: &Message) {
        debug!("ignored {} message {:#06x}, TID {}", message.service, message.id, message.tid);
        if (message.service, message.kind) != (Service::CTL, Kind::Response) {
            return;
        }
        if message.id == ctl::RELEASE_CID.id {
            self.releasing.retain(|tid| *tid != message.tid);
        }
        if message.id == ctl::ALLOCATE_CID.id {
            self.allocating = self.allocating.filter(|tid| *tid != message.tid);
            if let (Ok(Ok(())), Ok((service, cid))) = (message.result(), allocated(message.tlvs)) {
                debug!("CID {cid} of {service} arrived too late, and is released");
                let by = self.deadline.minus(CLOSE_RESERVE);
                if let Err(error) = uninterrupted(|| self.send_release(service, cid, by)) {
                    debug!("CID {cid} of {service} was not released: {error}");
                }
            }
        }
    }

    /// The next TID, never 0; 1 to 255 for CTL, where a TID has one byte.
    fn next_tid(&mut self, service: Service) -> u16 {
        self.tid = self.tid.wrapping_add(1);
        if self.tid & 0xff == 0 {
            self.tid = self.tid.wrapping_add(1);
        }
        match service {
            Service::CTL => self.tid & 0xff,
            _ => self.tid,
        }
    }

    /// Releases the CIDs, and any CID that was allocated too late, and waits for the answers. Before an answer, the
    /// request may not have left the host, and closing the port would cancel it.
    fn release(&mut self) -> Result<(), SessionError> {
        let by = self.deadline.minus(CLOSE_RESERVE).at_most(CLEANUP_RESERVE - CLOSE_RESERVE);
        while let Some((service, cid)) = self.cids.pop() {
            uninterrupted(|| self.send_release(service, cid, by))?;
        }
        if self.allocating.is_some() {
            uninterrupted(|| self.flush_stale_reply(Service::CTL, 0, by))?;
        }
        while !self.releasing.is_empty() || self.allocating.is_some() {
            if !uninterrupted(|| self.discard_next(by))? {
                break;
            }
        }
        Ok(())
    }

    fn send_release(&mut self, service: Service, cid: u8, by: Deadline) -> Result<(), SessionError> {
        let tid = self.next_tid(Service::CTL);
        self.qmux.send(&qmi::request(ctl::RELEASE_CID, 0, tid, &[(0x01, &[service.0, cid])]), by)?;
        self.releasing.push(tid);
        Ok(())
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            debug!("a CID was not released: {error}");
        }
    }
}

/// Service and CID in the answers to Allocate CID and Release CID.
fn allocated(tlvs: Tlvs) -> Result<(Service, u8), Malformed> {
    match tlvs.get(0x01, "allocated CID")? {
        [service, cid, ..] => Ok((Service(*service), *cid)),
        short => Err(Malformed::Short { field: "allocated CID", needed: 2, had: short.len() }),
    }
}
