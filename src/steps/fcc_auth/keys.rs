//! The keys of locks that send a challenge.
//!
//! A key is the first four bytes of SHA-256 over an OEM string. A modem that was reset to factory settings may have
//! another key. The response to a challenge is a hash over challenge and key.
//!
//! A modem may count wrong responses permanently, so a refused key is not used again before the next power-up. A key
//! without a verdict is used again with another challenge, as in ModemManager's scripts, but at most three times.

use std::collections::VecDeque;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::radio::TRY_AGAIN;
use crate::database::quirks::{ByteOrder, Procedure};
use crate::host::smbios::FccType;
use crate::host::state::MAX_SENDS;
use crate::modem::link::LinkError;
use crate::modem::session::SessionError;
use crate::outcome::{Failure, Outcome};

/// The time needed for the verdict on a response. With less time left, no key is used.
const VERDICT_TIME: Duration = Duration::from_millis(300);
/// The pause before a modem that was too busy for a response gets another one. An event leaves that to the unit.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// A key and its source. No message contains the key itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    source: String,
    bytes: [u8; 4],
    id: u32,
}

impl Key {
    /// Creates a key for the lock of `procedure`. The key has another ID for another procedure, although both send the
    /// same response: it is not known whether the procedures of the L860-GL open the same lock. Lenovo unlocks it over
    /// AT and Dell over MBIM, so a refusal of one procedure does not say that the other one refuses the key, too.
    pub fn new(source: String, procedure: &str, oem_string: &str) -> Key {
        Key::of(source, procedure, first_bytes(&[oem_string.as_bytes()]), oem_string.as_bytes())
    }

    /// A key that is not made from an OEM string.
    fn of_bytes(source: String, procedure: &str, bytes: [u8; 4]) -> Key {
        Key::of(source, procedure, bytes, &bytes)
    }

    /// `origin` is what the key is made from.
    fn of(source: String, procedure: &str, bytes: [u8; 4], origin: &[u8]) -> Key {
        Key { source, bytes, id: u32::from_be_bytes(first_bytes(&[procedure.as_bytes(), origin])) }
    }

    /// Identifies a key among those of all procedures, without revealing it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The response to `challenge`: the first four bytes of SHA-256 over challenge and key. `order` is the byte order
    /// of both numbers.
    pub fn answer(&self, challenge: u32, order: ByteOrder) -> u32 {
        let challenge = match order {
            ByteOrder::BigEndian => challenge.to_be_bytes(),
            ByteOrder::LittleEndian => challenge.to_le_bytes(),
        };
        let response = first_bytes(&[&challenge, &self.bytes]);
        match order {
            ByteOrder::BigEndian => u32::from_be_bytes(response),
            ByteOrder::LittleEndian => u32::from_le_bytes(response),
        }
    }
}

/// The first four bytes of SHA-256 over these parts.
fn first_bytes(parts: &[&[u8]]) -> [u8; 4] {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part));
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    [a, b, c, d]
}

/// The keys to try on one modem.
pub struct Keys<'a> {
    remaining: VecDeque<Key>,
    /// How many of them come from the laptop. They are the first ones.
    of_laptop: usize,
    /// Whether keys of the procedure were left out.
    withheld: bool,
    /// Whether earlier runs have sent a key so often that it is not sent any more.
    used_up: bool,
    /// The sources of the keys that this run has used.
    used: Vec<String>,
    /// The IDs of the keys that the modem has received since its power-up.
    tried: Vec<u32>,
    /// Whether an earlier run has used keys since the power-up, and the modem has stayed locked as far as is known.
    used_before: bool,
    note: Box<dyn FnMut(KeyUse) + 'a>,
}

/// What happens to a key, with its [`Key::id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// The modem is about to receive it.
    Sending(u32),
    /// The modem has not received it after all.
    NotSent(u32),
    /// The modem has refused it.
    Refused(u32),
    /// The modem has refused it, but did not report the state of its lock. It is not sent again.
    UsedUp(u32),
}

impl<'a> Keys<'a> {
    /// The laptop's keys, then those of the procedure, without duplicates. `tried` has the IDs of the keys that the
    /// modem has received since its power-up, and `note` keeps them up to date. A key that occurs three times is not
    /// sent again.
    pub fn new(laptop: &[FccType], procedure: &Procedure, tried: &[u32], note: impl FnMut(KeyUse) + 'a) -> Keys<'a> {
        let name = procedure.to_string();
        let oem_strings = procedure.oem_strings().unwrap_or_default();
        let key = |source, oem_string: &str| Key::new(source, &name, oem_string);
        let of_laptop = laptop.iter().map(|found| key(format!("SMBIOS entry {}", found.entry), &found.oem_string));
        let of_quirk =
            (1..).zip(oem_strings).map(|(number, text)| key(format!("OEM string {number} of the quirk"), text));
        let others = (1..).zip(procedure.keys());
        let others =
            others.map(|(number, key)| Key::of_bytes(format!("entry {number} of the quirk's `keys`"), &name, *key));
        let mut remaining: VecDeque<Key> = VecDeque::new();
        let mut used_up = false;
        let mut add = |remaining: &mut VecDeque<Key>, key: Key| {
            if sends(tried, &key) >= MAX_SENDS {
                used_up = true;
            } else if !remaining.iter().any(|other| other.id == key.id) {
                remaining.push_back(key);
            }
        };
        of_laptop.for_each(|key| add(&mut remaining, key));
        let of_laptop = remaining.len();
        of_quirk.chain(others).for_each(|key| add(&mut remaining, key));
        let (used_before, tried) = (!tried.is_empty(), tried.to_vec());
        let (used, note) = (Vec::new(), Box::new(note));
        Keys { remaining, of_laptop, withheld: false, used_up, used, tried, used_before, note }
    }

    /// Only the laptop's keys.
    pub(crate) fn laptop_only(mut self) -> Keys<'a> {
        self.withheld = self.remaining.len() > self.of_laptop;
        self.remaining.truncate(self.of_laptop);
        self
    }

    /// These keys for a modem that was unlocked after the tried keys: none of them awaits a verdict.
    pub(crate) fn settled(self) -> Keys<'a> {
        Keys { used_before: false, ..self }
    }

    /// No keys, for procedures that need none.
    pub fn none() -> Keys<'static> {
        Keys::new(&[], &Procedure::Sierra, &[], |_| {})
    }

    /// Whether all keys have been used.
    pub fn is_empty(&self) -> bool {
        self.remaining.is_empty()
    }

    /// Returns the next key, and marks it as used.
    fn use_next(&mut self) -> Option<Key> {
        let key = self.remaining.pop_front()?;
        (self.note)(KeyUse::Sending(key.id));
        self.tried.push(key.id);
        self.used.push(key.source.clone());
        Some(key)
    }

    /// Takes back the key that was used last: the modem has not received it.
    fn take_back(&mut self, key: Key) {
        (self.note)(KeyUse::NotSent(key.id));
        self.tried.pop();
        self.used.pop();
        self.remaining.push_front(key);
    }

    /// Makes the key that was used last the next one, because the modem has sent no verdict on it. `false` if the modem
    /// has received it too often.
    fn use_again(&mut self, key: Key) -> bool {
        let is_possible = sends(&self.tried, &key) < MAX_SENDS;
        if is_possible {
            self.used.pop();
            self.remaining.push_front(key);
        }
        is_possible
    }

    /// Whether the modem has received a key since its power-up, or since it was last unlocked.
    pub(crate) fn were_used(&self) -> bool {
        self.used_before || !self.used.is_empty()
    }

    /// A message that names the right key, which was used last, and the wrong ones.
    pub fn success(&self) -> String {
        match self.used.split_last() {
            None => "unlocked".to_owned(),
            Some((right, [])) => format!("unlocked with the key of {right}"),
            Some((right, wrong)) => format!("unlocked with the key of {right} (refused: {})", wrong.join(", ")),
        }
    }

    /// A message that says that no key was right.
    pub(crate) fn failure(&self) -> String {
        if self.withheld {
            return "no key of this laptop opens the lock, and the state of the port cannot be saved".to_owned();
        }
        let before = if self.used_up { " (and others in earlier runs since its power-up)" } else { "" };
        match self.used.as_slice() {
            [] => "the modem has accepted no known key since its power-up".to_owned(),
            used => format!("the modem refused every known key: {}{before}", used.join(", ")),
        }
    }
}

/// How often `key` was sent.
fn sends(tried: &[u32], key: &Key) -> usize {
    tried.iter().filter(|id| **id == key.id).count()
}

/// A lock that sends a challenge.
pub(super) trait ChallengeLock {
    /// The time left for requests.
    fn remaining(&self) -> Duration;

    /// Requests a challenge from the modem.
    fn challenge(&mut self) -> Result<u32, SessionError>;

    /// Sends the response to the challenge, computed with `key`. Returns whether the modem accepts it. `None` if only the
    /// state of the lock shows that.
    ///
    /// # Errors
    /// [`LinkError::Contended`] and [`LinkError::WriteTimeout`] only if nothing was sent. After another error, there is
    /// no verdict.
    fn respond(&mut self, challenge: u32, key: &Key) -> Result<Option<bool>, SessionError>;

    /// Whether the lock is open after a response that the modem has refused, or on which it gave no verdict.
    fn is_open(&mut self, _is_refused: bool) -> Result<bool, SessionError> {
        Ok(false)
    }

    /// Waits before the next challenge. Only AT commands need this: the other sessions repeat what a busy modem refuses.
    fn pause(&mut self, _: Duration) -> Result<(), SessionError> {
        Ok(())
    }
}

/// Responds to challenges with one key after the other. Returns `None` if the lock is open.
pub(super) fn unlock(lock: &mut impl ChallengeLock, keys: &mut Keys) -> Result<Option<Outcome>, SessionError> {
    while !keys.is_empty() {
        let challenge = lock.challenge()?;
        if lock.remaining() < VERDICT_TIME {
            let reason = "too little time is left to answer the challenge";
            return Ok(Some(Outcome::Unfinished(Failure::new(reason, TRY_AGAIN))));
        }
        let Some(key) = keys.use_next() else { break };
        match lock.respond(challenge, &key) {
            Err(error @ SessionError::Link(LinkError::Contended | LinkError::WriteTimeout)) => {
                keys.take_back(key);
                return Err(error);
            }
            Err(busy) if busy.is_transient() => {
                if lock.remaining() < BUSY_PAUSE + VERDICT_TIME || !keys.use_again(key) {
                    return Err(busy);
                }
                lock.pause(BUSY_PAUSE)?;
            }
            Err(error) => return Err(error),
            Ok(Some(true)) => return Ok(None),
            Ok(verdict) => match lock.is_open(verdict.is_some()) {
                Ok(true) => return Ok(None),
                Ok(false) => (keys.note)(KeyUse::Refused(key.id)),
                Err(error) => {
                    if verdict.is_some() {
                        (keys.note)(KeyUse::UsedUp(key.id));
                    }
                    return Err(error);
                }
            },
        }
    }
    let remedy = if keys.withheld {
        "run `wwan-quirks apply` to send the other keys"
    } else {
        "report a bug with the output of `wwan-quirks report`; to try every key again, power the modem off and on"
    };
    Ok(Some(Outcome::Failed(Failure::new(keys.failure(), remedy))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ByteOrder::{BigEndian, LittleEndian};

    impl KeyUse {
        pub(crate) fn apply(self, tried: &mut Vec<u32>) {
            match self {
                KeyUse::Sending(id) => tried.push(id),
                KeyUse::NotSent(id) => assert_eq!(tried.pop(), Some(id)),
                KeyUse::Refused(id) | KeyUse::UsedUp(id) => {
                    tried.retain(|other| *other != id);
                    tried.extend([id; MAX_SENDS]);
                }
            }
        }
    }

    const NAME: &str = "xmm-rpc";

    fn procedure(oem_strings: &[&str]) -> Procedure {
        Procedure::Xmm { oem_strings: oem_strings.iter().map(|text| (*text).to_owned()).collect(), keys: Vec::new() }
    }

    pub(super) const LENOVO: &str = "KHOIHGIUCCHHII";
    pub(super) const DW5823E: &str = "DW5823EFCCLOCK";
    pub(super) const DW5931E: &str = "DW5931EFCCLOCK";
    pub(super) const DW5933E: &str = "DW5933EFCCLOCK";
    pub(super) const HP: &str = "WNCHPCEFCCLOCK";

    #[test]
    fn responses_match_those_that_modems_accept() {
        for (oem_string, bytes) in [
            (LENOVO, 0x3df8_c719_u32),
            (DW5823E, 0xbb23_be7f),
            (DW5931E, 0x4909_b5a4),
            (DW5933E, 0x9355_5146),
            (HP, 0x576f_0ae0),
        ] {
            assert_eq!(Key::new(String::new(), NAME, oem_string).bytes, bytes.to_be_bytes(), "{oem_string}");
        }
        for (challenge, oem_string, big, little) in [
            (0x1234_5678, LENOVO, 1_787_294_009, 1_075_640_449),
            (0x1234_5678, DW5823E, 3_352_387_412, 1_927_859_199),
            (0x1234_5678, DW5931E, 3_962_344_005, 2_221_799_156),
            (0x1234_5678, DW5933E, 1_307_743_892, 410_980_795),
            (0x1234_5678, HP, 2_880_897_395, 3_852_808_753),
            (0x00c0_ffee, LENOVO, 3_406_833_608, 3_584_264_405),
            (0xfedc_ba98, LENOVO, 3_434_244_571, 3_603_595_196),
            // For the RW101R-GL, computed with sha256sum.
            (0x1234_abcd, LENOVO, 0xe7a1_9fc0, 0),
            (7, LENOVO, 0xdc32_5c0f, 0),
        ] {
            let key = Key::new(String::new(), NAME, oem_string);
            assert_eq!(key.answer(challenge, BigEndian), big, "{challenge:#x} {oem_string}");
            assert!(little == 0 || key.answer(challenge, LittleEndian) == little, "{challenge:#x} {oem_string}");
        }
    }

    #[test]
    fn each_key_is_used_once_and_those_of_the_laptop_come_first() {
        let laptop = [DW5931E, LENOVO].map(|text| FccType { entry: "133-0".to_owned(), oem_string: text.to_owned() });
        let quirk = procedure(&[LENOVO, HP, DW5823E]);
        let mut noted = Vec::new();
        let tried = [Key::new(String::new(), NAME, HP).id(); MAX_SENDS];
        let mut keys = Keys::new(&laptop, &quirk, &tried, |note| note.apply(&mut noted));
        assert!(keys.were_used());
        let sources: Vec<String> = std::iter::from_fn(|| keys.use_next()).map(|key| key.source).collect();
        assert_eq!(sources, ["SMBIOS entry 133-0", "SMBIOS entry 133-0", "OEM string 3 of the quirk"]);
        assert!(keys.is_empty());
        let failure = keys.failure();
        assert!(
            failure.ends_with("OEM string 3 of the quirk (and others in earlier runs since its power-up)"),
            "{failure}"
        );
        drop(keys);
        assert_eq!(noted, [DW5931E, LENOVO, DW5823E].map(|text| Key::new(String::new(), NAME, text).id()));
        // An earlier success settles the verdict on the keys.
        assert!(!Keys::new(&laptop, &quirk, &tried, |_| {}).settled().were_used());
        // The next run has no key left.
        let keys = Keys::new(&laptop, &quirk, &[noted.repeat(MAX_SENDS), tried.to_vec()].concat(), |_| {});
        assert!(keys.is_empty());
        assert_eq!(keys.failure(), "the modem has accepted no known key since its power-up");
    }

    /// Issue 240 of xmm7360-pci: all bytes of the key are 0.
    #[test]
    fn keys_without_an_oem_string_come_last() {
        let quirk = Procedure::Xmm { oem_strings: vec![LENOVO.to_owned()], keys: vec![[0; 4], [1, 2, 3, 4]] };
        let mut keys = Keys::new(&[], &quirk, &[], |_| {});
        let all: Vec<Key> = std::iter::from_fn(|| keys.use_next()).collect();
        assert_eq!(
            keys.success(),
            "unlocked with the key of entry 2 of the quirk's `keys` (refused: OEM string 1 of the quirk, entry 1 of the quirk's `keys`)"
        );
        // Computed with sha256sum.
        assert_eq!(all[1].answer(0x1234_5678, LittleEndian), 0x3860_b0df);
        assert_ne!(all[1].id, all[2].id);
        assert_ne!(all[1].id, Key::of_bytes(String::new(), "gtfcclock", [0; 4]).id);
        let keys = Keys::new(&[], &quirk, &[all[0].id, all[1].id].repeat(MAX_SENDS), |_| {});
        assert!(keys.remaining == [all[2].clone()]);
    }

    #[test]
    fn a_key_without_a_verdict_is_used_again_until_it_was_sent_too_often() {
        let quirk = procedure(&[LENOVO, HP]);
        let id = Key::new(String::new(), NAME, LENOVO).id();
        for before in 0..MAX_SENDS {
            let mut keys = Keys::new(&[], &quirk, &vec![id; before], |_| {});
            for _ in before + 1..MAX_SENDS {
                let key = keys.use_next().unwrap();
                assert!(key.id == id && keys.use_again(key));
            }
            let key = keys.use_next().unwrap();
            assert!(key.id == id && !keys.use_again(key));
            assert_ne!(keys.use_next().unwrap().id, id);
            assert_eq!(keys.used.len(), 2);
        }
        assert_ne!(Keys::new(&[], &quirk, &[id; MAX_SENDS], |_| {}).use_next().unwrap().id, id);
    }

    /// Accepts HP's key. Another program opens the port before the second response, once.
    struct Contended {
        sent: usize,
        is_alone: bool,
    }

    impl ChallengeLock for Contended {
        fn remaining(&self) -> Duration {
            VERDICT_TIME
        }

        fn challenge(&mut self) -> Result<u32, SessionError> {
            Ok(7)
        }

        fn respond(&mut self, challenge: u32, key: &Key) -> Result<Option<bool>, SessionError> {
            if self.sent == 1 && !std::mem::replace(&mut self.is_alone, true) {
                return Err(LinkError::Contended.into());
            }
            self.sent += 1;
            let right = Key::new(String::new(), NAME, HP);
            Ok(Some(key.answer(challenge, BigEndian) == right.answer(challenge, BigEndian)))
        }
    }

    #[test]
    fn a_key_that_was_not_sent_can_be_used_by_the_next_run() {
        let quirk = procedure(&[LENOVO, HP]);
        let ids = [LENOVO, HP].map(|text| Key::new(String::new(), NAME, text).id());
        let (mut tried, mut lock) = (Vec::new(), Contended { sent: 0, is_alone: false });
        let mut run = || {
            let before = tried.clone();
            let mut keys = Keys::new(&[], &quirk, &before, |note| note.apply(&mut tried));
            let ended = unlock(&mut lock, &mut keys);
            drop(keys);
            (ended, tried.clone())
        };
        let refused = [ids[0]; MAX_SENDS];
        assert_eq!(run(), (Err(LinkError::Contended.into()), refused.to_vec()));
        assert_eq!(run(), (Ok(None), [&refused[..], &ids[1..]].concat()));
    }

    #[test]
    fn the_keys_of_the_quirk_can_be_left_out() {
        let laptop = [FccType { entry: "133-0".to_owned(), oem_string: LENOVO.to_owned() }];
        let (quirk, tried) = (procedure(&[LENOVO, HP]), [Key::new(String::new(), NAME, LENOVO).id(); MAX_SENDS]);
        let mut keys = Keys::new(&laptop, &quirk, &[], |_| {}).laptop_only();
        assert_eq!(keys.use_next().map(|key| key.source).as_deref(), Some("SMBIOS entry 133-0"));
        assert!(keys.is_empty());
        assert!(keys.failure().contains("cannot be saved"), "{}", keys.failure());
        assert!(Keys::new(&laptop, &quirk, &tried, |_| {}).laptop_only().is_empty());
        // No key is missing if the quirk has no other.
        let keys = Keys::new(&laptop, &procedure(&[LENOVO]), &[], |_| {}).laptop_only();
        assert!(!keys.failure().contains("cannot be saved"), "{}", keys.failure());
    }

    #[test]
    fn no_message_contains_a_key() {
        let quirk = procedure(&[LENOVO, HP]);
        let mut keys = Keys::new(&[], &quirk, &[], |_| {});
        assert_eq!(keys.success(), "unlocked");
        keys.use_next();
        assert_eq!(keys.success(), "unlocked with the key of OEM string 1 of the quirk");
        keys.use_next();
        let refused = "(refused: OEM string 1 of the quirk)";
        assert_eq!(keys.success(), format!("unlocked with the key of OEM string 2 of the quirk {refused}"));
    }

    /// The port accepts the requests, but not the response.
    struct Jammed;

    impl ChallengeLock for Jammed {
        fn remaining(&self) -> Duration {
            VERDICT_TIME
        }

        fn challenge(&mut self) -> Result<u32, SessionError> {
            Ok(7)
        }

        fn respond(&mut self, _: u32, _: &Key) -> Result<Option<bool>, SessionError> {
            Err(LinkError::WriteTimeout.into())
        }
    }

    #[test]
    fn a_key_that_the_port_did_not_accept_is_not_used_up() {
        let (quirk, mut tried) = (procedure(&[LENOVO]), Vec::new());
        let mut keys = Keys::new(&[], &quirk, &[], |note| note.apply(&mut tried));
        assert_eq!(unlock(&mut Jammed, &mut keys), Err(LinkError::WriteTimeout.into()));
        drop(keys);
        assert!(tried.is_empty());
    }
}
