//! The RPC protocol of Intel's XMM7360 modem, as far as it is needed for the FCC lock.
//!
//! ```text
//! off len  frame
//! 0   4    length of what follows, little-endian
//! 4   6    integer: the same length
//! 10  6    integer: code of the request or message
//! 16  4    TID, big-endian
//! 20       body: integers, and values of other types
//! integer: 02 04, and four bytes, big-endian
//! ```
//!
//! The modem acknowledges an asynchronous request. It replies later, with the code after that of the request. The first
//! integer of the reply repeats the TID. All other messages are unsolicited.
//!
//! The replies are those of real modems: a debug log of ModemManager in issue 225 of xmm7360-pci, and logs of its own
//! program in issues 171, 190 and 229 (locked) and 123 (unlocked).

use super::{Fields, Framer, Head, Malformed};

/// TID of an asynchronous request. The TID of an acknowledgement or reply differs in the last byte at most.
const TID: u32 = 0x1100_0101;
/// Messages with this code or a higher one acknowledge a request.
const ACKNOWLEDGES_FROM: u32 = 2000;
const INTEGER: u8 = 0x02;
const HEAD: usize = 20;
/// The longest frame: the kernel's buffers are 32 KiB.
pub(crate) const MAX_LENGTH: usize = 32 * 1024;

/// A request, identified by its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub code: u32,
    pub name: &'static str,
}

/// Reply: result, state (0 locked), mode (0 no lock).
pub const FCC_LOCK_QUERY: Call = Call { code: 0x18e, name: "XMM FCC lock query" };
/// Reply: result, challenge.
pub const FCC_LOCK_CHALLENGE: Call = Call { code: 0x190, name: "XMM FCC lock challenge" };
/// Argument: response to the challenge. Reply: 1 accepted, 0 refused.
pub const FCC_LOCK_RESPONSE: Call = Call { code: 0x192, name: "XMM FCC lock response" };

/// Encodes a request with one integer argument. The argument is 0 if the request needs none.
pub fn request(call: Call, argument: u32) -> Vec<u8> {
    emit(call.code, TID, &[TID, argument])
}

/// Encodes a frame with these integers.
pub fn emit(code: u32, tid: u32, integers: &[u32]) -> Vec<u8> {
    let length = (HEAD - 4 + 6 * integers.len()) as u32;
    let mut frame = length.to_le_bytes().to_vec();
    let integer = |frame: &mut Vec<u8>, value: u32| {
        frame.extend([INTEGER, 4]);
        frame.extend(value.to_be_bytes());
    };
    integer(&mut frame, length);
    integer(&mut frame, code);
    frame.extend(tid.to_be_bytes());
    integers.iter().for_each(|value| integer(&mut frame, *value));
    frame
}

/// A frame from the modem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub code: u32,
    pub tid: u32,
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses the frame at the start of `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let mut head = Fields(bytes);
        let length = head.u32("XMM frame length")?;
        let mut frame = Fields(head.bytes("XMM frame", length as usize)?);
        let repeated = integer(&mut frame)?;
        if repeated != length {
            return Err(Malformed::Value { field: "repeated XMM frame length", value: repeated });
        }
        let code = integer(&mut frame)?;
        let tid = big_endian(frame.bytes("XMM TID", 4)?);
        Ok(Message { code, tid, body: frame.0 })
    }

    /// The integers of the reply to `call`, after the TID. `None` if the message is not that reply.
    pub fn answer_to(&self, call: Call) -> Option<Vec<u32>> {
        let is_ours = self.tid & !0xff == TID & !0xff && self.code < ACKNOWLEDGES_FROM && self.code == call.code + 1;
        let integers: Vec<u32> = self.integers().collect();
        let rest = integers.strip_prefix(&[self.tid]).filter(|_| is_ours)?;
        Some(rest.to_vec())
    }

    /// The integers at the start of the body.
    fn integers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut rest = Fields(self.body);
        std::iter::from_fn(move || integer(&mut rest).ok())
    }
}

/// An integer of one to four bytes.
fn integer(fields: &mut Fields) -> Result<u32, Malformed> {
    let kind = fields.u8("XMM integer")?;
    if kind != INTEGER {
        return Err(Malformed::Value { field: "type of an XMM integer", value: kind.into() });
    }
    let length = fields.u8("XMM integer")?;
    if !(1..=4).contains(&length) {
        return Err(Malformed::Value { field: "length of an XMM integer", value: length.into() });
    }
    Ok(big_endian(fields.bytes("XMM integer", length.into())?))
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

/// Splits the input from an RPC port into frames.
pub fn framer() -> Framer {
    Framer::new(head, 4 + MAX_LENGTH)
}

fn head(bytes: &[u8]) -> Head {
    let mut fields = Fields(bytes);
    let Ok(length) = fields.u32("XMM frame length") else { return Head::Incomplete };
    if !(HEAD - 4..=MAX_LENGTH).contains(&(length as usize)) {
        return Head::Noise;
    }
    match fields.bytes("repeated XMM frame length", 6) {
        Ok([INTEGER, 4, repeated @ ..]) if big_endian(repeated) == length => Head::Message(4 + length as usize),
        Ok(_) => Head::Noise,
        Err(_) => Head::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;

    const QUERY: &str = "1c000000 02040000001c 02040000018e 11000101 020411000101 020400000000";

    #[test]
    fn requests_are_encoded_for_the_modem() {
        assert_eq!(request(FCC_LOCK_QUERY, 0), hex(QUERY));
        assert_eq!(request(FCC_LOCK_CHALLENGE, 0), hex(&QUERY.replace("018e", "0190")));
        let response = "1c000000 02040000001c 020400000192 11000101 020411000101 0204401cf881";
        assert_eq!(request(FCC_LOCK_RESPONSE, 1_075_640_449), hex(response));
    }

    #[test]
    fn replies_are_distinguished_from_other_messages() {
        let answer = |code, tid, integers: &[u32]| {
            let frame = emit(code, tid, integers);
            Message::parse(&frame).unwrap().answer_to(FCC_LOCK_QUERY)
        };
        assert_eq!(answer(0x18f, TID, &[TID, 0, 1]), Some(vec![0, 1]));
        assert_eq!(answer(0x18f, 0x1100_0100, &[0x1100_0100, 0, 1]), Some(vec![0, 1]));
        // An acknowledgement, an unsolicited message, another reply, and a reply without the TID.
        assert_eq!(answer(2001, TID, &[TID]), None);
        assert_eq!(answer(0x18f, 7, &[7, 0, 1]), None);
        assert_eq!(answer(0x191, TID, &[TID, 5]), None);
        assert_eq!(answer(0x18f, TID, &[0, 1]), None);
        assert_eq!(answer(0x18f, TID, &[]), None);
    }

    /// Whole replies of real modems: of a locked and an unlocked one, a challenge, and a verdict.
    #[test]
    fn replies_of_real_modems_are_parsed() {
        for (call, reply, integers) in [
            (
                FCC_LOCK_QUERY,
                "25000000 020400000025 02040000018f 11000101 020411000101 020100 020400000000 020400000002",
                &[0, 0, 2][..],
            ),
            (
                FCC_LOCK_QUERY,
                "25000000 020400000025 02040000018f 11000101 020411000101 020100 020400000001 020400000002",
                &[0, 1, 2],
            ),
            (
                FCC_LOCK_CHALLENGE,
                "1f000000 02040000001f 020400000191 11000101 020411000101 020100 0204bcc119b8",
                &[0, 0xbcc1_19b8],
            ),
            (FCC_LOCK_RESPONSE, "1c000000 02040000001c 020400000193 11000101 020411000101 020400000001", &[1]),
        ] {
            let frame = hex(reply);
            assert_eq!(Message::parse(&frame).unwrap().answer_to(call).as_deref(), Some(integers), "{reply}");
        }
    }

    #[test]
    fn integers_have_one_to_four_bytes_and_end_at_another_value() {
        let body = hex("020105 02021234 020411000101 5504 020400000001");
        let message = Message { code: 1, tid: 2, body: &body };
        assert_eq!(message.integers().collect::<Vec<_>>(), [5, 0x1234, TID]);
        for malformed in ["0205", "0200", "02050000000000", "020400"] {
            let body = hex(malformed);
            assert_eq!(Message { body: &body, ..message }.integers().count(), 0, "{malformed}");
        }
    }

    #[test]
    fn malformed_frames_are_rejected() {
        let whole = hex(QUERY);
        for length in 0..whole.len() {
            assert!(Message::parse(&whole[..length]).is_err());
        }
        for (at, byte) in [(0, 0x1d), (3, 0xff), (4, 3), (5, 5), (9, 0x1d), (11, 0)] {
            let mut frame = whole.clone();
            frame[at] = byte;
            assert!(Message::parse(&frame).is_err(), "{at}");
        }
    }

    #[test]
    fn frames_are_split_independently_of_reads_and_noise_is_skipped() {
        let own = emit(0x42, 9, &[1, 2, 3]);
        let stream = [&[0xff; 5][..], &hex(QUERY), &own, &[0x1c, 0, 0, 0, 9], &hex(QUERY)].concat();
        for step in 1..stream.len() {
            let mut framer = framer();
            let mut codes = Vec::new();
            for read in stream.chunks(step) {
                framer.push(read);
                while let Some(frame) = framer.next_message() {
                    codes.push(Message::parse(frame).unwrap().code);
                }
            }
            assert_eq!(codes, [0x18e, 0x42, 0x18e], "{step}");
            assert_eq!(framer.skipped(), 10);
        }
    }

    #[test]
    fn the_length_of_a_frame_has_limits_and_is_repeated() {
        let is_message = |frame: &[u8]| {
            let mut framer = framer();
            framer.push(frame);
            framer.next_message().is_some()
        };
        let long = emit(0x42, 9, &vec![7; MAX_LENGTH / 6 - 8]);
        assert!(long.len() > MAX_LENGTH - 64 && is_message(&long));
        assert!(!is_message(&hex("0a000000 02040000000a 020400000042")));
        let mut other = hex(QUERY);
        other[9] = 0x1d;
        assert!(!is_message(&other));
    }

    #[test]
    fn a_length_beyond_the_limit_is_rejected() {
        let mut framer = framer();
        framer.push(&u32::MAX.to_le_bytes());
        framer.push(&[0; 64]);
        assert_eq!(framer.next_message(), None);
        assert!(framer.skipped() > 50);
    }
}
