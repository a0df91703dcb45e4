//! FCC locks that ask a challenge. The answer is a hash over the challenge and a key, and the key is a hash over the OEM
//! string of a laptop vendor.

use crate::digest;
use crate::radio::Modem;

/// Of Lenovo, for all its modules.
pub(crate) const LENOVO: &str = "KHOIHGIUCCHHII";

/// The order of bytes in challenge and answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    Big,
    Little,
}

/// How a modem writes challenges, and reads answers, in AT commands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Decimal,
    Hex,
}

/// Challenges that a modem asks in turn. One has leading zeros.
const CHALLENGES: [u32; 3] = [0x1234_5678, 0x00c0_ffee, 0xfedc_ba98];

/// What a modem with the OEM string `oem` takes for an answer.
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
    /// Asks another challenge.
    pub fn ask_challenge(&mut self) -> u32 {
        let challenge = CHALLENGES[self.challenges % CHALLENGES.len()];
        self.challenges += 1;
        self.challenge = Some(challenge);
        challenge
    }

    /// Takes an answer to the last challenge, once. `None` if there is no challenge to answer.
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
            self.locked = false;
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
    fn answers_are_those_of_modems() {
        assert_eq!(answer(0x1234_5678, LENOVO, Order::Big), 1_787_294_009);
        assert_eq!(answer(0x1234_5678, LENOVO, Order::Little), 1_075_640_449);
        assert_eq!(answer(0x1234_abcd, LENOVO, Order::Big), 0xe7a1_9fc0);
    }
}
