//! FCC locks that send a challenge. The response is a hash over the challenge and a key. The key is a hash over the OEM
//! string of a laptop vendor.

use crate::digest;
use crate::radio::{Modem, ONLINE};

/// The OEM string of Lenovo, for all its modules.
pub(crate) const LENOVO: &str = "KHOIHGIUCCHHII";

/// The byte order of challenge and response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    Big,
    Little,
}

/// How a modem formats challenges and parses responses in AT commands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Decimal,
    Hex,
}

/// The challenges that a modem sends in turn. One has leading zeros.
const CHALLENGES: [u32; 3] = [0x1234_5678, 0x00c0_ffee, 0xfedc_ba98];

/// The response that a modem with the OEM string `oem` accepts.
pub(crate) fn answer(challenge: u32, oem: &str, order: Order) -> u32 {
    let key = &digest::sha256(oem.as_bytes())[..4];
    let challenge = match order {
        Order::Big => challenge.to_be_bytes(),
        Order::Little => challenge.to_le_bytes(),
    };
    let digest = digest::sha256(&[&challenge, key].concat());
    let first = [digest[0], digest[1], digest[2], digest[3]];
    match order {
        Order::Big => u32::from_be_bytes(first),
        Order::Little => u32::from_le_bytes(first),
    }
}

impl Modem {
    /// Returns the next challenge.
    pub fn ask_challenge(&mut self) -> u32 {
        let challenge = CHALLENGES[self.challenges % CHALLENGES.len()];
        self.challenges += 1;
        self.challenge = Some(challenge);
        challenge
    }

    /// Judges a response to the last challenge, once. `None` if there is no challenge to respond to.
    pub fn judge(&mut self, given: Option<u32>, order: Order) -> Option<bool> {
        let right = given == Some(answer(self.challenge.take()?, &self.oem_string, order));
        if self.faults.has("refuse") {
            self.refuse_unlock("by fault");
            return Some(false);
        }
        if !right {
            self.refuse_unlock("wrong answer to the challenge");
        } else if self.locked {
            // The radio stays off until the host switches it on.
            self.locked = self.faults.has("stays-locked");
            if self.faults.has("goes-online") {
                self.set_mode(ONLINE);
            }
            self.unlocks.0 += 1;
            self.transcript.event("unlocked", "");
        }
        Some(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_match_those_that_modems_accept() {
        assert_eq!(answer(0x1234_5678, LENOVO, Order::Big), 1_787_294_009);
        assert_eq!(answer(0x1234_5678, LENOVO, Order::Little), 1_075_640_449);
        assert_eq!(answer(0x1234_abcd, LENOVO, Order::Big), 0xe7a1_9fc0);
    }
}
