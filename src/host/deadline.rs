//! Time budgets: every wait takes a [`Deadline`], and all deadlines of a run come from one.

use std::time::{Duration, Instant};

/// A moment on the monotonic clock by which something must have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(budget: Duration) -> Deadline {
        Deadline(Instant::now() + budget)
    }

    /// This deadline and `budget` more.
    pub fn plus(self, budget: Duration) -> Deadline {
        Deadline(self.0 + budget)
    }

    /// The time left, zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of this deadline and `budget` from now: a share of what is left.
    pub fn within(self, budget: Duration) -> Deadline {
        self.min(Deadline::after(budget))
    }

    /// This deadline less `share`, which is kept back for putting things in order afterwards.
    pub fn keeping(self, share: Duration) -> Deadline {
        self.0.checked_sub(share).map_or(self, Deadline)
    }
}
