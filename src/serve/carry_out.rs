//! Carries out a plan while the port is locked, and reports each step.

use crate::host::deadline::Deadline;
use crate::host::sys;
use crate::modem::access;
use crate::modem::device::DeviceError;
use crate::outcome::{StepKind, StepResult};
use crate::serve::conclusion::{Conclusion, conclude, to_report};
use crate::serve::event::Scope;
use crate::serve::execute::execute;
use crate::serve::guard::Verdict;
use crate::serve::locked_run::{Configuration, LockedRun};
use crate::serve::lookup::MatchedDevice;
use crate::serve::plan::{AUTHORIZE, Action, PlanStep};
use crate::serve::run::Run;
use crate::serve::trigger::Trigger;

impl LockedRun<'_, '_> {
    /// Carries out the steps in order, and reports each. A plan either unlocks or has other actions.
    pub(super) fn carry_out(&mut self, plan: Vec<PlanStep>) {
        let is_unlock = |step: &PlanStep| matches!(step, PlanStep::Run(Action::FccAuth { .. }));
        let (unlocks, others): (Vec<_>, Vec<_>) = plan.into_iter().partition(is_unlock);
        for step in others {
            let kind = step.kind();
            if let Some(ended) = self.carry_out_step(step, self.run.deadline) {
                self.recorder.report(Some(&mut self.state), kind, ended);
            }
        }
        for ended in to_report(self.unlock(unlocks)) {
            self.recorder.report(Some(&mut self.state), StepKind::FccAuth, ended);
        }
    }

    /// Plans the unlock and carries it out, if it must follow a configuration in this run.
    pub(super) fn unlock_after_configuration(&mut self, matched: &MatchedDevice) -> Result<(), DeviceError> {
        let (Some(configuration), Scope::All) = (self.configuration, self.run.scope) else { return Ok(()) };
        self.run.scope = &Scope::Unlock;
        match (self.run.plan(matched), configuration) {
            (Ok(mut plan), Configuration::New) => {
                plan.retain(|step| matches!(step, PlanStep::Run(_)));
                self.carry_out(plan);
            }
            // The new ports have events of their own.
            (Err(error), Configuration::New) => log::debug!("{}: {error}", self.run.device.port),
            (plan, Configuration::Kept) => self.carry_out(plan?),
        }
        Ok(())
    }

    /// Tries the procedures in turn, until one finds its lock. Returns the results of those that were tried.
    fn unlock(&mut self, mut procedures: Vec<PlanStep>) -> Vec<Conclusion> {
        let mut tried = Vec::new();
        if self.is_unlocked() {
            return tried;
        }
        // The run waits until a port is free. Another procedure may have a free port.
        if self.run.trigger.waits_for_port() && procedures.len() > 1 {
            procedures.sort_by_cached_key(|step| self.is_held(step));
        }
        // Divide the remaining time equally among the remaining procedures.
        let remaining = (1..=procedures.len()).rev();
        for (step, remaining) in procedures.into_iter().zip(remaining) {
            let Some(ended) = self.carry_out_step(step, self.run.deadline.share(remaining)) else { continue };
            // After a stop signal, no other procedure starts.
            let is_last = !ended.may_be_another_lock || sys::stop_requests() > 0;
            tried.push(ended);
            if is_last {
                break;
            }
        }
        tried
    }

    fn is_held(&self, step: &PlanStep) -> bool {
        matches!(step, PlanStep::Run(Action::FccAuth { port, .. }) if access::is_held(self.run.root, port))
    }

    /// Whether this is a new port of a modem that has already been unlocked over another port.
    fn is_unlocked(&mut self) -> bool {
        let is_new_port = self.run.trigger == Trigger::Uevent && self.quirk.procedures().count() > 1;
        is_new_port && self.state.memory().unlocked == Some(self.identity.enumeration)
    }

    /// Carries out one step. `None` if this device was already reported.
    fn carry_out_step(&mut self, step: PlanStep, deadline: Deadline) -> Option<Conclusion> {
        Some(match step {
            PlanStep::Satisfied { kind, reason } => {
                self.state.memory().attempts.clear(kind);
                Conclusion::new(StepResult::Unchanged, reason)
            }
            PlanStep::NoPort(failure) if !self.run.trigger.is_named() => {
                Conclusion::new(StepResult::Suppressed, failure)
            }
            PlanStep::Suppressed { reason, .. } => Conclusion::new(StepResult::Suppressed, reason),
            PlanStep::NotAuthorized { .. } => Conclusion::new(StepResult::NotAuthorized, AUTHORIZE.to_owned()),
            PlanStep::Infeasible { failure, .. } | PlanStep::NoPort(failure) => {
                Conclusion::new(StepResult::Failed, failure)
            }
            PlanStep::Run(action) => return self.act(&action, deadline),
        })
    }

    /// Carries out one action, if the guard allows it.
    fn act(&mut self, action: &Action, deadline: Deadline) -> Option<Conclusion> {
        let ended = match self.judge(action, deadline) {
            Verdict::Act { returned } => {
                let outcome = execute(Run { deadline, ..self.run }, action, returned, &mut self.state);
                Some(conclude(outcome, self.successor))
            }
            Verdict::Leave(ended) => Some(ended),
            Verdict::Reported => None,
        };
        let result = ended.as_ref().map(|ended| ended.result);
        if action.kind() == StepKind::Configuration {
            self.configuration = match result {
                None | Some(StepResult::LeftAlone) => Some(Configuration::Kept),
                Some(StepResult::Done) if self.run.trigger == Trigger::Unit => Some(Configuration::New),
                _ => self.configuration,
            };
        }
        // A switch has no child.
        self.has_child |= action.kind() != StepKind::Switch && result == Some(StepResult::Unfinished);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::layers::Layer;
    use crate::database::quirks::{Procedure, Quirk};
    use crate::host::deadline::clock::StoppedClock;
    use crate::host::journal::Journal;
    use crate::host::root::tests::TempRoot;
    use crate::host::state::{Identity, PortState};
    use crate::modem::device::{ControlPort, Device, DeviceNumber};
    use crate::modem::transport::Protocol;
    use crate::serve::plan::tests::quirk;
    use crate::serve::record::Recorder;

    fn locked<'a, 'r>(run: Run<'a>, quirk: &'a Quirk, recorder: &'a mut Recorder<'r>) -> LockedRun<'a, 'r> {
        LockedRun {
            run,
            quirk,
            identity: Identity { id: run.device.id, serial: None, enumeration: 7, number: None },
            state: PortState::in_memory(&run.device.port),
            recorder,
            successor: None,
            configuration: None,
            has_child: false,
        }
    }

    #[test]
    fn only_a_new_port_of_a_modem_with_several_locks_counts_as_unlocked() {
        let (root, device) = Device::that_left("unlocked", "1199", "9041");
        let (one, two) = ("{ fcc-auth = \"sierra\" }", "{ fcc-auth = \"sierra\" }, { fcc-auth = \"quectel\" }");
        for (trigger, steps, unlocked, tried) in [
            (Trigger::Uevent, two, Some(7), 0),
            (Trigger::Uevent, two, Some(6), 1),
            (Trigger::Uevent, two, None, 1),
            (Trigger::Uevent, one, Some(7), 1),
            (Trigger::Named, two, Some(7), 1),
        ] {
            let journal = Journal::open(&root);
            let mut recorder = Recorder::new(&journal, &device, "A", trigger);
            let (scope, deadline) = (Scope::Unlock, Deadline::after(std::time::Duration::from_secs(60)));
            let quirk = quirk(Layer::Shipped, steps);
            let run = Run { root: &root, device: &device, scope: &scope, trigger, deadline };
            let mut locked = locked(run, &quirk, &mut recorder);
            locked.state.memory().unlocked = unlocked;
            let suppressed = PlanStep::Suppressed { kind: StepKind::FccAuth, reason: String::new() };
            assert_eq!(locked.unlock(vec![suppressed]).len(), tried, "{trigger:?} {steps} {unlocked:?}");
        }
    }

    #[test]
    fn a_procedure_whose_port_is_held_does_not_delay_the_others() {
        let root = TempRoot::new("held");
        let device = Device::on_port(&root, "1199", "9041");
        // Another program holds the first port, whose number is that of /dev/null.
        std::fs::create_dir_all(root.at("/proc/90/fd")).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.at("/proc/90/fd/3")).unwrap();
        let steps = [("cdc-wdm0", 3), ("cdc-wdm1", 9999)].map(|(name, minor)| {
            let number = DeviceNumber { major: 1, minor };
            let port = ControlPort { name: name.to_owned(), driver: None, wwan_type: None, number };
            let (protocol, procedure) = (Protocol::Mbim, Procedure::Quectel);
            PlanStep::Run(Action::FccAuth { port, protocol, procedure, reset: None })
        });
        let quirk = quirk(Layer::Shipped, "{ fcc-auth = \"quectel\" }");
        for (trigger, results) in [
            // The second port has left, which ends the run.
            (Trigger::Unit, &[StepResult::Unchanged][..]),
            (Trigger::Named, &[StepResult::Failed, StepResult::Unchanged]),
        ] {
            let _clock = StoppedClock::stop();
            let journal = Journal::open(&root);
            let mut recorder = Recorder::new(&journal, &device, "A", trigger);
            let (scope, deadline) = (Scope::Unlock, Deadline::after(std::time::Duration::from_secs(60)));
            let run = Run { root: &root, device: &device, scope: &scope, trigger, deadline };
            let mut locked = locked(run, &quirk, &mut recorder);
            let tried: Vec<_> = locked.unlock(steps.to_vec()).into_iter().map(|ended| ended.result).collect();
            assert_eq!(tried, results, "{trigger:?}");
        }
    }
}
