//! The RPC port of an XMM7360: the FCC lock, and unsolicited messages in between.
//!
//! A frame is its length (little-endian), then integers (02 04 and four bytes, big-endian): the length again, and the
//! code. Then follow the TID without a type, and the integers of the body. Each request is acknowledged, and answered
//! later with the code after its own. The replies are those in the logs of xmm7360-pci's issues 171 and 225.

use crate::challenge::Order;
use crate::radio::{Lock, Modem};
use crate::transcript::hex;

const QUERY: u32 = 0x18e;
const CHALLENGE: u32 = 0x190;
const RESPONSE: u32 = 0x192;
const ACKNOWLEDGED: u32 = 2000;
/// The TID of all requests about the lock.
const TID: u32 = 0x1100_0101;

/// The result before the values of a reply: 0, as an integer of one byte.
const SUCCESS: &[u8] = &[2, 1, 0];

fn integer(value: u32) -> Vec<u8> {
    [&[2, 4], value.to_be_bytes().as_slice()].concat()
}

fn frame(code: u32, tid: u32, body: &[u8]) -> Vec<u8> {
    let length = (16 + body.len()) as u32;
    [&length.to_le_bytes(), &integer(length)[..], &integer(code), &tid.to_be_bytes(), body].concat()
}

/// Parses code, TID and the integers of a request's body.
fn parse(bytes: &[u8]) -> Option<(u32, u32, Vec<u32>)> {
    let big = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes).ok();
    let integer = |at: usize| match bytes.get(at..at + 6) {
        Some([2, 4, value @ ..]) => big(value),
        _ => None,
    };
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let is_whole = length as usize + 4 == bytes.len() && integer(4) == Some(length);
    let integers = (20..bytes.len()).step_by(6).map(integer).collect::<Option<Vec<u32>>>()?;
    is_whole.then_some((integer(10)?, big(bytes.get(16..20)?)?, integers))
}

/// The name of a request.
pub(crate) fn name(bytes: &[u8]) -> String {
    let name = match parse(bytes) {
        Some((QUERY, ..)) => "FCC lock query",
        Some((CHALLENGE, ..)) => "FCC lock challenge",
        Some((RESPONSE, ..)) => "FCC lock response",
        Some(_) => "unknown",
        None => "malformed",
    };
    name.to_owned()
}

/// Takes a frame from the host. Returns the reads that answer it.
pub(crate) fn answer(modem: &mut Modem, bytes: &[u8]) -> Vec<Vec<u8>> {
    modem.transcript.event("xmm>", &format!("{} {}", hex(bytes), name(bytes)));
    let Some((code, tid @ TID, integers)) = parse(bytes) else { return Vec::new() };
    // A locked modem answers no other request.
    let has_lock = modem.lock == Lock::Xmm;
    let mut values = match (code, integers.as_slice()) {
        (QUERY, [again, _]) if *again == tid => {
            let mode = if has_lock { modem.lock_mode() } else { 0 };
            [SUCCESS, &integer(modem.lock_state((!modem.locked).into())), &integer(mode)].concat()
        }
        (CHALLENGE, [again, _]) if *again == tid && has_lock => [SUCCESS, &integer(modem.ask_challenge())].concat(),
        (RESPONSE, [again, answer]) if *again == tid && has_lock => {
            integer(u32::from(modem.judge(Some(*answer), Order::Little) == Some(true)))
        }
        _ => return Vec::new(),
    };
    if modem.is_hit_by("no-values") {
        values.clear();
    }
    let answer = frame(code + 1, tid, &[integer(tid), values].concat());
    modem.transcript.event("xmm<", &format!("{} {}", hex(&answer), name(bytes)));
    vec![frame(ACKNOWLEDGED + 1, tid, &integer(0)), answer]
}

/// An unsolicited message from the modem.
pub(crate) fn own_message() -> Vec<u8> {
    frame(0x5e, 3, &[integer(1), integer(2)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;
    use crate::transcript::from_hex;

    fn ask(modem: &mut Modem, request: &str) -> String {
        answer(modem, &from_hex(request).unwrap()).last().map_or(String::new(), |answer| hex(answer)[40..].to_owned())
    }

    #[test]
    fn the_lock_accepts_only_the_right_response() {
        let mut model = models::row("em7455").unwrap().model();
        model.lock = Lock::Xmm;
        let mut modem = Modem::of(&model);
        let query = "1c000000 02040000001c 02040000018e 11000101 020411000101 020400000000";
        let request = |code: &str, argument: &str| query.replace("018e", code).replace("020400000000", argument);
        let tid = "020411000101";
        assert_eq!(ask(&mut modem, query), format!("{tid}020100020400000000020400000001"));
        assert_eq!(ask(&mut modem, &request("0190", "020400000000")), format!("{tid}020100020412345678"));
        assert_eq!(ask(&mut modem, &request("0192", "020400000001")), format!("{tid}020400000000"));
        ask(&mut modem, &request("0190", "020400000000"));
        ask(&mut modem, &request("0190", "020400000000"));
        ask(&mut modem, &request("0190", "020400000000"));
        // From the test vectors, for 0x12345678.
        assert_eq!(ask(&mut modem, &request("0192", "0204401cf881")), format!("{tid}020400000001"));
        assert_eq!(ask(&mut modem, query), format!("{tid}020100020400000001020400000001"));
        assert!(!modem.locked);
        // Another request, and a truncated request.
        assert_eq!(ask(&mut modem, &request("0042", "020400000000")), "");
        assert!(answer(&mut modem, &from_hex(query).unwrap()[..20]).is_empty());
    }
}
