//! The result of a planned step, before it is recorded.

use crate::outcome::{Message, Outcome, StepResult};

/// How a step ended.
pub(crate) struct Conclusion {
    pub result: StepResult,
    pub message: Message,
    /// The modem may have a lock of another kind.
    pub may_be_another_lock: bool,
    /// The modem disconnected, so that nothing is known about its state.
    pub has_left: bool,
    /// The radio is known to be online.
    pub is_online: bool,
}

impl Conclusion {
    pub(crate) fn new(result: StepResult, message: impl Into<Message>) -> Conclusion {
        Conclusion { result, message: message.into(), may_be_another_lock: false, has_left: false, is_online: false }
    }
}

/// The most informative results of the procedures that were tried. Only one of the procedures can open the lock, and
/// one that got no answer says more than one that found no lock.
pub(crate) fn to_report(tried: Vec<Conclusion>) -> impl Iterator<Item = Conclusion> {
    let weight = |ended: &Conclusion| match ended.result {
        _ if !ended.may_be_another_lock => 4,
        StepResult::Unfinished => 3,
        StepResult::Suppressed => 2,
        StepResult::Failed => 1,
        _ => 0,
    };
    let most = tried.iter().map(weight).max();
    tried.into_iter().filter(move |ended| Some(weight(ended)) == most)
}

/// The result of an action. `successor` is the name of the process that continues if it is not finished.
pub(crate) fn conclude(outcome: Outcome, successor: Option<&str>) -> Conclusion {
    let may_be_another_lock =
        matches!(outcome, Outcome::NoLock(_) | Outcome::Failed(_) | Outcome::InUse(_) | Outcome::Unfinished(_));
    let has_left = outcome == Outcome::Left;
    let is_online = matches!(outcome, Outcome::Online { .. });
    let (result, message): (_, Message) = match outcome {
        Outcome::Done(text) | Outcome::StillOff(text) | Outcome::Online { text, unlocked: true } => {
            (StepResult::Done, text.into())
        }
        Outcome::Unchanged(text)
        | Outcome::NoLock(text)
        | Outcome::SwitchedOff(text)
        | Outcome::Online { text, unlocked: false } => (StepResult::Unchanged, text.into()),
        Outcome::Left => {
            (StepResult::Unchanged, "the modem disconnected; wwan-quirks handles it when it returns".into())
        }
        Outcome::InUse(failure) => (StepResult::Suppressed, failure.into()),
        Outcome::Busy(message) => (StepResult::Busy, message),
        Outcome::NotOff(failure) | Outcome::Failed(failure) => (StepResult::Failed, failure.into()),
        Outcome::Unfinished(failure) => match successor.map(str::to_owned) {
            None => (StepResult::Unfinished, failure.into()),
            successor => (StepResult::Unfinished, Message { text: failure.reason, remedy: None, successor }),
        },
    };
    Conclusion { may_be_another_lock, has_left, is_online, ..Conclusion::new(result, message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    #[test]
    fn a_modem_with_several_locks_has_one_clear_result() {
        let failure = || Failure::new("a", "b");
        let (no_lock, in_use) = (Outcome::NoLock(String::new()), Outcome::InUse(failure()));
        let (failed, unfinished) = (Outcome::Failed(failure()), Outcome::Unfinished(failure()));
        use StepResult::{Done, Failed, Suppressed, Unchanged, Unfinished};
        for (tried, reported) in [
            (vec![unfinished.clone(), Outcome::Done(String::new())], vec![Done]),
            (vec![in_use.clone(), Outcome::Left], vec![Unchanged]),
            (vec![in_use.clone(), Outcome::NotOff(failure())], vec![Failed]),
            (vec![unfinished, no_lock.clone()], vec![Unfinished]),
            (vec![in_use.clone(), no_lock.clone()], vec![Suppressed]),
            (vec![in_use, failed.clone()], vec![Suppressed]),
            (vec![failed.clone(), no_lock.clone()], vec![Failed]),
            (vec![failed.clone(), failed], vec![Failed, Failed]),
            (vec![no_lock], vec![Unchanged]),
        ] {
            let ended = tried.iter().map(|outcome| conclude(outcome.clone(), None)).collect();
            let found: Vec<StepResult> = to_report(ended).map(|ended| ended.result).collect();
            assert_eq!(found, reported, "{tried:?}");
        }
    }

    #[test]
    fn a_failure_keeps_its_remedy_apart() {
        let message = conclude(Outcome::Failed(Failure::new("no answer", "try again")), None).message;
        assert_eq!(message.to_string(), "no answer; try again");
        assert_eq!(
            message,
            Message { text: "no answer".to_owned(), remedy: Some("try again".to_owned()), successor: None }
        );
    }

    #[test]
    fn a_port_that_another_run_uses_is_busy_and_not_a_failure() {
        let ended = conclude(Outcome::Busy("another run".into()), None);
        assert_eq!((ended.result, ended.message.text.as_str()), (StepResult::Busy, "another run"));
    }

    #[test]
    fn the_state_keeps_what_is_known_of_the_modem() {
        let online = |unlocked| Outcome::Online { text: String::new(), unlocked };
        let of = |outcome| {
            let ended = conclude(outcome, None);
            (ended.has_left, ended.is_online)
        };
        assert_eq!(of(Outcome::Left), (true, false));
        assert_eq!((of(online(true)), of(online(false))), ((false, true), (false, true)));
        assert_eq!(of(Outcome::Done(String::new())), (false, false));
    }
}
