//! What the guard against loops knows about earlier actions on a port.

use std::collections::BTreeMap;
use std::iter::successors;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bus::DeviceId;
use crate::outcome::StepKind;

/// How often a step may act on a device that repeatedly comes back in the same state.
pub(crate) const ATTEMPTS: u32 = 3;
/// If a device comes back later than this after an action, a person has plugged it in again.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// The same for an action that was verified. A person needs more time to look at the modem and to plug it in again. LTE
/// modems often need more time, too, to return after a crash: the guard does not recognize these crashes.
const CRASH_WINDOW: Duration = Duration::from_secs(10);
/// The kernel tries four times to enumerate a device, and takes a new device number each time (Linux
/// drivers/usb/core/hub.c, PORT_INIT_TRIES).
const FAILED_ENUMERATIONS: usize = 3;

/// One device on one port, for the guard against loops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub id: DeviceId,
    pub serial: Option<String>,
    /// Identifies this enumeration of the device.
    pub enumeration: u64,
    /// `devnum`. The kernel numbers the devices of a bus in sequence.
    pub number: Option<u16>,
}

impl Identity {
    /// Whether `self` is the device `earlier` after it left the bus and came back, with no other device on its port in
    /// between. `elsewhere` returns the numbers of devices on other ports. Up to `unused` numbers may belong to no
    /// device.
    fn came_back(&self, earlier: &Identity, unused: usize, elsewhere: impl FnOnce() -> Vec<u16>) -> bool {
        let is_same = (&self.id, &self.serial) == (&earlier.id, &earlier.serial);
        if !is_same || self.enumeration == earlier.enumeration {
            return false;
        }
        let (Some(now), Some(then)) = (self.number, earlier.number) else { return true };
        // Device numbers wrap from 127 to 1, which the root hub has (Linux drivers/usb/core/hub.c, choose_devnum).
        let next = |number: &u16| Some(number % 127 + 1);
        let mut between: Vec<u16> =
            successors(next(&then), next).take(126).take_while(|number| *number != now).collect();
        between.retain(|number| *number != 1);
        if between.len() <= unused {
            return true;
        }
        let elsewhere = elsewhere();
        between.retain(|number| !elsewhere.contains(number));
        between.len() <= unused
    }
}

/// An action of a step on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ActionRecord {
    pub identity: Identity,
    /// Time since boot. A device that comes back later than this has been plugged in again.
    #[serde(with = "seconds")]
    pub until: Duration,
    /// The number of consecutive actions, including this one, after each of which the device came back in the same
    /// state.
    count: u32,
    /// Whether the device had come back since the previous action. Alternates: some sticks need two different actions.
    returned: bool,
    gave_up: bool,
}

/// What the guard knows about earlier actions of a step on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    First,
    /// The step has acted on this enumeration before.
    Repeat {
        returned: bool,
    },
    /// The device came back in the same state. `returned` alternates with each return.
    CameBack {
        returned: bool,
    },
    /// The device came back too often.
    GiveUp {
        is_reported: bool,
    },
}

impl Attempt {
    /// Whether the device has come back since the action before this one.
    pub fn returned(self) -> bool {
        matches!(self, Attempt::Repeat { returned: true } | Attempt::CameBack { returned: true })
    }
}

/// A time in `/run`, as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The last action of each step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Attempts(pub(super) BTreeMap<StepKind, ActionRecord>);

impl Attempts {
    /// Records that `step` is about to act on this device at `now`, since boot. If `by_request` is set, the
    /// guard does not apply. `elsewhere` returns the device numbers that belong to other ports of the bus.
    pub(crate) fn record(
        &mut self,
        step: StepKind,
        identity: &Identity,
        now: Duration,
        by_request: bool,
        elsewhere: impl FnOnce() -> Vec<u16>,
    ) -> Attempt {
        if step == StepKind::Switch {
            // This stick was on the port after the modem that the other steps acted on.
            self.0.retain(|_, acted| acted.identity.id == identity.id);
        }
        // For the switch, a number without a device may be that of the modem that the stick became. Without a serial
        // number, any gap may mean another device.
        let is_gap_allowed = step != StepKind::Switch && identity.serial.is_some();
        let unused = if is_gap_allowed { FAILED_ENUMERATIONS } else { 0 };
        let earlier = self.0.get(&step).filter(|acted| (now..=now + WINDOW).contains(&acted.until));
        let (attempt, count, returned) = match earlier {
            Some(acted) if acted.identity == *identity => {
                let count = if acted.gave_up { ATTEMPTS + 1 } else { acted.count };
                (Attempt::Repeat { returned: acted.returned }, count, acted.returned)
            }
            Some(acted) if identity.came_back(&acted.identity, unused, elsewhere) => {
                let returned = !acted.returned;
                (Attempt::CameBack { returned }, acted.count + 1, returned)
            }
            _ => (Attempt::First, 1, false),
        };
        let is_reported = earlier.is_some_and(|acted| acted.gave_up);
        if count > ATTEMPTS && !by_request {
            if let Some(acted) = self.0.get_mut(&step) {
                // Remembers this enumeration, so that the next one counts as a return, too.
                acted.identity = identity.clone();
                acted.gave_up = true;
            }
            return Attempt::GiveUp { is_reported };
        }
        let count = if by_request { 1 } else { count };
        let (identity, until) = (identity.clone(), now + WINDOW);
        self.0.insert(step, ActionRecord { identity, until, count, returned, gave_up: false });
        attempt
    }

    /// Records that the last action of `step` was verified at `now`, since boot. It counts as part of a loop only if
    /// the modem then crashes.
    pub(crate) fn verified(&mut self, step: StepKind, now: Duration) {
        if let Some(acted) = self.0.get_mut(&step) {
            acted.until = now + CRASH_WINDOW;
        }
    }

    /// Forgets the actions of `step`: the modem came up in the state that the step wants, so they were not a loop.
    pub(crate) fn clear(&mut self, step: StepKind) {
        self.0.remove(&step);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn an_attempt_knows_whether_the_device_came_back() {
        for returned in [false, true] {
            assert_eq!(Attempt::Repeat { returned }.returned(), returned);
            assert_eq!(Attempt::CameBack { returned }.returned(), returned);
        }
        assert!(!Attempt::First.returned() && !Attempt::GiveUp { is_reported: true }.returned());
    }

    pub(crate) const STICK: &str = "1199:0fff";

    pub(crate) fn identity(id: &str, serial: &str, enumeration: u64) -> Identity {
        Identity {
            id: id.parse().unwrap(),
            serial: Some(serial.to_owned()),
            enumeration,
            number: Some((enumeration % 127) as u16 + 1),
        }
    }

    /// An attempt without other devices on the bus.
    fn attempt(acted: &mut Attempts, step: StepKind, identity: &Identity, at: f64, by_request: bool) -> Attempt {
        acted.record(step, identity, Duration::from_secs_f64(at), by_request, Vec::new)
    }

    fn attempts(acted: &mut Attempts, enumerations: impl IntoIterator<Item = (u64, f64)>) -> Vec<Attempt> {
        let attempt =
            |(enumeration, at)| attempt(acted, StepKind::Switch, &identity(STICK, "1", enumeration), at, false);
        enumerations.into_iter().map(attempt).collect()
    }

    const FIRST: Attempt = Attempt::First;

    fn came_back(returned: bool) -> Attempt {
        Attempt::CameBack { returned }
    }

    #[test]
    fn a_device_that_keeps_coming_back_is_left_alone_after_three_attempts() {
        let mut acted = Attempts::default();
        let found = attempts(&mut acted, (1..=5).map(|number| (number, number as f64 * 5.0)));
        let give_up = |is_reported| Attempt::GiveUp { is_reported };
        assert_eq!(found, [FIRST, came_back(true), came_back(false), give_up(false), give_up(true)]);
        assert_eq!(attempts(&mut acted, [(5, 25.5)]), [give_up(true)]);
        // On request, the step acts, and the count starts again.
        assert_eq!(
            attempt(&mut acted, StepKind::Switch, &identity(STICK, "1", 6), 26.0, true),
            Attempt::CameBack { returned: true }
        );
        assert_eq!(attempts(&mut acted, [(7, 27.0), (8, 28.0)]).len(), 2);
        assert_eq!(attempts(&mut acted, [(9, 29.0)]), [give_up(false)]);
        // A minute later it was plugged in again.
        assert_eq!(attempts(&mut acted, [(10, 28.5 + WINDOW.as_secs_f64())]), [FIRST]);
    }

    #[test]
    fn forty_successes_on_one_port_are_not_a_loop() {
        let mut acted = Attempts::default();
        // The stick in install mode, then the modem that it becomes. Each enumeration has the next device number.
        let plugs = (0..40).map(|plug| (1 + 2 * plug, plug as f64));
        assert!(attempts(&mut acted, plugs).iter().all(|attempt| *attempt == FIRST));
        // The modem comes up in the state that the step wants.
        for plug in 0..40 {
            assert_eq!(attempts(&mut acted, [(200 + plug, 100.0 + plug as f64)]), [FIRST]);
            acted.clear(StepKind::Switch);
        }
    }

    /// A modem that only needs a configuration has no later step that finds it in the wanted state.
    #[test]
    fn a_modem_that_keeps_its_configuration_is_not_a_loop_and_one_that_crashes_is() {
        let attempts = |seconds: f64| {
            let mut acted = Attempts::default();
            let mut plugged = |plug| {
                let at = seconds * plug as f64;
                let attempt = attempt(&mut acted, StepKind::Configuration, &identity(STICK, "1", plug), at, false);
                acted.verified(StepKind::Configuration, Duration::from_secs_f64(at + 0.2));
                attempt
            };
            (1..=40).map(&mut plugged).collect::<Vec<Attempt>>()
        };
        assert_eq!(attempts(CRASH_WINDOW.as_secs_f64() + 1.0), [FIRST; 40]);
        let crashes = attempts(CRASH_WINDOW.as_secs_f64() - 1.0);
        assert!(crashes[..3].iter().all(|attempt| !matches!(attempt, Attempt::GiveUp { .. })), "{crashes:?}");
        assert_eq!(crashes[3], Attempt::GiveUp { is_reported: false });
    }

    /// Attempts of `step` on a device with these numbers, one per second.
    fn numbered(step: StepKind, serial: Option<&str>, numbers: [u16; 4]) -> Vec<Attempt> {
        let mut acted = Attempts::default();
        let attempt = |(at, number)| {
            let serial = serial.map(str::to_owned);
            let device = Identity { serial, number: Some(number), ..identity(STICK, "", at) };
            attempt(&mut acted, step, &device, at as f64, false)
        };
        (1..).zip(numbers).map(attempt).collect()
    }

    #[test]
    fn a_modem_that_the_kernel_enumerates_only_after_some_tries_has_come_back() {
        let loops = [FIRST, came_back(true), came_back(false), Attempt::GiveUp { is_reported: false }];
        for step in [StepKind::Configuration, StepKind::FccAuth] {
            for (numbers, is_loop) in [
                ([5, 6, 7, 8], true),
                ([5, 7, 9, 11], true),
                ([5, 9, 11, 15], true),
                ([120, 124, 2, 6], true),
                // The kernel does not try a fifth time.
                ([5, 10, 15, 20], false),
            ] {
                let expected = if is_loop { loops } else { [FIRST; 4] };
                assert_eq!(numbered(step, Some("1"), numbers), expected, "{step:?} {numbers:?}");
            }
            // Without a serial number, it may be another modem.
            assert_eq!(numbered(step, None, [5, 7, 9, 11]), [FIRST; 4]);
        }
        // The number in between was that of the modem that the stick became.
        assert_eq!(numbered(StepKind::Switch, Some("1"), [5, 7, 9, 11]), [FIRST; 4]);
    }

    /// Sticks of one model may all have the same serial number.
    #[test]
    fn the_modems_that_forty_sticks_become_are_not_a_loop() {
        for step in [StepKind::Configuration, StepKind::FccAuth] {
            let mut acted = Attempts::default();
            for plug in 0..40 {
                let at = 5.0 * plug as f64;
                let stick = identity(STICK, "1", 2 * plug);
                assert_eq!(attempt(&mut acted, StepKind::Switch, &stick, at, false), FIRST, "{step:?} {plug}");
                acted.clear(StepKind::Switch);
                let modem = identity("1199:68a2", "1", 2 * plug + 1);
                assert_eq!(attempt(&mut acted, step, &modem, at + 2.0, false), FIRST, "{step:?} {plug}");
            }
        }
    }

    #[test]
    fn other_devices_do_not_count() {
        let mut acted = Attempts::default();
        for enumeration in 1..=20 {
            let device = identity(STICK, &enumeration.to_string(), enumeration);
            assert_eq!(attempt(&mut acted, StepKind::Switch, &device, 1.0, false), FIRST);
        }
        assert_eq!(attempt(&mut acted, StepKind::Switch, &identity("1199:68a2", "20", 21), 1.0, false), FIRST);
    }

    #[test]
    fn a_rerun_on_the_same_enumeration_does_not_count() {
        let mut acted = Attempts::default();
        assert_eq!(attempts(&mut acted, [(1, 1.0)]), [FIRST]);
        let repeat = |returned| Attempt::Repeat { returned };
        assert_eq!(attempts(&mut acted, (0..9).map(|rerun| (1, 2.0 + rerun as f64))), [repeat(false); 9]);
        assert_eq!(attempts(&mut acted, [(2, 12.0), (2, 13.0)]), [came_back(true), repeat(true)]);
    }

    #[test]
    fn a_clock_that_went_back_does_not_lock_a_modem_out() {
        let mut acted = Attempts::default();
        attempts(&mut acted, (1..=4).map(|number| (number, 1000.0)));
        assert_eq!(attempts(&mut acted, [(5, 5.0)]), [FIRST]);
    }

    #[test]
    fn device_numbers_wrap_around() {
        let numbered = |number, enumeration| Identity { number: Some(number), enumeration, ..identity(STICK, "1", 0) };
        for (then, now, unused, elsewhere, is_back) in [
            (5, 6, 0, vec![], true),
            (5, 7, 0, vec![], false),
            (5, 8, 0, vec![6, 7], true),
            (5, 8, 0, vec![6], false),
            (5, 8, 1, vec![6], true),
            // The root hub has the number 1.
            (127, 2, 0, vec![], true),
            (127, 3, 0, vec![], false),
            (126, 4, 0, vec![3, 2, 127], true),
            (126, 4, 2, vec![3], true),
            (126, 4, 2, vec![], false),
        ] {
            let came_back = numbered(now, 2).came_back(&numbered(then, 1), unused, || elsewhere.clone());
            assert_eq!(came_back, is_back, "{then} {now} {unused} {elsewhere:?}");
        }
    }
}
