//! Time budgets. Every wait takes a [`Deadline`], and all deadlines of a run come from one budget.

use std::time::{Duration, Instant};

/// A point in time on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(budget: Duration) -> Deadline {
        Deadline(now() + budget)
    }

    /// This deadline plus `budget`.
    pub(crate) fn plus(self, budget: Duration) -> Deadline {
        Deadline(self.0 + budget)
    }

    /// This deadline minus `reserve`, which remains for cleanup.
    pub(crate) fn minus(self, reserve: Duration) -> Deadline {
        self.0.checked_sub(reserve).map_or(self, Deadline)
    }

    /// The earlier of this deadline and `budget` from now.
    pub(crate) fn at_most(self, budget: Duration) -> Deadline {
        self.min(Deadline::after(budget))
    }

    /// The end of the first of `parts` equal parts of the time left.
    pub(crate) fn share(self, parts: usize) -> Deadline {
        let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
        self.at_most(self.remaining() / parts)
    }

    /// The time left. Zero after the deadline.
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Sleeps for `pause`, but not beyond this deadline.
    pub(crate) fn sleep(self, pause: Duration) {
        wait(pause.min(self.remaining()));
    }
}

#[cfg(not(test))]
use std::thread::sleep as wait;

#[cfg(not(test))]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
use clock::{now, wait};

/// A clock for unit tests. Once a test has stopped it, time passes only in [`wait`]: no test sleeps or depends on the
/// speed of the machine.
#[cfg(test)]
pub(crate) mod clock {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use super::Deadline;

    /// Enough time for something that happens at once.
    pub(crate) fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    thread_local! {
        /// The time on this thread's stopped clock.
        static STOPPED_AT: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// Keeps this thread's clock stopped until it is dropped. Stops can be nested: the clock runs again when the first
    /// one is dropped.
    pub(crate) struct StoppedClock {
        began: Instant,
        is_first: bool,
    }

    impl StoppedClock {
        pub(crate) fn stop() -> StoppedClock {
            let (began, is_first) = (now(), STOPPED_AT.get().is_none());
            STOPPED_AT.set(Some(began));
            StoppedClock { began, is_first }
        }

        /// The time that has passed since the clock was stopped.
        pub(crate) fn elapsed(&self) -> Duration {
            now() - self.began
        }
    }

    impl Drop for StoppedClock {
        fn drop(&mut self) {
            if self.is_first {
                STOPPED_AT.set(None);
            }
        }
    }

    pub(crate) fn now() -> Instant {
        STOPPED_AT.get().unwrap_or_else(Instant::now)
    }

    /// Lets `time` pass. On a stopped clock, this returns at once.
    pub(crate) fn wait(time: Duration) {
        match STOPPED_AT.get() {
            Some(stopped) => STOPPED_AT.set(Some(stopped + time)),
            None => std::thread::sleep(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_shortened_and_extended() {
        let clock = clock::StoppedClock::stop();
        let second = Duration::from_secs(1);
        let deadline = Deadline::after(3 * second);
        assert_eq!(deadline.minus(second).remaining(), 2 * second);
        assert_eq!(deadline.plus(second).remaining(), 4 * second);
        assert_eq!(deadline.at_most(second).remaining(), second);
        assert_eq!([1, 2, 0].map(|parts| deadline.share(parts).remaining()), [3 * second, 3 * second / 2, 3 * second]);
        clock::wait(2 * second);
        assert_eq!(deadline.at_most(2 * second).remaining(), second);
        assert!(!deadline.has_passed() && deadline.minus(second).has_passed());
        deadline.sleep(second / 2);
        assert_eq!(deadline.remaining(), second / 2);
        deadline.sleep(second);
        assert!(deadline.has_passed() && !deadline.plus(second / 2).has_passed());
        clock::wait(second);
        assert_eq!((deadline.remaining(), clock.elapsed()), (Duration::ZERO, 4 * second));
        assert_eq!(deadline.share(2), deadline);
    }
}
