//! The keys that a lock has received since the modem's power-up.

use serde::{Deserialize, Serialize};

use super::Memory;

/// The keys that a lock has received since the modem's power-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TriedKeys {
    enumeration: u64,
    /// The [`crate::steps::fcc_auth::Key::id`] of each key. A key that opened the lock is not among them.
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

impl Memory {
    /// The keys that this enumeration must not receive again, and whether a later key opened its lock.
    pub(crate) fn tried_keys(&self, enumeration: u64) -> (&[u32], bool) {
        let tried = self.tried_keys.as_ref().filter(|tried| tried.enumeration == enumeration);
        tried.map_or((&[], false), |tried| (&tried.keys, tried.verdict == KeyVerdict::Accepted))
    }

    /// Records that `enumeration` is about to receive `key`. Returns the earlier keys, for [`Self::take_back_key`].
    pub(crate) fn try_key(&mut self, enumeration: u64, key: u32) -> Option<TriedKeys> {
        let before = self.tried_keys.take();
        let known = before.as_ref().filter(|tried| tried.enumeration == enumeration);
        let mut keys = known.map_or(Vec::new(), |tried| tried.keys.clone());
        keys.push(key);
        self.tried_keys = Some(TriedKeys { enumeration, keys, verdict: KeyVerdict::Pending });
        before
    }

    /// Records that the modem has not received the last key after all.
    pub(crate) fn take_back_key(&mut self, before: Option<TriedKeys>) {
        self.tried_keys = before;
    }

    /// Records whether the lock of `enumeration` is open. If the last key opened it, that key may open it again. The
    /// refused keys are not sent again until the next power-up.
    pub(crate) fn judge_key(&mut self, enumeration: u64, is_unlocked: bool) {
        let Some(tried) = self.tried_keys.as_mut().filter(|tried| tried.enumeration == enumeration) else { return };
        match (is_unlocked, tried.verdict) {
            (true, KeyVerdict::Pending) => {
                tried.keys.pop();
                tried.verdict = KeyVerdict::Accepted;
            }
            (true, _) => tried.verdict = KeyVerdict::Accepted,
            (false, KeyVerdict::Pending) => tried.verdict = KeyVerdict::Refused,
            (false, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_that_opened_a_lock_is_sent_to_it_again() {
        let mut memory = Memory::default();
        for key in [1, 2] {
            memory.try_key(7, key);
        }
        assert_eq!(memory.tried_keys(7), (&[1, 2][..], false));
        memory.judge_key(7, true);
        assert_eq!(memory.tried_keys(7), (&[1][..], true));
        // A later look at the unlocked modem changes nothing.
        memory.judge_key(7, true);
        assert_eq!(memory.tried_keys(7), (&[1][..], true));
        // The modem locked again without a power loss.
        memory.try_key(7, 2);
        assert_eq!(memory.tried_keys(7), (&[1, 2][..], false));
        // A refused key stays refused if another program unlocks the modem.
        memory.judge_key(7, false);
        memory.judge_key(7, true);
        assert_eq!(memory.tried_keys(7), (&[1, 2][..], true));
        // A key that was not sent after all.
        let before = memory.try_key(7, 3);
        memory.take_back_key(before);
        assert_eq!(memory.tried_keys(7), (&[1, 2][..], true));
        // A power-up is another enumeration.
        assert_eq!(memory.tried_keys(8), (&[][..], false));
    }
}
