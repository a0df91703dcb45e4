//! Timers, with a clock that a test can replace.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A clock: `Instant::now`, or the clock of a test.
pub type Clock = fn() -> Instant;

/// Actions in the order of their due times. Actions with the same time are in the order in which they were set.
pub(crate) struct Timers<Action> {
    clock: Clock,
    actions: BTreeMap<(Instant, u64), Action>,
    count: u64,
}

impl<Action> Timers<Action> {
    pub(crate) fn new(clock: Clock) -> Timers<Action> {
        Timers { clock, actions: BTreeMap::new(), count: 0 }
    }

    pub(crate) fn after(&mut self, delay: Duration, action: Action) {
        self.count += 1;
        self.actions.insert(((self.clock)() + delay, self.count), action);
    }

    pub(crate) fn clear(&mut self) {
        self.actions.clear();
    }

    /// Takes one action that is due.
    pub(crate) fn pop_due(&mut self) -> Option<Action> {
        let (due, _) = *self.actions.first_key_value()?.0;
        (due <= (self.clock)()).then(|| self.actions.pop_first())?.map(|(_, action)| action)
    }

    /// Waits for an event until the first action is due.
    pub(crate) fn receive<Event>(&self, events: &Receiver<Event>) -> Result<Event, RecvTimeoutError> {
        match self.actions.first_key_value() {
            None => Ok(events.recv()?),
            Some(((due, _), _)) => events.recv_timeout(due.saturating_duration_since((self.clock)())),
        }
    }
}

/// A clock for tests. It stands still until the test advances it.
#[cfg(test)]
pub(crate) mod stopped {
    use super::{Duration, Instant};
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<Instant> = Cell::new(Instant::now());
    }

    pub(crate) fn now() -> Instant {
        NOW.get()
    }

    pub(crate) fn advance(time: Duration) {
        NOW.set(NOW.get() + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_come_in_order_and_not_before_their_time() {
        let mut timers = Timers::new(stopped::now);
        timers.after(Duration::from_millis(20), "late");
        timers.after(Duration::from_millis(10), "first");
        timers.after(Duration::from_millis(10), "second");
        assert_eq!(timers.pop_due(), None);
        stopped::advance(Duration::from_millis(19));
        assert_eq!([timers.pop_due(), timers.pop_due(), timers.pop_due()], [Some("first"), Some("second"), None]);
        stopped::advance(Duration::from_millis(1));
        assert_eq!(timers.pop_due(), Some("late"));
    }
}
