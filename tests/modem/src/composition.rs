//! Sierra's USB compositions: numbers (AT!UDUSBCOMP, QMI 0x555C) and interface masks (AT!USBCOMP).

use crate::descriptors::{Configuration, Role};
use crate::models::Dialect;

const DIAG: u32 = 0x1;
const NMEA: u32 = 0x4;
const MODEM: u32 = 0x8;
const RMNET0: u32 = 0x100;
const RMNET1: u32 = 0x400;
const MBIM: u32 = 0x1000;
/// A real DW5811e has this bit, and does not list it.
const UBIST: u32 = 0x20_0000;

/// The mask bits that the modem accepts.
pub(crate) const KNOWN_BITS: u32 = DIAG | NMEA | MODEM | RMNET0 | RMNET1 | MBIM | UBIST;
/// The number of a mask that has none.
pub(crate) const CUSTOM: u8 = 0xff;

/// The numbers that a real EM7355 listed.
pub(crate) const SUPPORTED: [u8; 10] = [1, 6, 7, 8, 9, 10, 11, 12, 14, 19];

#[derive(Clone, Debug, PartialEq)]
pub struct Composition {
    pub number: u8,
    /// One mask for each configuration.
    pub masks: Vec<u32>,
}

impl Composition {
    /// The composition with this number. It has only serial ports if nothing else is implemented for the number.
    pub fn numbered(number: u8) -> Composition {
        let mask = |number| match number {
            6 => DIAG | NMEA | MODEM | RMNET0,
            7 => DIAG | NMEA | MODEM | RMNET0 | RMNET1,
            8 => DIAG | NMEA | MODEM | MBIM,
            9 => MBIM,
            10 => NMEA | MBIM,
            11 => DIAG | MBIM,
            12 => DIAG | NMEA | MBIM,
            _ => DIAG | NMEA | MODEM,
        };
        let masks = match number {
            13..=17 => vec![mask(6), mask(number - 5)],
            18..=22 => vec![mask(7), mask(number - 10)],
            _ => vec![mask(number)],
        };
        Composition { number, masks }
    }

    /// The composition with this single mask.
    pub fn masked(mask: u32) -> Composition {
        let numbered = (6..=12).map(Composition::numbered).find(|known| known.masks == [mask]);
        numbered.unwrap_or(Composition { number: CUSTOM, masks: vec![mask] })
    }

    /// Whether the composition has neither QMI nor MBIM, as on DirectIP modems.
    pub fn is_serial(&self) -> bool {
        self.number < 6
    }

    /// Sierra's interface numbers: 0 DM, 2 NMEA, 3 AT, 8 and 10 QMI, 12 and 13 MBIM. EM919x and EM929x: 0 and 1 MBIM, 3
    /// AT, 4 DM (Linux commit df3414b0a245). Their other interfaces are not known.
    pub fn configurations(&self, dialect: Dialect) -> Vec<Configuration> {
        if dialect == Dialect::Sierra91 {
            let has = |bit| self.masks.iter().any(|mask| mask & bit != 0);
            let mut one = Configuration::new(1);
            if has(MBIM) {
                one = one.mbim(0);
            }
            if has(MODEM) {
                one = one.serial_of(3, Role::At, (0xff, 0xff, 0x40));
            }
            if has(DIAG) {
                one = one.bulk(4, Role::Silent, (0xff, 0xff, 0x30));
            }
            return vec![one];
        }
        let configuration = |(index, mask): (usize, &u32)| {
            let has = |bit| mask & bit != 0;
            let mut built = Configuration::new(index as u8 + 1);
            if has(DIAG) {
                built = built.diag(0);
            }
            if has(NMEA) {
                built = built.serial(2, Role::Silent);
            }
            if has(MODEM) {
                built = built.serial(3, Role::At);
            }
            if has(RMNET0) {
                built = built.qmi(8);
            }
            if has(RMNET1) {
                built = built.qmi(10);
            }
            if has(MBIM) {
                built = built.mbim(12);
            }
            built
        };
        self.masks.iter().enumerate().map(configuration).collect()
    }
}

impl std::fmt::Display for Composition {
    /// The number, or the masks if there is no number.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.number {
            CUSTOM => write!(f, "{}", self.masks.iter().map(|mask| format!("{mask:X}")).collect::<Vec<_>>().join("+")),
            number => write!(f, "{number}"),
        }
    }
}

/// The names of the mask's bits, as AT!USBCOMP? prints them.
pub(crate) fn mask_names(mask: u32) -> String {
    let names = [
        (DIAG, "diag"),
        (NMEA, "nmea"),
        (MODEM, "modem"),
        (RMNET0, "rmnet0"),
        (RMNET1, "rmnet1"),
        (MBIM, "mbim"),
        (UBIST, "ubist"),
    ];
    let named = names.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name);
    named.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fourteen_is_six_and_nine() {
        let fourteen = Composition::numbered(14);
        assert_eq!(fourteen.masks, [0x10d, 0x1000]);
        let built = fourteen.configurations(Dialect::SierraOld);
        let numbers = |c: &Configuration| c.roles.iter().map(|(n, _)| *n).collect::<Vec<_>>();
        assert_eq!(numbers(&built[0]), [0, 2, 3, 8]);
        assert_eq!(numbers(&built[1]), [12, 13]);
    }

    #[test]
    fn masks_have_numbers_if_there_are_any() {
        assert_eq!(Composition::masked(0x100d).number, 8);
        assert_eq!(Composition::masked(0x1009).number, CUSTOM);
        assert_eq!(mask_names(0x50d), "diag,nmea,modem,rmnet0,rmnet1");
        assert_eq!(mask_names(0x20_1009), "diag,modem,mbim,ubist");
    }

    #[test]
    fn an_em9191_has_its_own_interfaces() {
        let built = Composition::masked(0x1009).configurations(Dialect::Sierra91);
        let roles = [(0, Role::Mbim), (3, Role::At), (4, Role::Silent)];
        assert!(roles.iter().all(|role| built[0].roles.contains(role)), "{:?}", built[0].roles);
    }
}
