//! The keys that a lock has received since the modem's power-up.

use serde::{Deserialize, Serialize};

/// The keys that the last lock on the port has received, if it needed any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TriedKeys(Option<Tried>);

/// How often a key is sent at most between two power-ups, if there is no verdict on it.
pub(crate) const MAX_SENDS: usize = 3;

/// The keys that a lock has received since the modem's power-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    enumeration: u64,
    /// The [`crate::steps::fcc_auth::Key::id`] of each key, as often as it was sent. A key that the modem refused occurs
    /// [`MAX_SENDS`] times. A key that opened the lock is not among them.
    keys: Vec<u32>,
    verdict: KeyVerdict,
}

/// The verdict on the last key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KeyVerdict {
    /// The run that sent the key did not see a verdict.
    Pending,
    Refused,
    Accepted,
}

impl TriedKeys {
    /// The keys that this enumeration has received, and whether a later key opened its lock. It must not receive a key
    /// again that occurs [`MAX_SENDS`] times.
    pub(crate) fn of(&self, enumeration: u64) -> (&[u32], bool) {
        let tried = self.0.as_ref().filter(|tried| tried.enumeration == enumeration);
        tried.map_or((&[], false), |tried| (&tried.keys, tried.verdict == KeyVerdict::Accepted))
    }

    /// Records that `enumeration` is about to receive `key`. Returns the earlier keys: they apply again
    /// if the modem has not received this one after all.
    pub(crate) fn add(&mut self, enumeration: u64, key: u32) -> TriedKeys {
        let before = self.0.take();
        let known = before.as_ref().filter(|tried| tried.enumeration == enumeration);
        let mut keys = known.map_or(Vec::new(), |tried| tried.keys.clone());
        keys.push(key);
        self.0 = Some(Tried { enumeration, keys, verdict: KeyVerdict::Pending });
        TriedKeys(before)
    }

    /// Records that the modem has refused the last key. It is not sent again until the next power-up.
    pub(crate) fn refuse(&mut self, enumeration: u64, key: u32) {
        self.use_up(enumeration, key);
        if let Some(tried) = self.0.as_mut().filter(|tried| tried.enumeration == enumeration) {
            tried.verdict = KeyVerdict::Refused;
        }
    }

    /// Like [`refuse`](TriedKeys::refuse), but the last key may have opened the lock nevertheless.
    pub(crate) fn use_up(&mut self, enumeration: u64, key: u32) {
        let Some(tried) = self.0.as_mut().filter(|tried| tried.enumeration == enumeration) else { return };
        tried.keys.retain(|other| *other != key);
        tried.keys.extend([key; MAX_SENDS]);
    }

    /// Records that the lock of `enumeration` is open. If the last key opened it, that key may open it again.
    pub(crate) fn accept(&mut self, enumeration: u64) {
        let Some(tried) = self.0.as_mut().filter(|tried| tried.enumeration == enumeration) else { return };
        if tried.verdict == KeyVerdict::Pending {
            let last = tried.keys.last().copied();
            tried.keys.retain(|key| Some(*key) != last);
        }
        tried.verdict = KeyVerdict::Accepted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_that_opened_a_lock_is_sent_to_it_again() {
        let mut tried = TriedKeys::default();
        for key in [1, 2, 2] {
            tried.add(7, key);
        }
        assert_eq!(tried.of(7), (&[1, 2, 2][..], false));
        tried.accept(7);
        assert_eq!(tried.of(7), (&[1][..], true));
        // A later look at the unlocked modem changes nothing.
        tried.accept(7);
        assert_eq!(tried.of(7), (&[1][..], true));
        // The modem locked again without a power loss.
        tried.add(7, 2);
        assert_eq!(tried.of(7), (&[1, 2][..], false));
        // A refused key stays refused if another program unlocks the modem.
        tried.refuse(7, 2);
        tried.accept(7);
        assert_eq!(tried.of(7), (&[1, 2, 2, 2][..], true));
        // A key that opened the lock although the modem refused it.
        tried.add(7, 4);
        tried.use_up(7, 4);
        assert_eq!(tried.of(7), (&[1, 2, 2, 2, 4, 4, 4][..], false));
        tried.accept(7);
        assert_eq!(tried.of(7), (&[1, 2, 2, 2][..], true));
        // A key that was not sent after all.
        let before = tried.add(7, 3);
        tried = before;
        assert_eq!(tried.of(7), (&[1, 2, 2, 2][..], true));
        // A power-up is another enumeration.
        assert_eq!(tried.of(8), (&[][..], false));
    }
}
