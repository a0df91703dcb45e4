//! A modem in memory that is a [`Link`]. It speaks QMI, or QMI over MBIM, has the state of a real modem, and can have
//! the faults of real modems.

use super::{Link, LinkError};
use crate::host::deadline::{Deadline, clock};
use crate::modem::wire::mbim::{self, Body, ProtocolError, Reassembly, Status, Uuid};
use crate::modem::wire::qmi::{self, Kind, Service, ctl, dms};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    Qmi,
    Mbim,
}

/// The time that a transfer takes, so that time passes even if the host never waits.
const TRANSFER: Duration = Duration::from_micros(20);

pub(crate) const FIRMWARE: &str = "T99W175.F0.1.0.0.9.GC.004.079.A1";
pub(crate) const APPS: &str = "01.00.00.01";
pub(crate) const IMEI: &str = "359072060000001";
/// The digest that version 2 requires with the magic `foxc`. `FDE1_DIGEST` and `FDE2_DIGEST` are for the magics `FDE1`
/// and `FDE2`. Computed with md5sum.
const FOXCONN_DIGEST: &str = "9845966bd27f97813370fdbad8bc6ad7";
/// The modem's challenge, and the response that it accepts.
const CHALLENGE: u32 = 0x1234_5678;
const RESPONSE: [u8; 4] = [0x81, 0xf8, 0x1c, 0x40];
const FDE1_DIGEST: &str = "1ae2556ec73aea8b79413f46485ced65";
const FDE2_DIGEST: &str = "2aba8cbeefd971eeb8a422e91f872e64";

pub(crate) struct Modem {
    pub(crate) face: Face,
    // What it is.
    pub mode: u8,
    pub(crate) switched_off: bool,
    /// Why the modem cannot go online. 0 if the modem does not report a reason.
    pub(crate) offline_reason: u16,
    /// Hardware and software radio state in Basic Connect, for a modem without a lock.
    pub(crate) mbim_radio: Option<[u8; 2]>,
    /// The error in the reply to an unlock. 0 unlocks.
    pub(crate) auth_error: u16,
    /// The error in the reply to DMS Set Operating Mode.
    pub(crate) mode_error: u16,
    /// How often the mode must be read after the unlock until the modem is online.
    pub(crate) looks_until_online: usize,
    /// The version of Foxconn's authentication that the modem accepts, with [`FIRMWARE`], [`APPS`] and [`IMEI`].
    pub foxconn: Option<u8>,
    /// The Foxconn service that has the lock, and the state that it reports.
    pub(crate) fox: Option<(Service, u8)>,
    /// Quectel's radio state.
    pub quectel: Option<u32>,
    /// Mode and state of the lock in Intel's MBIM service. The modem accepts the response to [`CHALLENGE`] with
    /// Lenovo's key.
    pub intel: Option<[u32; 2]>,
    /// The modem accepts the unlock by Quectel's or Foxconn's service, and stays locked.
    pub(crate) stays_locked: bool,
    /// Sierra's USB composition, and the compositions that the modem lists. A modem that has one can be reset.
    pub composition: Option<(u8, &'static [u8])>,
    pub(crate) refuses_reset: bool,
    /// The modem is behind a proxy, which requires this path in the first request.
    pub(crate) behind_proxy: Option<&'static str>,
    /// `wMaxControlMessage`, in both directions.
    pub longest: usize,
    // Its faults. Message IDs 1 and 2 are MBIM open and close.
    /// Ignores this many requests of any kind first.
    pub(crate) deaf_to: usize,
    /// Ignores these messages.
    pub(crate) mute_to: Vec<u16>,
    /// Obeys these messages, but does not reply.
    pub(crate) quiet_on: Vec<u16>,
    /// Obeys this message, but its reply is lost, once.
    pub(crate) loses: Option<u16>,
    pub(crate) answers_after: Duration,
    /// An additional delay for the reply to CTL Allocate CID.
    pub(crate) allocates_after: Duration,
    /// Replies to this many DMS requests with DeviceNotReady.
    pub(crate) busy_for: usize,
    /// Replies to this many QMI commands with MBIM status Busy.
    pub(crate) mbim_busy_for: usize,
    pub(crate) has_no_cid: bool,
    /// Replies to this many commands that the session is not open.
    pub(crate) not_opened: usize,
    /// An earlier host left the session open. Until the session is closed, the modem replies to OPEN with a CLOSE_DONE
    /// that has this TID, or the TID of the OPEN.
    pub(crate) left_open: Option<Option<u32>>,
    /// It does so even after a CLOSE.
    pub(crate) stays_left_open: bool,
    pub(crate) has_no_qmi: bool,
    /// Sends indications and unrelated replies before each reply.
    pub(crate) chatters: bool,
    /// Returns this many bytes for each read.
    pub(crate) reads_of: Option<usize>,
    /// Returns all available bytes in one read.
    pub(crate) reads_all: bool,
    /// Sends these bytes before each reply, or only before the reply to `noise_at`.
    pub noise: Vec<u8>,
    pub(crate) noise_at: Option<u16>,
    /// Forgets its clients at this DMS request.
    pub(crate) forgets_at: Option<usize>,
    pub(crate) gone_at: Option<usize>,
    pub(crate) interrupted_at: Option<usize>,
    pub(crate) jammed: bool,
    /// Replies to an earlier host that did not read them. Each new reply releases the oldest one, and is queued behind
    /// the others.
    pub held: VecDeque<Vec<u8>>,
    /// Sends CTL Sync indications endlessly, and nothing else.
    pub(crate) floods: bool,
    // What it recorded.
    pub seen: Vec<u16>,
    pub(crate) allocations: usize,
    pub(crate) cids: BTreeSet<u8>,
    pub(crate) is_open: bool,
    pub transfers: usize,
    next_cid: u8,
    owners: BTreeMap<u8, Service>,
    unlocked: bool,
    looks: usize,
    requests: usize,
    commands: Reassembly,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    read: Vec<u8>,
}

impl Modem {
    /// A locked modem without faults.
    pub(crate) fn locked(face: Face) -> Modem {
        Modem {
            face,
            mode: 1,
            switched_off: false,
            offline_reason: 0,
            mbim_radio: None,
            auth_error: 0,
            mode_error: 0,
            looks_until_online: 2,
            foxconn: None,
            fox: None,
            intel: None,
            quectel: None,
            stays_locked: false,
            composition: None,
            refuses_reset: false,
            behind_proxy: None,
            longest: 4096,
            deaf_to: 0,
            mute_to: Vec::new(),
            quiet_on: Vec::new(),
            loses: None,
            answers_after: Duration::ZERO,
            allocates_after: Duration::ZERO,
            busy_for: 0,
            mbim_busy_for: 0,
            has_no_cid: false,
            not_opened: 0,
            left_open: None,
            stays_left_open: false,
            has_no_qmi: false,
            chatters: false,
            reads_of: None,
            reads_all: false,
            noise: Vec::new(),
            noise_at: None,
            forgets_at: None,
            gone_at: None,
            interrupted_at: None,
            jammed: false,
            held: VecDeque::new(),
            floods: false,
            seen: Vec::new(),
            allocations: 0,
            cids: BTreeSet::new(),
            is_open: false,
            transfers: 0,
            next_cid: 0x14,
            owners: BTreeMap::new(),
            unlocked: false,
            looks: 0,
            requests: 0,
            commands: Reassembly::default(),
            waiting: VecDeque::new(),
            read: Vec::new(),
        }
    }

    /// Queues a reply to an earlier host, which can be read now.
    pub(crate) fn send_late(&mut self, answer: Vec<u8>) {
        self.waiting.push_back((clock::now(), answer));
    }

    pub(crate) fn count(&self, id: u16) -> usize {
        self.seen.iter().filter(|seen| **seen == id).count()
    }

    /// The common part of every transfer: the modem may have left, or the process may have been asked to stop.
    fn transfer(&mut self) -> Result<(), LinkError> {
        let number = self.transfers;
        self.transfers += 1;
        clock::wait(TRANSFER);
        if self.gone_at.is_some_and(|at| number >= at) {
            return Err(LinkError::Gone);
        }
        if self.interrupted_at == Some(number) {
            return Err(LinkError::Interrupted);
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        match self.face {
            Face::Qmi => {
                if let Some(frame) = self.take_qmi(bytes) {
                    self.answer(frame);
                }
            }
            Face::Mbim => {
                if let Some(whole) = self.commands.push(bytes).expect("an MBIM message") {
                    self.take_mbim(&whole);
                }
            }
        }
    }

    fn take_mbim(&mut self, bytes: &[u8]) {
        let mbim::Message { tid, body } = mbim::Message::parse(bytes).expect("an MBIM message");
        assert_ne!(tid, 0);
        let reply = |body: Body<'_>| mbim::Message { tid, body }.emit();
        match body {
            Body::Command { service: Uuid::PROXY_CONTROL, cid: 1, kind: mbim::CommandType::Set, buffer } => {
                let path = self.behind_proxy.take().expect("a proxy without a client");
                assert_eq!(buffer, mbim::proxy_configuration(path, 5));
                self.seen.push(0xff00);
                self.answer(reply(Body::CommandDone {
                    service: Uuid::PROXY_CONTROL,
                    cid: 1,
                    status: Status::SUCCESS,
                    buffer: &[],
                }));
            }
            _ if self.behind_proxy.is_some() && !matches!(body, Body::Close) => panic!("{body:?} to a proxy"),
            Body::Open { max_control_transfer } => {
                assert_eq!(max_control_transfer as usize, self.longest);
                // An OPEN restarts the function. The session counts as closed only after a CLOSE.
                let is_heard = self.hears(1);
                if let Some(stale) = self.left_open {
                    let tid = stale.unwrap_or(tid);
                    self.answer(mbim::Message { tid, body: Body::CloseDone(Status::SUCCESS) }.emit());
                } else if is_heard {
                    self.is_open = true;
                    self.answer(reply(Body::OpenDone(Status::SUCCESS)));
                }
            }
            Body::Close => {
                self.is_open = false;
                self.left_open = self.left_open.filter(|_| self.stays_left_open);
                if self.hears(2) {
                    self.answer(reply(Body::CloseDone(Status::SUCCESS)));
                }
            }
            Body::Command { .. } if self.not_opened > 0 || !self.is_open => {
                self.not_opened = self.not_opened.saturating_sub(1);
                self.is_open = false;
                self.answer(reply(Body::FunctionError(ProtocolError::NOT_OPENED)));
            }
            Body::Command { service: Uuid::QMI, cid: 1, kind: mbim::CommandType::Set, buffer } => {
                let done =
                    |status, buffer: &[u8]| reply(Body::CommandDone { service: Uuid::QMI, cid: 1, status, buffer });
                if self.has_no_qmi {
                    self.answer(done(Status::NO_DEVICE_SUPPORT, &[]));
                } else if self.mbim_busy_for > 0 {
                    self.mbim_busy_for -= 1;
                    self.answer(done(Status::BUSY, &[]));
                } else if let Some(frame) = self.take_qmi(buffer) {
                    self.answer(done(Status::SUCCESS, &frame));
                }
            }
            Body::Command { service, cid, kind, buffer } => {
                let (status, answer) = self.take_radio(service, cid, kind, buffer);
                self.answer(reply(Body::CommandDone { service, cid, status, buffer: &answer }));
            }
            other => panic!("the modem did not expect {other:?}"),
        }
    }

    /// Quectel's radio state, Intel's lock, and the radio state of Basic Connect.
    fn take_radio(&mut self, service: Uuid, cid: u32, kind: mbim::CommandType, buffer: &[u8]) -> (Status, Vec<u8>) {
        use mbim::CommandType::{Query, Set};
        if let (Uuid::INTEL_MUTUAL_AUTHENTICATION, 1, Some(lock)) = (service, cid, &mut self.intel) {
            let words = |words: [u32; 2]| (Status::SUCCESS, words.map(u32::to_le_bytes).concat());
            return match (kind, buffer.split_at_checked(4)) {
                (Query, _) => {
                    self.seen.push(0x9100);
                    words(*lock)
                }
                (Set, Some(([0, 0, 0, 0], [0, 0, 0, 0]))) => {
                    self.seen.push(0x9101);
                    words([1, CHALLENGE])
                }
                (Set, Some(([1, 0, 0, 0], _))) if self.auth_error != 0 => {
                    self.seen.push(0x9102);
                    (Status(self.auth_error.into()), Vec::new())
                }
                (Set, Some(([1, 0, 0, 0], response))) => {
                    self.seen.push(0x9102);
                    lock[1] = u32::from(response == RESPONSE);
                    words([1 - lock[1], 0])
                }
                _ => panic!("{buffer:02x?} to Intel's service"),
            };
        }
        match (service, cid, kind, self.quectel) {
            (Uuid::QUECTEL, 1, Query, Some(state)) => {
                self.seen.push(0x9000);
                (Status::SUCCESS, state.to_le_bytes().to_vec())
            }
            (Uuid::QUECTEL, 1, Set, Some(_)) if self.auth_error != 0 => (Status(self.auth_error.into()), Vec::new()),
            (Uuid::QUECTEL, 1, Set, Some(_)) => {
                assert_eq!(buffer, [1, 0, 0, 0]);
                self.seen.push(0x9001);
                if !self.stays_locked {
                    self.quectel = Some(1);
                }
                (Status::SUCCESS, Vec::new())
            }
            (Uuid::BASIC_CONNECT, 3, Query, _) if self.mbim_radio.is_some() => {
                let [hardware, software] = self.mbim_radio.unwrap();
                (Status::SUCCESS, vec![hardware, 0, 0, 0, software, 0, 0, 0])
            }
            (Uuid::BASIC_CONNECT, 3, Query, Some(4)) => (Status::OPERATION_NOT_ALLOWED, Vec::new()),
            (Uuid::BASIC_CONNECT, 3, Query, Some(state)) => {
                let hardware = u8::from(!self.switched_off);
                (Status::SUCCESS, vec![hardware, 0, 0, 0, state as u8, 0, 0, 0])
            }
            (Uuid::BASIC_CONNECT, 3, Set, _) if self.quectel.is_some() || self.mbim_radio.is_some() => {
                assert_eq!(buffer, [0, 0, 0, 0]);
                self.seen.push(0x9002);
                self.quectel = self.quectel.map(|_| 0);
                self.mbim_radio = self.mbim_radio.map(|[hardware, _]| [hardware, 0]);
                (Status::SUCCESS, Vec::new())
            }
            _ => (Status::NO_DEVICE_SUPPORT, Vec::new()),
        }
    }

    /// The reply to a request: one frame, or none.
    fn take_qmi(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let request = qmi::Message::parse(frame).expect("a QMI message");
        assert_eq!(request.kind, Kind::Request);
        assert_ne!(request.tid, 0);
        let call = qmi::Call { service: request.service, id: request.id, name: "" };
        let reply = |error: u16, tlvs: &[(u8, &[u8])]| {
            let result = [u8::from(error != 0), 0, error as u8, (error >> 8) as u8];
            let all: Vec<_> = [(0x02, &result[..])].into_iter().chain(tlvs.iter().copied()).collect();
            Some(qmi::from_modem(call, request.cid, Kind::Response, request.tid, &all))
        };
        if !self.hears(request.id) {
            return None;
        }
        match (self.behind_proxy, self.face) {
            (Some(path), Face::Qmi) => {
                assert_eq!((request.service, request.id), (Service::CTL, ctl::PROXY_OPEN.id));
                assert_eq!(request.tlvs.get(1, "path"), Ok(path.as_bytes()));
                self.behind_proxy = None;
                return reply(0, &[]);
            }
            _ => assert_ne!(request.id, ctl::PROXY_OPEN.id),
        }
        if request.service == Service::CTL {
            return match request.id {
                id if id == ctl::GET_VERSION_INFO.id => reply(0, &[(0x01, &[1, 2, 1, 0, 14, 0])]),
                id if id == ctl::ALLOCATE_CID.id => {
                    let service = Service(request.tlvs.u8(1, "service").unwrap());
                    if service != Service::DMS
                        && self.fox.is_none_or(|(own, _)| ![own, Service::FOX].contains(&service))
                    {
                        return reply(31, &[]);
                    }
                    self.allocations += 1;
                    if self.has_no_cid {
                        return reply(5, &[]);
                    }
                    let cid = self.next_cid;
                    self.next_cid += 1;
                    self.cids.insert(cid);
                    self.owners.insert(cid, service);
                    reply(0, &[(0x01, &[service.0, cid])])
                }
                id if id == ctl::RELEASE_CID.id => {
                    let [service, cid] = *request.tlvs.get(1, "CID").unwrap() else { panic!("no service and CID") };
                    assert_eq!(self.owner(cid), Service(service));
                    match self.cids.remove(&cid) {
                        true => reply(0, &[(0x01, &[service, cid])]),
                        false => reply(7, &[]),
                    }
                }
                other => panic!("CTL message {other:#06x}"),
            };
        }
        self.requests += 1;
        if self.forgets_at == Some(self.requests) {
            self.cids.clear();
        }
        if !self.cids.contains(&request.cid) || self.owner(request.cid) != request.service {
            return reply(7, &[]);
        }
        if self.busy_for > 0 {
            self.busy_for -= 1;
            return reply(52, &[]);
        }
        if let Some((service, state)) = self.fox.filter(|_| request.service != Service::DMS) {
            let digest = if service == Service::FOX { FDE1_DIGEST } else { FDE2_DIGEST };
            let tlvs: Vec<_> = request.tlvs.iter().collect();
            return match (request.id, request.service == service, tlvs.as_slice()) {
                (0x555e, _, [(0x01, [0])]) if request.service == Service::FOX => {
                    reply(0, &[(0x01, FIRMWARE.as_bytes())])
                }
                (0x555e, _, [(0x01, [2])]) if request.service == Service::FOX => reply(0, &[(0x01, APPS.as_bytes())]),
                (0x5570, true, []) => reply(0, &[(0x01, &[state])]),
                (0x5571, true, _) if self.auth_error != 0 => reply(self.auth_error, &[]),
                (0x5571, true, [(0x01, proof), (0x02, b"0")]) if *proof == [b"salt", digest.as_bytes()].concat() => {
                    if !self.stays_locked {
                        self.fox = Some((service, 0));
                        self.unlocked = true;
                    }
                    reply(0, &[])
                }
                (0x5571, true, [(0x01, _), (0x02, b"0")]) => reply(34, &[]),
                (0x5571, ..) => reply(1, &[]),
                _ => reply(71, &[]),
            };
        }
        match request.id {
            id if id == dms::GET_OPERATING_MODE.id => {
                if self.unlocked && !self.switched_off {
                    self.looks += 1;
                    if self.looks > self.looks_until_online {
                        self.mode = 0;
                    }
                }
                let reason = self.offline_reason.to_le_bytes();
                let reason = (self.offline_reason != 0).then_some((0x10, &reason[..]));
                let mode = [(0x01, &[self.mode][..]), (0x11, &[self.switched_off.into()])];
                reply(0, &mode.into_iter().chain(reason).collect::<Vec<_>>())
            }
            id if id == dms::SET_FCC_AUTHENTICATION.id => {
                assert!([1, 6, 7].contains(&self.mode), "unlock of a modem that is not in low power");
                assert!(request.tlvs.as_bytes().is_empty());
                self.unlocked = self.auth_error == 0;
                reply(self.auth_error, &[])
            }
            id if id == dms::SWI_GET_USB_COMPOSITION.id => match self.composition {
                Some((number, listed)) => reply(0, &[(0x10, &[number]), (0x11, listed)]),
                None => reply(71, &[]),
            },
            id if id == dms::SWI_SET_USB_COMPOSITION.id => {
                let number = request.tlvs.u8(1, "composition").unwrap();
                self.composition = self.composition.map(|(_, listed)| (number, listed));
                reply(0, &[])
            }
            id if id == dms::SET_OPERATING_MODE.id && self.composition.is_some() => {
                let mode = request.tlvs.u8(1, "mode").unwrap();
                if mode == 4 && (self.mode != 3 || self.refuses_reset) {
                    return reply(60, &[]);
                }
                self.mode = mode;
                reply(0, &[])
            }
            id if id == dms::SET_OPERATING_MODE.id && self.mode_error != 0 => reply(self.mode_error, &[]),
            id if id == dms::SET_OPERATING_MODE.id => {
                assert_eq!(request.tlvs.get(1, "mode"), Ok(&[1][..]), "the host must never switch the radio on");
                self.mode = 1;
                self.unlocked = false;
                reply(0, &[])
            }
            id if id == dms::GET_IDS.id => reply(0, &[(0x10, b"0"), (0x11, IMEI.as_bytes())]),
            id if id == dms::FOXCONN_GET_FIRMWARE_VERSION.id && self.foxconn == Some(2) => {
                match request.tlvs.u8(1, "type").unwrap() {
                    0 => reply(0, &[(0x01, FIRMWARE.as_bytes())]),
                    2 => reply(0, &[(0x01, APPS.as_bytes())]),
                    _ => reply(48, &[]),
                }
            }
            id if id == dms::FOXCONN_SET_FCC_AUTHENTICATION.id => {
                let tlvs: Vec<_> = request.tlvs.iter().collect();
                let digest = match (self.foxconn, tlvs.as_slice()) {
                    (Some(1), [(0x01, [0])]) => FOXCONN_DIGEST,
                    (Some(2), [(0x01, proof), (0x02, b"0")]) => {
                        std::str::from_utf8(proof).unwrap().strip_prefix("salt").unwrap()
                    }
                    (Some(2), _) => return reply(17, &[]),
                    (Some(_), _) => return reply(1, &[]),
                    (None, _) => return reply(71, &[]),
                };
                match (self.auth_error, digest == FOXCONN_DIGEST) {
                    (0, true) => {
                        self.unlocked = true;
                        reply(0, &[])
                    }
                    (0, false) => reply(34, &[]),
                    (error, _) => reply(error, &[]),
                }
            }
            _ => reply(71, &[]),
        }
    }

    /// The service of a CID. CIDs of an earlier host belong to DMS.
    fn owner(&self, cid: u8) -> Service {
        self.owners.get(&cid).copied().unwrap_or(Service::DMS)
    }

    /// Records a request. Returns whether the modem replies.
    fn hears(&mut self, id: u16) -> bool {
        self.seen.push(id);
        self.seen.len() > self.deaf_to && !self.mute_to.contains(&id)
    }

    fn answer(&mut self, mut message: Vec<u8>) {
        if self.seen.last().is_some_and(|id| self.quiet_on.contains(id)) {
            return;
        }
        if self.loses.is_some() && self.loses == self.seen.last().copied() {
            self.loses = None;
            return;
        }
        let late = self.seen.last() == Some(&ctl::ALLOCATE_CID.id);
        // Replies leave one after another.
        let begins = self.waiting.back().map_or_else(clock::now, |(due, _)| (*due).max(clock::now()));
        let due = begins + self.answers_after + if late { self.allocates_after } else { Duration::ZERO };
        if self.chatters {
            for message in self.chatter() {
                self.waiting.push_back((due, message));
            }
        }
        if !self.noise.is_empty() && self.noise_at.is_none_or(|id| self.seen.last() == Some(&id)) {
            self.waiting.push_back((due, self.noise.clone()));
        }
        if let Some(held) = self.held.pop_front() {
            self.held.push_back(std::mem::replace(&mut message, held));
        }
        match self.face {
            Face::Qmi => self.waiting.push_back((due, message)),
            Face::Mbim => {
                self.waiting.extend(mbim::fragments(&message, self.longest).into_iter().map(|part| (due, part)))
            }
        }
    }

    /// Messages that the host must ignore: a CTL Sync indication, an indication of an unknown service, and late replies
    /// that report the modem as online. The late replies are for another client's CID, and for an old request of this
    /// CID.
    fn chatter(&self) -> Vec<Vec<u8>> {
        let online: [(u8, &[u8]); 2] = [(0x02, &[0, 0, 0, 0]), (0x01, &[0])];
        let mode = dms::GET_OPERATING_MODE;
        let cid = self.cids.first().copied().unwrap_or(9);
        let frames = [
            qmi::from_modem(ctl::SYNC, 0, Kind::Indication, 0, &[]),
            qmi::from_modem(qmi::Call { service: Service(0x03), id: 0x51, name: "" }, 0xff, Kind::Indication, 0, &[]),
            qmi::from_modem(mode, 0x77, Kind::Response, 1, &online),
            qmi::from_modem(mode, cid, Kind::Response, 0, &online),
            qmi::from_modem(mode, cid, Kind::Indication, 1, &online),
        ];
        let in_mbim = |frame: Vec<u8>| {
            let stale = Body::CommandDone { service: Uuid::QMI, cid: 1, status: Status::SUCCESS, buffer: &frame };
            let event = Body::IndicateStatus { service: Uuid::BASIC_CONNECT, cid: 11, buffer: &[3; 20] };
            let refused = Body::CommandDone { service: Uuid::QMI, cid: 1, status: Status::FAILURE, buffer: &[] };
            [stale, event, refused].map(|body| mbim::Message { tid: 0, body }.emit())
        };
        match self.face {
            Face::Qmi => frames.to_vec(),
            Face::Mbim => frames.into_iter().flat_map(in_mbim).collect(),
        }
    }
}

impl Link for Modem {
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
        self.transfer()?;
        assert!(message.len() <= self.longest);
        if self.jammed {
            clock::wait(by.remaining());
            return Err(LinkError::WriteTimeout);
        }
        self.take(message);
        Ok(())
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        self.transfer()?;
        if by.has_passed() {
            return Ok(None);
        }
        if self.floods {
            clock::wait(Duration::from_millis(1));
            return Ok(Some(&[0x01, 0x0b, 0x00, 0x80, 0x00, 0x00, 0x02, 0x00, 0x27, 0x00, 0x00, 0x00]));
        }
        let Some((due, _)) = self.waiting.front() else {
            clock::wait(by.remaining());
            return Ok(None);
        };
        let wait = due.saturating_duration_since(clock::now());
        clock::wait(wait.min(by.remaining()));
        if wait > Duration::ZERO && by.has_passed() {
            return Ok(None);
        }
        let (_, mut read) = self.waiting.pop_front().unwrap();
        while self.reads_all && self.waiting.front().is_some_and(|(due, _)| *due <= clock::now()) {
            read.extend(self.waiting.pop_front().unwrap().1);
        }
        if let Some(length) = self.reads_of.filter(|length| *length < read.len()) {
            self.waiting.push_front((clock::now(), read.split_off(length)));
        }
        self.read = read;
        Ok(Some(&self.read))
    }

    fn longest(&self) -> usize {
        self.longest
    }
}
