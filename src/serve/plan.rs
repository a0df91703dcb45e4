//! Decides what to do, from the snapshot of a modem, its quirk and the policy.
//!
//! Planning does no I/O, so `--dry-run`, `explain` and most tests need nothing else.

use std::fmt;
use std::time::Duration;

use crate::database::layers::Layer;
use serde::Serialize;

use crate::database::policy::Resolved;
use crate::database::quirks::huawei::Rewind;
use crate::database::quirks::switch::Op;
use crate::database::quirks::{Procedure, Quirk, Reset, Select, Step, Switch};
use crate::modem::device::ControlPort;
use crate::modem::device::descriptors::{CLASS_MASS_STORAGE, Configuration};
use crate::modem::transport::Protocol;
use crate::outcome::{Failure, StepKind};
use crate::serve::event::Scope;
use crate::serve::snapshot::Snapshot;
use crate::steps::fcc_auth;
use crate::steps::switch::Target;

/// An action on the modem.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Switch {
        switch: Switch,
        target: Target,
    },
    Configure {
        from: Option<u8>,
        to: u8,
        /// How long the modem stays unconfigured in between.
        unconfigured: Option<Duration>,
    },
    FccAuth {
        port: ControlPort,
        protocol: Protocol,
        procedure: Procedure,
        reset: Option<Reset>,
    },
}

impl Action {
    pub fn step(&self) -> StepKind {
        match self {
            Action::Switch { .. } => StepKind::Switch,
            Action::Configure { .. } => StepKind::Configuration,
            Action::FccAuth { .. } => StepKind::FccAuth,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Switch { switch, .. } => {
                let ops: Vec<String> = switch.ops().iter().map(ToString::to_string).collect();
                write!(f, "{switch}: {}", ops.join("; "))
            }
            Action::Configure { from, to, unconfigured } => {
                write!(f, "write {to} to bConfigurationValue instead of {}", name(*from))?;
                unconfigured
                    .map_or(Ok(()), |pause| write!(f, ", after {} s without a configuration", pause.as_secs_f64()))
            }
            Action::FccAuth { port, protocol, procedure, .. } => {
                write!(f, "{procedure} over {protocol} on /dev/{}, if the radio is in low power", port.name)
            }
        }
    }
}

/// One step of the quirk, as it applies to this modem now.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanStep {
    Run(Action),
    /// The modem is already in the wanted state, or the step does not apply to it.
    Satisfied {
        step: StepKind,
        reason: String,
    },
    /// The policy, or a program that uses the modem, keeps the step from running.
    Suppressed {
        step: StepKind,
        reason: String,
    },
    /// The modem lacks the port for the step.
    NoPort {
        step: StepKind,
        reason: String,
    },
    /// The kernel may not use the device.
    NotAuthorized {
        step: StepKind,
    },
    /// The step cannot be planned. The modem is not touched.
    Infeasible {
        step: StepKind,
        failure: Failure,
    },
}

/// The remedy for a device that the kernel may not use.
pub(crate) const AUTHORIZE: &str = "allow it (`usbguard list-devices`, then `usbguard allow-device NUMBER`; or write 1 to the file `authorized` of the device)";

impl PlanStep {
    pub fn step(&self) -> StepKind {
        match self {
            PlanStep::Run(action) => action.step(),
            PlanStep::Satisfied { step, .. }
            | PlanStep::Suppressed { step, .. }
            | PlanStep::NoPort { step, .. }
            | PlanStep::NotAuthorized { step }
            | PlanStep::Infeasible { step, .. } => *step,
        }
    }

    /// The step in words. With `verbose`, an unlock has its messages in hex; the text of a switch has them in any case.
    pub fn describe(&self, verbose: bool) -> PlanLine {
        let (decision, text) = match self {
            PlanStep::Run(action) => (Decision::Run, action.to_string()),
            PlanStep::Satisfied { reason, .. } => (Decision::Nothing, reason.clone()),
            PlanStep::Suppressed { reason, .. } | PlanStep::NoPort { reason, .. } => {
                (Decision::Suppressed, reason.clone())
            }
            PlanStep::NotAuthorized { .. } => (Decision::NotAuthorized, AUTHORIZE.to_owned()),
            PlanStep::Infeasible { failure, .. } => (Decision::NotPossible, failure.to_string()),
        };
        let messages = match self {
            PlanStep::Run(Action::FccAuth { protocol, procedure, .. }) if verbose => {
                fcc_auth::messages(procedure, *protocol)
            }
            _ => Vec::new(),
        };
        PlanLine { step: self.step(), decision, text, messages }
    }
}

/// A step of a plan, for people and for JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanLine {
    pub step: StepKind,
    pub decision: Decision,
    /// The action, or the reason for the decision.
    pub text: String,
    /// Each message in hex.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
}

impl PlanLine {
    /// The line, and one more for each message.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let messages = self.messages.iter().map(|message| format!("  {message}"));
        std::iter::once(self.to_string()).chain(messages)
    }
}

impl fmt::Display for PlanLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlanLine { step, decision, text, .. } = self;
        match decision {
            Decision::Run => write!(f, "{step}: {text}"),
            Decision::Nothing => write!(f, "{step}: nothing to do: {text}"),
            Decision::Suppressed => write!(f, "{step}: suppressed: {text}"),
            Decision::NotAuthorized => write!(f, "{step}: not authorized; {text}"),
            Decision::NotPossible => write!(f, "{step}: not possible: {text}"),
            Decision::WhenPluggedIn => write!(f, "{step}={text}, when the device is plugged in"),
        }
    }
}

/// Whether a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    Run,
    Nothing,
    Suppressed,
    NotAuthorized,
    NotPossible,
    /// The device is not plugged in, so that its state is not known.
    WhenPluggedIn,
}

/// Plans the steps of the quirk in this scope, in order.
pub(crate) fn plan(scope: &Scope, snapshot: &Snapshot, quirk: &Quirk, policy: &Resolved) -> Vec<PlanStep> {
    let mut planned = Vec::new();
    for step in &quirk.steps {
        match (step, scope) {
            (Step::Switch(_) | Step::Configuration { .. }, Scope::Port(_) | Scope::Unlock)
            | (Step::FccAuth(_), Scope::Device) => {}
            (Step::Switch(switch), _) => planned.push(plan_switch(switch, snapshot, policy)),
            (Step::Configuration { select, unconfigured }, _) => {
                planned.push(plan_configuration(&candidates(*select, quirk, policy), *unconfigured, snapshot));
            }
            // A new configuration creates new ports, and these have events of their own.
            (Step::FccAuth(_), _) if planned.iter().any(|planned| runs(planned, |step| step != StepKind::FccAuth)) => {}
            (Step::FccAuth(procedure), _) => planned.extend(plan_unlock(procedure, scope, snapshot, quirk, policy)),
        }
    }
    // One port for one of several procedures is enough. If there is none, report that once.
    if planned.iter().any(|planned| runs(planned, |step| step == StepKind::FccAuth)) {
        planned.retain(|planned| !matches!(planned, PlanStep::NoPort { .. }));
    }
    planned.dedup();
    if !snapshot.authorized {
        for planned in &mut planned {
            if matches!(planned, PlanStep::Run(_) | PlanStep::Infeasible { .. } | PlanStep::Satisfied { .. }) {
                *planned = PlanStep::NotAuthorized { step: planned.step() };
            }
        }
        // An unauthorized device is not configured: report that once.
        planned.dedup_by_key(|planned| matches!(planned, PlanStep::NotAuthorized { .. }));
    }
    planned
}

fn plan_switch(switch: &Switch, snapshot: &Snapshot, policy: &Resolved) -> PlanStep {
    let step = StepKind::Switch;
    if !policy.switch.value {
        return suppressed(step, format!("`switch = false` in {}", policy.switch.origin));
    }
    let huawei = &policy.huawei;
    let chosen = match huawei.value.method() {
        Some(method) if Rewind::of(switch).is_some() => match switch.with_method(method) {
            Ok(switch) => Some(switch),
            Err(error) => return infeasible(step, &error, "report a bug"),
        },
        Some(_) if huawei.origin.is_device() => {
            let reason = format!(
                "`huawei = \"{}\"` in {}: this setting is only for devices that accept Huawei's command",
                huawei.value, huawei.origin
            );
            return infeasible(step, &reason, "remove `huawei` from the `[[device]]` of this modem");
        }
        _ => None,
    };
    let prefers_configuration = chosen.is_none();
    let switch = chosen.as_ref().unwrap_or(switch);
    if !switch.needs_interfaces() {
        return PlanStep::Run(Action::Switch { switch: switch.clone(), target: Target::default() });
    }
    let configurations = match &snapshot.descriptors {
        Some(Ok(descriptors)) => &descriptors.configurations,
        Some(Err(why)) => {
            return infeasible(
                step,
                why,
                "plug the device in again; if that does not help, report a bug with the output of `wwan-quirks report`",
            );
        }
        None => return satisfied(step, "the interfaces of the device are unknown"),
    };
    let first = configurations.first().and_then(|configuration| configuration.interfaces.first());
    if let Some(class) = first.map(|first| first.class).filter(|class| switch.target_class == Some(*class)) {
        return satisfied(step, &format!("the device has already switched: its first interface has class {class:02x}"));
    }
    let ops = switch.ops();
    let wanted = ops.iter().rev().find_map(|op| if let Op::SetConfiguration(value) = op { Some(*value) } else { None });
    if wanted.is_some() && wanted == snapshot.configuration {
        return satisfied(step, &format!("configuration {} is active", name(wanted)));
    }
    let active = match (configurations.as_slice(), snapshot.configuration) {
        ([only], _) => Some(only),
        (several, active) => several.iter().find(|configuration| Some(configuration.value) == active),
    };
    let interfaces = active.map(|active| active.interfaces.as_slice()).unwrap_or_default();
    // A configuration that offers the preferred function makes a switch needless.
    let function = policy.prefer.value.function().filter(|_| prefers_configuration && configurations.len() > 1);
    let offers = |configuration: &Configuration| {
        function.is_some_and(|function| configuration.functions(&snapshot.qmi).contains(&function))
    };
    if let Some(active) = active.filter(|configuration| offers(configuration)) {
        return configure(active.value, None, snapshot);
    }
    let spoken_to = match switch.interface {
        Some(number) => interfaces.iter().find(|interface| interface.number == number),
        None => interfaces.first(),
    };
    let Some(interface) = spoken_to else {
        return satisfied(step, "the device lacks the interface that the switch uses");
    };
    if ops.iter().any(Op::is_cbw) && interface.class != CLASS_MASS_STORAGE {
        // A phone, or a device with the same ID in modem mode: it must not get SCSI commands.
        return satisfied(step, &format!("interface {} is not mass storage", interface.number));
    }
    if let Some(wanted) = switch.interface_class.filter(|wanted| *wanted != interface.class) {
        return satisfied(step, &format!("interface {} is not of class {wanted:02x}", interface.number));
    }
    if let Some(to) = configurations.iter().find(|configuration| offers(configuration)) {
        return configure(to.value, None, snapshot);
    }
    let bulk = |is_in| interface.endpoints.iter().find(|e| e.is_bulk() && e.is_in() == is_in).map(|e| e.address);
    let mut numbers: Vec<u8> = interfaces.iter().map(|interface| interface.number).collect();
    numbers.dedup();
    let target = Target {
        interface: interface.number,
        out: switch.out.or_else(|| bulk(false)),
        r#in: switch.r#in.or_else(|| bulk(true)),
        interfaces: numbers,
    };
    // Only a CBW has an answer. Some devices take other messages on an OUT endpoint without an IN endpoint.
    if (target.out.is_none() && ops.iter().any(|op| matches!(op, Op::Bulk(_))))
        || (target.r#in.is_none() && ops.iter().any(Op::is_cbw))
    {
        return infeasible(
            step,
            "the interface lacks the bulk endpoints that the switch needs",
            "report a bug with the output of `wwan-quirks report`",
        );
    }
    PlanStep::Run(Action::Switch { switch: switch.clone(), target })
}

fn plan_configuration(candidates: &[Select], unconfigured: Option<Duration>, snapshot: &Snapshot) -> PlanStep {
    let step = StepKind::Configuration;
    let descriptors = match &snapshot.descriptors {
        Some(Ok(descriptors)) => descriptors,
        Some(Err(why)) => {
            return infeasible(
                step,
                why,
                "plug the modem in again; if that does not help, report a bug with the output of `wwan-quirks report`",
            );
        }
        None => return satisfied(step, "the configurations of the modem are unknown"),
    };
    let configurations = &descriptors.configurations;
    if configurations.len() < 2 {
        return satisfied(step, "the modem has only one configuration");
    }
    let wanted = candidates.iter().find_map(|select| match *select {
        Select::Preferred | Select::Keep => None,
        Select::Value(value) => configurations.iter().find(|configuration| configuration.value == value),
        Select::Function(function) => {
            configurations.iter().find(|configuration| configuration.functions(&snapshot.qmi).contains(&function))
        }
    });
    // A run that was killed halfway left the modem unconfigured.
    let cut_short = snapshot.configuration.is_none() && unconfigured.is_some();
    let wanted = wanted.or(configurations.first().filter(|_| cut_short));
    match wanted.map(|configuration| configuration.value) {
        None => {
            satisfied(step, &format!("the kernel's choice, configuration {}, is kept", name(snapshot.configuration)))
        }
        Some(to) => configure(to, unconfigured, snapshot),
    }
}

/// Makes configuration `to` the active one.
fn configure(to: u8, unconfigured: Option<Duration>, snapshot: &Snapshot) -> PlanStep {
    let step = StepKind::Configuration;
    match (to, snapshot.configuration) {
        (to, Some(active)) if to == active => satisfied(step, &format!("configuration {to} is active")),
        // To the kernel, 0 means "unconfigured": it cannot set a configuration with that number.
        (0, _) => satisfied(step, "the wanted configuration has the number 0, which cannot be set"),
        (to, from) => match &snapshot.used_by {
            Some(user) if from.is_some() => suppressed(
                step,
                format!("the modem is in use: {user}; `wwan-quirks apply DEVICE` sets configuration {to}"),
            ),
            _ => PlanStep::Run(Action::Configure { from, to, unconfigured }),
        },
    }
}

/// In order of precedence: the administrator's preference, the quirk, the shipped default. If the modem does not offer
/// the function that the administrator prefers, the quirk applies. The number of a shipped quirk does not state a
/// function: it applies to a modem that does not offer the preferred one.
fn candidates(select: Select, quirk: &Quirk, policy: &Resolved) -> Vec<Select> {
    let preferred = policy.prefer.value.function().map_or(Select::Keep, Select::Function);
    match (policy.prefer.origin.is_administrator(), preferred, select) {
        (true, Select::Keep, _) | (_, _, Select::Preferred) => vec![preferred],
        (true, _, _) => vec![preferred, select],
        (false, _, Select::Value(_)) if quirk.location.layer == Layer::Shipped => vec![preferred, select],
        (false, _, _) => vec![select],
    }
}

fn plan_unlock(
    procedure: &Procedure,
    scope: &Scope,
    snapshot: &Snapshot,
    quirk: &Quirk,
    policy: &Resolved,
) -> Vec<PlanStep> {
    let step = StepKind::FccAuth;
    if !policy.fcc_auth.value {
        return vec![suppressed(step, format!("`fcc-auth = false` in {}", policy.fcc_auth.origin))];
    }
    let is_meant = |port: &ControlPort| match scope {
        Scope::Port(name) => port.name == *name,
        Scope::Device | Scope::All | Scope::Unlock => true,
    };
    let concerned = snapshot.ports.iter().filter(|port| is_meant(port));
    if matches!(scope, Scope::Port(_)) && concerned.clone().next().is_none() {
        // This port of the modem does not carry the unlock.
        return Vec::new();
    }
    // A port whose protocol is unknown is left alone.
    let ports = concerned.filter_map(|port| {
        let protocol = Protocol::of_port(port)?;
        procedure.protocols().contains(&protocol).then_some(())?;
        Some(PlanStep::Run(Action::FccAuth {
            port: port.clone(),
            protocol,
            procedure: procedure.clone(),
            reset: quirk.online_after_reset,
        }))
    });
    // One port is enough: the lock belongs to the modem, not to the port.
    let first: Vec<PlanStep> = ports.take(1).collect();
    if first.is_empty() {
        let why = match procedure.interface() {
            _ if quirk.is_pci() => {
                let wanted = procedure.wwan_protocol().map_or("usable", Protocol::wwan_type);
                format!("the modem has no {wanted} port (see `wwan-quirks doctor`)")
            }
            Some(interface) => {
                format!("interface {interface} has no tty (the option driver of a newer kernel may create it)")
            }
            None => "the modem has no QMI or MBIM port".to_owned(),
        };
        return vec![PlanStep::NoPort { step, reason: why }];
    }
    first
}

fn runs(planned: &PlanStep, is_meant: impl Fn(StepKind) -> bool) -> bool {
    matches!(planned, PlanStep::Run(action) if is_meant(action.step()))
}

fn satisfied(step: StepKind, reason: &str) -> PlanStep {
    PlanStep::Satisfied { step, reason: reason.to_owned() }
}

fn suppressed(step: StepKind, reason: String) -> PlanStep {
    PlanStep::Suppressed { step, reason }
}

fn infeasible(step: StepKind, reason: &str, remedy: &str) -> PlanStep {
    PlanStep::Infeasible { step, failure: Failure::new(reason, remedy) }
}

fn name(configuration: Option<u8>) -> String {
    configuration.map_or("none".to_owned(), |value| value.to_string())
}
