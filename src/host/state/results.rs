//! The results that `status` shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::attempts::WINDOW;
use crate::bus::DeviceId;
use crate::host::clock::{awake, now, seconds, since_the_epoch};
use crate::outcome::{Message, StepKind, StepResult};

/// The last result of a step. The state file has times that do not change when the wall clock is set: many machines set
/// it only after their modem is online.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastResult {
    /// Seconds since boot, including suspend. After [`Results::dated`], seconds since the epoch.
    pub at: u64,
    /// Like `at`, but without suspend, like the time that the kernel counts for a device. Not part of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) awake: Option<i64>,
    #[serde(rename = "outcome")]
    pub result: StepResult,
    #[serde(flatten)]
    pub message: Message,
    /// The device that the step acted on. A switch changes this ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DeviceId>,
    /// When a later run found the modem still in the state of this result, on the clock of `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) confirmed: Option<u64>,
}

impl LastResult {
    /// Whether a device that was connected at `connected` may have been connected by this step: at most a minute later.
    pub(crate) fn may_have_connected(&self, connected: i64) -> bool {
        self.awake.is_some_and(|at| connected.saturating_sub(at) <= seconds(WINDOW))
    }

    fn date(&mut self) {
        for time in [Some(&mut self.at), self.confirmed.as_mut()].into_iter().flatten() {
            *time = since_the_epoch().saturating_sub(now().as_secs().saturating_sub(*time));
        }
        self.awake = None;
    }
}

/// What a run found out about the radio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Radio {
    #[serde(flatten)]
    pub last: LastResult,
    /// Whether the radio was online.
    #[serde(default)]
    pub online: bool,
}

/// The results that `status` shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// The enumeration that the results concern.
    enumeration: Option<u64>,
    pub last: BTreeMap<StepKind, LastResult>,
    /// What the last run that reached the modem found out about the radio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub radio: Option<Radio>,
}

impl Results {
    /// Drops what concerns earlier devices on the port. `enumeration` and `id` are those of the present one, which was
    /// connected at `connected`, on the clock of [`awake`]. Keeps the results of the last minute before that: the step
    /// may have made this device come back, a switch or a composition even with another ID.
    pub(crate) fn drop_earlier(&mut self, enumeration: u64, id: DeviceId, connected: i64) {
        if self.enumeration.replace(enumeration) == Some(enumeration) {
            return;
        }
        self.radio = None;
        self.last.retain(|step, last| {
            let changes_id = matches!(step, StepKind::Switch | StepKind::Composition);
            last.may_have_connected(connected) && (changes_id || last.id == Some(id))
        });
    }

    /// Records the result of `step` on the device `id`. A result "nothing to do" confirms an earlier result, and does
    /// not replace it. `is_online`: the step found the radio online.
    pub fn record(
        &mut self,
        step: StepKind,
        id: DeviceId,
        result: StepResult,
        message: impl Into<Message>,
        is_online: bool,
    ) {
        let at = now().as_secs();
        let last =
            LastResult { at, awake: Some(awake()), result, message: message.into(), id: Some(id), confirmed: None };
        // A suppressed step did not reach the modem. After a failure, the radio may have another state than before.
        if step == StepKind::FccAuth && result != StepResult::Suppressed {
            self.radio = result.is_success().then(|| Radio { last: last.clone(), online: is_online });
        }
        match self.last.get_mut(&step) {
            Some(earlier) if result == StepResult::Unchanged && earlier.result == StepResult::Done => {
                earlier.confirmed = Some(at);
            }
            _ => {
                self.last.insert(step, last);
            }
        }
    }

    /// These results with the times of the wall clock, for output.
    pub(crate) fn dated(mut self) -> Results {
        self.last.values_mut().chain(self.radio.as_mut().map(|radio| &mut radio.last)).for_each(LastResult::date);
        self
    }

    pub(crate) fn has_failed(&self, step: StepKind) -> bool {
        self.last.get(&step).is_some_and(|last| last.result == StepResult::Failed)
    }

    /// Whether a step waits for the authorization of the device.
    pub(crate) fn is_blocked(&self) -> bool {
        self.last.values().any(|last| last.result == StepResult::NotAuthorized)
    }

    /// Records that the device of the last switch came back as another device. `left` describes that. Returns the
    /// result to report: `Done` if the run that sent the message had ended before the device left.
    pub(crate) fn came_back(&mut self, left: &str) -> StepResult {
        let Some(switch) = self.last.get_mut(&StepKind::Switch) else { return StepResult::Done };
        switch.confirmed = Some(now().as_secs());
        if switch.result == StepResult::Done {
            return StepResult::Unchanged;
        }
        switch.result = StepResult::Done;
        switch.message = left.into();
        StepResult::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;

    #[test]
    fn a_device_that_leaves_late_was_switched() {
        let id = DeviceId { bus: Bus::Usb, vendor: 0x1199, product: 0x0fff };
        let mut results = Results::default();
        results.record(StepKind::Switch, id, StepResult::Unfinished, "the device accepted the message", false);
        assert_eq!(
            [results.came_back("it left"), results.came_back("it left")],
            [StepResult::Done, StepResult::Unchanged]
        );
        let last = &results.last[&StepKind::Switch];
        assert_eq!((last.result, last.message.text.as_str()), (StepResult::Done, "it left"));
        assert_eq!(last.id, Some(id));
        assert!(last.confirmed.is_some());
    }

    #[test]
    fn a_result_without_work_does_not_hide_what_was_done() {
        let (mut results, id) = (Results::default(), "1199:68a2".parse().unwrap());
        results.record(StepKind::FccAuth, id, StepResult::Done, "unlocked", false);
        results.record(StepKind::FccAuth, id, StepResult::Unchanged, "the radio is already online", true);
        let last = &results.last[&StepKind::FccAuth];
        assert_eq!((last.result, last.message.text.as_str()), (StepResult::Done, "unlocked"));
        assert!(last.confirmed.is_some());
        let online =
            |results: &Results| results.radio.as_ref().map(|radio| (radio.last.message.text.clone(), radio.online));
        let found = Some(("the radio is already online".to_owned(), true));
        assert_eq!(online(&results), found);
        results.record(StepKind::FccAuth, id, StepResult::Suppressed, "held", false);
        assert_eq!(online(&results), found);
        results.record(StepKind::FccAuth, id, StepResult::Failed, "no", false);
        assert_eq!(results.last[&StepKind::FccAuth].result, StepResult::Failed);
        assert_eq!(online(&results), None);
    }

    #[test]
    fn the_output_has_the_time_of_the_wall_clock() {
        let mut results = Results::default();
        results.record(StepKind::FccAuth, "1199:68a2".parse().unwrap(), StepResult::Done, "unlocked", true);
        let is_now = |at: u64| since_the_epoch().abs_diff(at) < 60;
        let last = |results: &Results| results.last[&StepKind::FccAuth].clone();
        assert!(last(&results).awake.is_some() && last(&results).at <= now().as_secs(), "{results:?}");
        let dated = results.dated();
        let radio = dated.radio.as_ref().map(|radio| radio.last.at);
        assert!(last(&dated).awake.is_none() && is_now(last(&dated).at) && radio.is_some_and(is_now), "{dated:?}");
    }

    #[test]
    fn another_device_on_the_port_starts_without_results() {
        let [stick, modem, other]: [DeviceId; 3] =
            ["1199:0fff", "1199:68a2", "2c7c:0125"].map(|id| id.parse().unwrap());
        let steps = |results: &Results| results.last.keys().copied().collect::<Vec<StepKind>>();
        let (mut results, now) = (Results::default(), awake());
        results.drop_earlier(1, stick, now);
        results.record(StepKind::Switch, stick, StepResult::Done, "left", false);
        // The stick comes back as a modem. A later run on this modem drops nothing.
        results.drop_earlier(2, modem, now + 5);
        for step in [StepKind::Configuration, StepKind::FccAuth] {
            results.record(step, modem, StepResult::Done, "done", true);
        }
        let all = [StepKind::Switch, StepKind::Configuration, StepKind::FccAuth];
        results.drop_earlier(2, modem, now + 5);
        assert!(steps(&results) == all && results.radio.is_some(), "{results:?}");
        // The modem restarts, is plugged in much later, or is replaced.
        for (id, connected, kept) in [
            (modem, now + 10, &all[..]),
            (modem, now + 3600, &[]),
            (other, now + 10, &[StepKind::Switch]),
            (other, now + 3600, &[]),
        ] {
            let mut results = results.clone();
            results.drop_earlier(3, id, connected);
            assert!(steps(&results) == kept && results.radio.is_none(), "{id} {connected}: {results:?}");
        }
    }
}
