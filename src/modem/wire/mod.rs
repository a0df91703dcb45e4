//! Parsers and encoders for the protocols of modems, without I/O.
//!
//! No input makes this code panic. Unknown values are kept as numbers. A view borrows the bytes that it describes, and
//! all its lengths are checked when it is created.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod at;
pub mod mbim;
pub mod qmi;
pub mod xmm;

/// Why bytes are not a valid message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("truncated {field}: {needed} bytes needed, {had} left")]
    Short { field: &'static str, needed: usize, had: usize },
    #[error("{field} is {value:#x}")]
    Value { field: &'static str, value: u32 },
    #[error("{field} is missing")]
    Missing { field: &'static str },
}

/// Reads fields one after the other from the front of a message, little-endian.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) =
            self.0.split_at_checked(needed).ok_or(Malformed::Short { field, needed, had: self.0.len() })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) =
            self.0.split_first_chunk().ok_or(Malformed::Short { field, needed: N, had: self.0.len() })?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_le_bytes)
    }
}

/// The result of parsing the first bytes of a stream as a message header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// More bytes are needed.
    Incomplete,
    /// A message of this many bytes, including the header.
    Message(usize),
    /// No message begins here.
    Noise,
}

/// Splits a stream of bytes into messages. A read may contain several messages, a part of one, or noise.
///
/// Holds at most one message of `longest` bytes and one read.
#[derive(Debug)]
pub struct Framer {
    head: fn(&[u8]) -> Head,
    longest: usize,
    bytes: Vec<u8>,
    start: usize,
    skipped: usize,
}

impl Framer {
    pub(crate) fn new(head: fn(&[u8]) -> Head, longest: usize) -> Framer {
        Framer { head, longest, bytes: Vec::new(), start: 0, skipped: 0 }
    }

    pub fn push(&mut self, read: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(read);
    }

    /// The next complete message, if there is one.
    pub fn next_message(&mut self) -> Option<&[u8]> {
        loop {
            let rest = self.bytes.get(self.start..)?;
            match (self.head)(rest) {
                Head::Message(length) if length <= self.longest => {
                    let message = self.start..self.start.checked_add(length)?;
                    self.bytes.get(message.clone())?;
                    self.start = message.end;
                    return self.bytes.get(message);
                }
                Head::Incomplete => return None,
                Head::Message(_) | Head::Noise => self.skip(),
            }
        }
    }

    /// Gives up on an incomplete message, and looks for the next one after its first byte.
    pub fn resynchronise(&mut self) {
        if self.start < self.bytes.len() {
            self.skip();
        }
    }

    /// Discards all bytes, after bytes of the stream were lost.
    pub(crate) fn clear(&mut self) {
        self.skipped += self.bytes.len() - self.start;
        self.bytes.clear();
        self.start = 0;
    }

    /// The number of bytes so far that belonged to no message.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    fn skip(&mut self) {
        self.start += 1;
        self.skipped += 1;
    }
}

/// Parses hex digits. Spaces between bytes are ignored.
#[cfg(test)]
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64, so that failures are reproducible.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 as usize
        }
    }

    #[test]
    fn parsers_do_not_panic_and_framers_do_not_stop_on_any_bytes() {
        let seeds = [
            hex("01 17 00 80 02 14 02 01 00 2D 00 0B 00 02 04 00 00 00 00 00 01 01 00 01"),
            hex("01 17 00 80 00 00 01 01 22 00 0C 00 02 04 00 00 00 00 00 01 02 00 02 14"),
            hex(
                "03000080 30000000 07000000 01000000 00000000 D1A30BC2F97A6E43BF65C7E24FB0F0D3 01000000 09000000 00000000",
            ),
            hex("07000080 1C000000 07000000 02000000 00000000 D1A30BC2F97A6E43"),
            b"\r\n+GTFCCLOCKGEN: 0x1234abcd\r\n\r\nOK\r\n".to_vec(),
            hex("25000000 020400000025 02040000018f 11000101 020411000101 020100 020400000000 020400000002"),
        ];
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let mut framers = [qmi::framer(), mbim::framer(), at::framer(), xmm::framer()];
        let mut reassembly = mbim::Reassembly::default();
        for _ in 0..50_000 {
            let mut bytes = seeds[noise.next() % seeds.len()].clone();
            for _ in 0..noise.next() % 4 {
                let at = noise.next() % bytes.len();
                bytes[at] = [0x00, 0x01, 0x7f, 0xff, noise.next() as u8][noise.next() % 5];
            }
            bytes.truncate(1 + noise.next() % bytes.len());
            if let Ok(message) = qmi::Message::parse(&bytes) {
                let _ = message.result();
                assert!(message.tlvs.iter().map(|(_, value)| value.len() + 3).sum::<usize>() <= bytes.len());
            }
            let _ = mbim::Message::parse(&bytes);
            let _ = xmm::Message::parse(&bytes).map(|message| message.answer_to(xmm::FCC_LOCK_QUERY));
            if let Ok(Some(whole)) = reassembly.push(&bytes) {
                let _ = mbim::Message::parse(&whole);
            }
            for framer in &mut framers {
                framer.push(&bytes);
                while let Some(message) = framer.next_message() {
                    assert!(!message.is_empty());
                }
                if noise.next() % 8 == 0 {
                    framer.resynchronise();
                }
            }
        }
        for framer in &framers {
            assert!(framer.bytes.len() <= mbim::MAX_LENGTH + 128);
        }
    }
}
