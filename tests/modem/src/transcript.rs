//! A record of what the modem saw and did: one line per event, `SECONDS.MICROS KIND TEXT`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Longer transfers are truncated to this length, with `+N` for the omitted bytes.
const SHOWN: usize = 4096;

pub struct Transcript {
    file: Option<File>,
}

impl Transcript {
    pub fn none() -> Transcript {
        Transcript { file: None }
    }

    pub fn append_to(path: &Path) -> io::Result<Transcript> {
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Transcript { file: Some(file) })
    }

    pub fn event(&mut self, kind: &str, text: &str) {
        let Some(file) = &mut self.file else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = format!("{}.{:06} {kind}", now.as_secs(), now.subsec_micros());
        if !text.is_empty() {
            line.push(' ');
            line.extend(text.chars().map(|c| if c.is_control() { '.' } else { c }));
        }
        line.push('\n');
        // One write per line, so that readers never see half a line. A full disk must not stop the modem.
        let _ = file.write_all(line.as_bytes());
    }
}

pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len().min(SHOWN));
    for byte in bytes.iter().take(SHOWN) {
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > SHOWN {
        let _ = write!(text, "+{}", bytes.len() - SHOWN);
    }
    text
}

/// Parses hex digits, with or without spaces between the bytes.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c as u8).collect();
    if digits.len() % 2 != 0 {
        return None;
    }
    let digit = |d: u8| (d as char).to_digit(16);
    digits.chunks(2).map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_both_ways() {
        assert_eq!(hex(&[0x40, 0x0b, 0xff]), "400bff");
        assert_eq!(from_hex("40 0B\nff"), Some(vec![0x40, 0x0b, 0xff]));
        assert_eq!(from_hex("4"), None);
        assert_eq!(from_hex("zz"), None);
        assert_eq!(hex(&[0; SHOWN + 3]).split_once('+').map(|(_, more)| more), Some("3"));
    }
}
