//! MBIM control messages, as in the USB-IF's Mobile Broadband Interface Model 1.0, chapters 9 and 10.
//!
//! ```text
//! header            0 type u32   4 length u32, of the whole message   8 TID u32, never 0
//! fragment header  12 total u32  16 current u32             COMMAND, COMMAND_DONE, INDICATE_STATUS only
//! body             20 service UUID, CID u32, then
//!                  COMMAND         type u32 (0 query, 1 set), length u32, buffer
//!                  COMMAND_DONE    status u32,                length u32, buffer
//!                  INDICATE_STATUS                            length u32, buffer
//! ```
//!
//! All numbers are little-endian. UUIDs are in network byte order. In a continuation fragment, data follows the two
//! headers.

use std::fmt;

use super::{Fields, Framer, Head, Malformed};

const OPEN: u32 = 1;
const CLOSE: u32 = 2;
const COMMAND: u32 = 3;
const HOST_ERROR: u32 = 4;
const OPEN_DONE: u32 = 0x8000_0001;
const CLOSE_DONE: u32 = 0x8000_0002;
const COMMAND_DONE: u32 = 0x8000_0003;
const FUNCTION_ERROR: u32 = 0x8000_0004;
const INDICATE_STATUS: u32 = 0x8000_0007;

const HEADER: usize = 12;
const FRAGMENT_HEADER: usize = 20;

/// The longest message that is accepted, in one piece or reassembled: the maximum of `wMaxControlMessage`.
pub(crate) const MAX_LENGTH: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// QMI over MBIM. CID 1, always SET. The buffer is one QMUX frame.
    pub const QMI: Uuid = Uuid(0xd1a30bc2_f97a_6e43_bf65_c7e24fb0f0d3_u128.to_be_bytes());
    /// Quectel. CID 1 is the radio state, a u32: 0 off, 1 on, 4 FCC locked.
    pub(crate) const QUECTEL: Uuid = Uuid(0x11223344_5566_7788_99aa_bbccddeeff11_u128.to_be_bytes());
    /// Intel Mutual Authentication. CID 1 is the FCC lock. The reply to QUERY has two u32: mode (0 no lock) and state
    /// (0 locked), each in its low byte. SET has two u32: `0, 0` requests a challenge, and `1` with the response
    /// answers it. The reply to SET has two u32: whether there is a challenge, and the challenge.
    pub(crate) const INTEL_MUTUAL_AUTHENTICATION: Uuid =
        Uuid(0xf85d46ef_ab26_4081_9868_4d183c0a3aec_u128.to_be_bytes());
    /// Basic Connect. CID 3 is the radio state. The reply has two u32: hardware switch, software switch.
    pub const BASIC_CONNECT: Uuid = Uuid(0xa289cc33_bcbb_8b4f_b6b0_133ec2aae6df_u128.to_be_bytes());
    /// The service of mbim-proxy. CID 1 takes the path of the port.
    pub(crate) const PROXY_CONTROL: Uuid = Uuid(0x838cf7fb_8d0d_4d7f_871e_d71dbefbb39b_u128.to_be_bytes());
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            number >> 96,
            (number >> 80) & 0xffff,
            (number >> 64) & 0xffff,
            (number >> 48) & 0xffff,
            number & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandType {
    Query,
    Set,
    Other(u32),
}

impl From<u32> for CommandType {
    fn from(value: u32) -> CommandType {
        match value {
            0 => CommandType::Query,
            1 => CommandType::Set,
            other => CommandType::Other(other),
        }
    }
}

impl From<CommandType> for u32 {
    fn from(value: CommandType) -> u32 {
        match value {
            CommandType::Query => 0,
            CommandType::Set => 1,
            CommandType::Other(other) => other,
        }
    }
}

/// MBIM status in OPEN_DONE, CLOSE_DONE and COMMAND_DONE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    pub const SUCCESS: Status = Status(0);
    pub(crate) const BUSY: Status = Status(1);
    #[cfg(test)]
    pub(crate) const FAILURE: Status = Status(2);
    pub const NO_DEVICE_SUPPORT: Status = Status(9);
    const NOT_INITIALIZED: Status = Status(14);

    /// Whether the modem asks the host to try again later.
    pub(crate) fn is_transient(self) -> bool {
        matches!(self, Status::BUSY | Status::NOT_INITIALIZED)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "Success",
            1 => "Busy",
            2 => "Failure",
            9 => "NoDeviceSupport",
            14 => "NotInitialized",
            20 => "RadioPowerOff",
            21 => "InvalidParameters",
            28 => "OperationNotAllowed",
            other => return write!(f, "status {other}"),
        };
        write!(f, "{name} ({})", self.0)
    }
}

/// Error code in FUNCTION_ERROR and HOST_ERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolError(pub u32);

impl ProtocolError {
    pub(crate) const NOT_OPENED: ProtocolError = ProtocolError(5);
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "TimeoutFragment",
            2 => "FragmentOutOfSequence",
            3 => "LengthMismatch",
            4 => "DuplicatedTid",
            5 => "NotOpened",
            6 => "Unknown",
            7 => "Cancel",
            8 => "MaxTransfer",
            other => return write!(f, "error {other}"),
        };
        write!(f, "{name} ({})", self.0)
    }
}

/// One complete control message, borrowed from the received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub tid: u32,
    pub body: Body<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    Open { max_control_transfer: u32 },
    Close,
    Command { service: Uuid, cid: u32, kind: CommandType, buffer: &'a [u8] },
    HostError(ProtocolError),
    OpenDone(Status),
    CloseDone(Status),
    CommandDone { service: Uuid, cid: u32, status: Status, buffer: &'a [u8] },
    FunctionError(ProtocolError),
    IndicateStatus { service: Uuid, cid: u32, buffer: &'a [u8] },
    Other { kind: u32, body: &'a [u8] },
}

impl<'a> Message<'a> {
    /// Parses the message at the start of `bytes`, which must not be one of several fragments. Bytes after the message
    /// are ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let Header { kind, tid, mut rest } = Header::parse(bytes)?;
        let body = match kind {
            OPEN => Body::Open { max_control_transfer: rest.u32("MaxControlTransfer")? },
            CLOSE => Body::Close,
            HOST_ERROR => Body::HostError(ProtocolError(rest.u32("HOST_ERROR error")?)),
            OPEN_DONE => Body::OpenDone(Status(rest.u32("OPEN_DONE status")?)),
            CLOSE_DONE => Body::CloseDone(Status(rest.u32("CLOSE_DONE status")?)),
            FUNCTION_ERROR => Body::FunctionError(ProtocolError(rest.u32("FUNCTION_ERROR error")?)),
            COMMAND | COMMAND_DONE | INDICATE_STATUS => {
                let total = rest.u32("fragments in total")?;
                if total != 1 {
                    return Err(Malformed::Value { field: "fragments in total", value: total });
                }
                rest.u32("current fragment")?;
                let service = uuid(&mut rest)?;
                let cid = rest.u32("CID")?;
                match kind {
                    COMMAND => {
                        let kind = rest.u32("command type")?.into();
                        Body::Command { service, cid, kind, buffer: buffer(&mut rest)? }
                    }
                    COMMAND_DONE => {
                        let status = Status(rest.u32("COMMAND_DONE status")?);
                        Body::CommandDone { service, cid, status, buffer: buffer(&mut rest)? }
                    }
                    _ => Body::IndicateStatus { service, cid, buffer: buffer(&mut rest)? },
                }
            }
            kind => Body::Other { kind, body: rest.0 },
        };
        Ok(Message { tid, body })
    }

    /// Encodes the message in one piece.
    pub fn emit(&self) -> Vec<u8> {
        let (kind, body) = match self.body {
            Body::Open { max_control_transfer } => (OPEN, max_control_transfer.to_le_bytes().to_vec()),
            Body::Close => (CLOSE, Vec::new()),
            Body::HostError(error) => (HOST_ERROR, error.0.to_le_bytes().to_vec()),
            Body::OpenDone(status) => (OPEN_DONE, status.0.to_le_bytes().to_vec()),
            Body::CloseDone(status) => (CLOSE_DONE, status.0.to_le_bytes().to_vec()),
            Body::FunctionError(error) => (FUNCTION_ERROR, error.0.to_le_bytes().to_vec()),
            Body::Command { service, cid, kind, buffer } => (COMMAND, fragmented(service, &[cid, kind.into()], buffer)),
            Body::CommandDone { service, cid, status, buffer } => {
                (COMMAND_DONE, fragmented(service, &[cid, status.0], buffer))
            }
            Body::IndicateStatus { service, cid, buffer } => (INDICATE_STATUS, fragmented(service, &[cid], buffer)),
            Body::Other { kind, body } => (kind, body.to_vec()),
        };
        let mut message = Vec::with_capacity(HEADER + body.len());
        for field in [kind, (HEADER + body.len()) as u32, self.tid] {
            message.extend(field.to_le_bytes());
        }
        message.extend(body);
        message
    }
}

/// Encodes the header of a single fragment, and the body of COMMAND, COMMAND_DONE or INDICATE_STATUS.
fn fragmented(service: Uuid, fields: &[u32], buffer: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [1_u32, 0] {
        body.extend(field.to_le_bytes());
    }
    body.extend(service.0);
    for field in fields.iter().copied().chain([buffer.len() as u32]) {
        body.extend(field.to_le_bytes());
    }
    body.extend_from_slice(buffer);
    body
}

fn uuid(rest: &mut Fields) -> Result<Uuid, Malformed> {
    rest.array("service UUID").map(Uuid)
}

fn buffer<'a>(rest: &mut Fields<'a>) -> Result<&'a [u8], Malformed> {
    let length = rest.u32("buffer length")?;
    rest.bytes("buffer", usize::try_from(length).unwrap_or(usize::MAX))
}

struct Header<'a> {
    kind: u32,
    tid: u32,
    rest: Fields<'a>,
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Header<'a>, Malformed> {
        let mut fields = Fields(bytes);
        let kind = fields.u32("message type")?;
        let length = fields.u32("message length")?;
        let tid = fields.u32("TID")?;
        let Some(body) = usize::try_from(length).ok().and_then(|length| length.checked_sub(HEADER)) else {
            return Err(Malformed::Value { field: "message length", value: length });
        };
        Ok(Header { kind, tid, rest: Fields(fields.bytes("message", body)?) })
    }
}

/// The TID of a COMMAND_DONE, or of one of its fragments.
pub(crate) fn tid_of_answer(message: &[u8]) -> Option<u32> {
    Header::parse(message).ok().filter(|header| header.kind == COMMAND_DONE).map(|header| header.tid)
}

/// Splits the input from an MBIM port into messages. Fragments are not reassembled.
pub fn framer() -> Framer {
    Framer::new(head, MAX_LENGTH)
}

fn head(bytes: &[u8]) -> Head {
    let mut fields = Fields(bytes);
    match (fields.u32("type"), fields.u32("length")) {
        (Ok(OPEN..=HOST_ERROR | OPEN_DONE..=INDICATE_STATUS), Ok(length)) => match usize::try_from(length) {
            Ok(length) if length >= HEADER => Head::Message(length),
            _ => Head::Noise,
        },
        (Ok(OPEN..=HOST_ERROR | OPEN_DONE..=INDICATE_STATUS), Err(_)) => Head::Incomplete,
        (Ok(_), _) => Head::Noise,
        (Err(_), _) => Head::Incomplete,
    }
}

/// Splits a message that is longer than `longest` into fragments. Shorter messages, and messages that cannot be
/// fragmented, stay unchanged.
///
/// `longest` is `wMaxControlMessage`, at least 64 by the specification.
pub fn fragments(message: &[u8], longest: usize) -> Vec<Vec<u8>> {
    let room = longest.saturating_sub(FRAGMENT_HEADER).max(1);
    let whole = || vec![message.to_vec()];
    if message.len() <= longest {
        return whole();
    }
    let (Ok(Header { kind: kind @ (COMMAND | COMMAND_DONE | INDICATE_STATUS), tid, .. }), Some(data)) =
        (Header::parse(message), message.get(FRAGMENT_HEADER..))
    else {
        return whole();
    };
    let total = data.len().div_ceil(room) as u32;
    let fragment = |(current, part): (usize, &[u8])| {
        let mut fragment = Vec::with_capacity(FRAGMENT_HEADER + part.len());
        for field in [kind, (FRAGMENT_HEADER + part.len()) as u32, tid, total, current as u32] {
            fragment.extend(field.to_le_bytes());
        }
        fragment.extend_from_slice(part);
        fragment
    };
    data.chunks(room).enumerate().map(fragment).collect()
}

/// The buffer that configures mbim-proxy: the port's path in UTF-16, and the time limit in seconds for the proxy to
/// open it.
pub(crate) fn proxy_configuration(port: &str, seconds: u32) -> Vec<u8> {
    let path: Vec<u8> = port.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut buffer = Vec::new();
    // Offset and size of the path, which follows these three fields.
    for field in [12, path.len() as u32, seconds] {
        buffer.extend(field.to_le_bytes());
    }
    buffer.extend(path);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
    buffer
}

/// Reassembles fragments, one message at a time, of at most [`MAX_LENGTH`] bytes.
#[derive(Debug, Default)]
pub struct Reassembly(Option<Unfinished>);

#[derive(Debug)]
struct Unfinished {
    kind: u32,
    tid: u32,
    total: u32,
    next: u32,
    data: Vec<u8>,
}

impl Reassembly {
    /// Takes one message or fragment. Returns the message when it is complete.
    ///
    /// A fragment that is out of sequence, or one fragment too many, is an error. The incomplete message is then
    /// dropped.
    pub fn push(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let Header { kind, tid, mut rest } = Header::parse(message)?;
        if !matches!(kind, COMMAND | COMMAND_DONE | INDICATE_STATUS) {
            return Ok(Some(message.to_vec()));
        }
        let total = rest.u32("fragments in total")?;
        let current = rest.u32("current fragment")?;
        if total == 1 {
            return Ok(Some(message.to_vec()));
        }
        let mut unfinished = match self.0.take() {
            _ if current == 0 => Unfinished { kind, tid, total, next: 0, data: Vec::new() },
            Some(started) if (started.kind, started.tid, started.total) == (kind, tid, total) => started,
            _ => return Err(Malformed::Value { field: "current fragment", value: current }),
        };
        if current != unfinished.next || current >= total {
            return Err(Malformed::Value { field: "current fragment", value: current });
        }
        unfinished.data.extend_from_slice(rest.0);
        unfinished.next += 1;
        let length = FRAGMENT_HEADER + unfinished.data.len();
        if length > MAX_LENGTH {
            return Err(Malformed::Value { field: "length of all fragments", value: length as u32 });
        }
        if unfinished.next < total {
            self.0 = Some(unfinished);
            return Ok(None);
        }
        let mut whole = Vec::with_capacity(length);
        for field in [kind, length as u32, tid, 1, 0] {
            whole.extend(field.to_le_bytes());
        }
        whole.extend(unfinished.data);
        Ok(Some(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;

    /// Captured from an EM7355: DMS Set FCC Authentication over MBIM, and the reply.
    const AUTH: &str = "03000000 3D000000 07000000 01000000 00000000 D1A30BC2F97A6E43BF65C7E24FB0F0D3 01000000 \
                        01000000 0D000000 010C00000214000100 5F550000";
    const AUTH_DONE: &str = "03000080 44000000 07000000 01000000 00000000 D1A30BC2F97A6E43BF65C7E24FB0F0D3 01000000 \
                             00000000 14000000 0113008002140201005F550700 02040000000000";
    const NO_QMI: &str = "03000080 30000000 07000000 01000000 00000000 D1A30BC2F97A6E43BF65C7E24FB0F0D3 01000000 \
                          09000000 00000000";
    const LOCKED: &str = "03000080 34000000 03000000 01000000 00000000 112233445566778899AABBCCDDEEFF11 01000000 \
                          00000000 04000000 04000000";

    fn message(tid: u32, body: Body<'_>) -> Message<'_> {
        Message { tid, body }
    }

    #[test]
    fn messages_match_captures() {
        let (auth, auth_done) = (hex("010C00000214000100 5F550000"), hex("0113008002140201005F550700 02040000000000"));
        let on = 1_u32.to_le_bytes();
        let (set, query) = (CommandType::Set, CommandType::Query);
        for (parsed, bytes) in [
            (message(1, Body::Open { max_control_transfer: 4096 }), "01000000 10000000 01000000 00100000"),
            (message(1, Body::OpenDone(Status::SUCCESS)), "01000080 10000000 01000000 00000000"),
            (message(9, Body::Close), "02000000 0C000000 09000000"),
            (message(9, Body::CloseDone(Status::SUCCESS)), "02000080 10000000 09000000 00000000"),
            (message(7, Body::FunctionError(ProtocolError::NOT_OPENED)), "04000080 10000000 07000000 05000000"),
            (message(7, Body::Command { service: Uuid::QMI, cid: 1, kind: set, buffer: &auth }), AUTH),
            (
                message(7, Body::CommandDone { service: Uuid::QMI, cid: 1, status: Status(0), buffer: &auth_done }),
                AUTH_DONE,
            ),
            (message(7, Body::CommandDone { service: Uuid::QMI, cid: 1, status: Status(9), buffer: &[] }), NO_QMI),
            (
                message(3, Body::Command { service: Uuid::QUECTEL, cid: 1, kind: set, buffer: &on }),
                "03000000 34000000 03000000 01000000 00000000 112233445566778899AABBCCDDEEFF11 01000000 01000000 \
                 04000000 01000000",
            ),
            (
                message(3, Body::Command { service: Uuid::QUECTEL, cid: 1, kind: query, buffer: &[] }),
                "03000000 30000000 03000000 01000000 00000000 112233445566778899AABBCCDDEEFF11 01000000 00000000 \
                 00000000",
            ),
            (
                message(
                    3,
                    Body::CommandDone { service: Uuid::QUECTEL, cid: 1, status: Status(0), buffer: &[4, 0, 0, 0] },
                ),
                LOCKED,
            ),
            (
                message(4, Body::Command { service: Uuid::BASIC_CONNECT, cid: 3, kind: query, buffer: &[] }),
                "03000000 30000000 04000000 01000000 00000000 A289CC33BCBB8B4FB6B0133EC2AAE6DF 03000000 00000000 \
                 00000000",
            ),
        ] {
            assert_eq!(parsed.emit(), hex(bytes));
            assert_eq!(Message::parse(&hex(bytes)), Ok(parsed));
        }
    }

    #[test]
    fn the_proxy_configuration_names_the_port() {
        assert_eq!(proxy_configuration("/dev/x", 5), hex("0C000000 0C000000 05000000 2F00 6400 6500 7600 2F00 7800"));
        assert_eq!(proxy_configuration("/dev/", 5).len(), 12 + 10 + 2);
    }

    #[test]
    fn emitted_messages_are_parsed_back() {
        for body in [
            Body::IndicateStatus { service: Uuid::BASIC_CONNECT, cid: 3, buffer: b"abc" },
            Body::IndicateStatus { service: Uuid::QMI, cid: 1, buffer: &[] },
            Body::HostError(ProtocolError(4)),
            Body::Command { service: Uuid([0xff; 16]), cid: u32::MAX, kind: CommandType::Other(7), buffer: &[0; 500] },
            Body::Other { kind: 0x8000_0005, body: b"later" },
        ] {
            let sent = message(0x1234_5678, body);
            assert_eq!(Message::parse(&sent.emit()), Ok(sent));
        }
        assert_eq!(Uuid::QMI.to_string(), "d1a30bc2-f97a-6e43-bf65-c7e24fb0f0d3");
    }

    #[test]
    fn every_truncation_is_an_error() {
        for text in [AUTH, AUTH_DONE, NO_QMI, LOCKED, "01000080 10000000 01000000 00000000"] {
            let bytes = hex(text);
            for length in 0..bytes.len() {
                let short = Message::parse(&bytes[..length]).unwrap_err();
                assert!(matches!(short, Malformed::Short { needed, had, .. } if needed > had), "{length}: {short}");
                assert!(Reassembly::default().push(&bytes[..length]).is_err());
            }
        }
    }

    #[test]
    fn impossible_lengths_are_errors() {
        let with = |at: usize, value: u32| {
            let mut bytes = hex(AUTH_DONE);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            Message::parse(&bytes).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(with(4, 0), "message length is 0x0");
        assert_eq!(with(4, 11), "message length is 0xb");
        assert_eq!(with(4, 12), "truncated fragments in total: 4 bytes needed, 0 left");
        assert_eq!(with(4, u32::MAX), "truncated message: 4294967283 bytes needed, 56 left");
        assert_eq!(with(12, 2), "fragments in total is 0x2");
        assert_eq!(with(44, 21), "truncated buffer: 21 bytes needed, 20 left");
        assert_eq!(with(44, u32::MAX), "truncated buffer: 4294967295 bytes needed, 20 left");
    }

    #[test]
    fn long_messages_are_fragmented_and_reassembled() {
        let buffer: Vec<u8> = (0..=255).collect();
        for body in [
            Body::Command { service: Uuid::QMI, cid: 1, kind: CommandType::Set, buffer: &buffer },
            Body::CommandDone { service: Uuid::QMI, cid: 1, status: Status(0), buffer: &buffer },
            Body::IndicateStatus { service: Uuid::QMI, cid: 1, buffer: &buffer },
        ] {
            let whole = message(5, body).emit();
            for longest in 64..whole.len() + 2 {
                let cut = fragments(&whole, longest);
                assert_eq!(cut.len() == 1, longest >= whole.len());
                let mut reassembly = Reassembly::default();
                for (index, fragment) in cut.iter().enumerate() {
                    assert!(fragment.len() <= longest);
                    let message = reassembly.push(fragment).unwrap();
                    assert_eq!(message.as_ref(), (index + 1 == cut.len()).then_some(&whole));
                }
            }
        }
        // The first fragment of a COMMAND, byte for byte.
        let cut = fragments(&hex(AUTH), 50);
        assert_eq!(cut[0][..20], hex("03000000 32000000 07000000 02000000 00000000"));
        assert_eq!(cut[1], hex("03000000 1F000000 07000000 02000000 01000000 00000214000100 5F550000"));
    }

    #[test]
    fn fragments_out_of_sequence_are_rejected_and_the_next_message_is_accepted() {
        let whole = message(5, Body::IndicateStatus { service: Uuid::QMI, cid: 1, buffer: &[7; 100] }).emit();
        let cut = fragments(&whole, 64);
        assert_eq!(cut.len(), 3);
        for order in [&[1][..], &[0, 2], &[0, 1, 1], &[0, 0, 2]] {
            let mut reassembly = Reassembly::default();
            let (last, before) = order.split_last().unwrap();
            for index in before {
                assert_eq!(reassembly.push(&cut[*index]), Ok(None));
            }
            assert!(reassembly.push(&cut[*last]).is_err(), "{order:?}");
            for (index, fragment) in cut.iter().enumerate() {
                assert_eq!(reassembly.push(fragment).unwrap().is_some(), index == 2);
            }
        }
        // A message in one piece does not disturb an incomplete one.
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.push(&cut[0]), Ok(None));
        assert_eq!(reassembly.push(&hex(AUTH_DONE)), Ok(Some(hex(AUTH_DONE))));
        assert_eq!(reassembly.push(&cut[1]), Ok(None));
        assert_eq!(reassembly.push(&cut[2]), Ok(Some(whole)));
    }

    #[test]
    fn endless_fragments_are_cut_off() {
        let mut reassembly = Reassembly::default();
        let mut taken = 0;
        for current in 0..u32::MAX {
            let mut fragment = Vec::new();
            for field in [COMMAND_DONE, 1020, 1, u32::MAX, current] {
                fragment.extend(field.to_le_bytes());
            }
            fragment.resize(1020, 0);
            match reassembly.push(&fragment) {
                Ok(None) => taken += 1000,
                Ok(Some(_)) => panic!("never whole"),
                Err(_) => break,
            }
        }
        assert!(taken <= MAX_LENGTH && taken > MAX_LENGTH - 1020);
    }

    #[test]
    fn a_stream_is_split_into_messages() {
        let (first, second) = (hex(AUTH_DONE), hex(NO_QMI));
        let noise = hex("DEADBEEF 00 03000080 00000000 77");
        let stream = [&first[..], &second, &noise, &second, &first].concat();
        for step in 1..stream.len() {
            let mut framer = framer();
            let mut messages = Vec::new();
            for read in stream.chunks(step) {
                framer.push(read);
                while let Some(message) = framer.next_message() {
                    messages.push(message.to_vec());
                }
            }
            assert_eq!(messages, [first.clone(), second.clone(), second.clone(), first.clone()], "reads of {step}");
            assert_eq!(framer.skipped(), noise.len());
        }
    }
}
