//! Decides what to do, from the snapshot of a modem, its quirk and the policy.
//!
//! Planning does no I/O, so `--dry-run`, `explain` and most tests need nothing else.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::bus::{DeviceId, Port};
use crate::database::layers::Layer;
use crate::database::policy::{Resolved, Setting};
use crate::database::quirks::huawei::Rewind;
use crate::database::quirks::switch::Op;
use crate::database::quirks::{NeededReset, Procedure, Quirk, Select, Step, Switch};
use crate::modem::device::ControlPort;
use crate::modem::device::descriptors::{CLASS_MASS_STORAGE, Configuration, Interface};
use crate::modem::transport::Protocol;
use crate::outcome::{Failure, StepKind};
use crate::serve::event::Scope;
use crate::serve::snapshot::Snapshot;
use crate::usb::{Function, TransferTarget, configuration_name};

/// An action on the modem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Switch {
        switch: Switch,
        target: TransferTarget,
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
        reset: Option<NeededReset>,
    },
}

impl Action {
    pub(crate) fn kind(&self) -> StepKind {
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
                write!(f, "write {to} to bConfigurationValue instead of {}", configuration_name(*from))?;
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
pub(crate) enum PlanStep {
    Run(Action),
    /// The modem is already in the wanted state, or the step does not apply to it.
    Satisfied {
        kind: StepKind,
        reason: String,
    },
    /// The policy, or a program that uses the modem, prevents the step.
    Suppressed {
        kind: StepKind,
        reason: String,
    },
    /// The modem lacks the port for an unlock.
    NoPort(Failure),
    /// The kernel is not allowed to use the device.
    NotAuthorized {
        kind: StepKind,
    },
    /// The step cannot be planned. The modem is not touched.
    Infeasible {
        kind: StepKind,
        failure: Failure,
    },
}

/// The remedy for a device that the kernel is not allowed to use.
pub(crate) const AUTHORIZE: &str = "allow it (`usbguard list-devices`, then `usbguard allow-device NUMBER`; or write 1 to the file `authorized` of the device)";

impl PlanStep {
    pub(crate) fn kind(&self) -> StepKind {
        match self {
            PlanStep::Run(action) => action.kind(),
            PlanStep::NoPort(_) => StepKind::FccAuth,
            PlanStep::Satisfied { kind, .. }
            | PlanStep::Suppressed { kind, .. }
            | PlanStep::NotAuthorized { kind }
            | PlanStep::Infeasible { kind, .. } => *kind,
        }
    }

    /// The step in words, without the messages of an unlock.
    pub(crate) fn describe(&self) -> PlanLine {
        let (decision, text) = match self {
            PlanStep::Run(action) => (Decision::Run, action.to_string()),
            PlanStep::Satisfied { reason, .. } => (Decision::Nothing, reason.clone()),
            PlanStep::Suppressed { reason, .. } => (Decision::Suppressed, reason.clone()),
            PlanStep::NotAuthorized { .. } => (Decision::NotAuthorized, AUTHORIZE.to_owned()),
            PlanStep::Infeasible { failure, .. } | PlanStep::NoPort(failure) => {
                (Decision::NotPossible, failure.to_string())
            }
        };
        PlanLine { step: self.kind(), decision, text, messages: Vec::new() }
    }
}

/// A step of a plan, for people and for JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PlanLine {
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
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
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
pub(crate) enum Decision {
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
    let mut plan = Vec::new();
    for step in &quirk.steps {
        match (step, scope) {
            (Step::Switch(_) | Step::Configuration { .. }, Scope::Port(_) | Scope::Unlock)
            | (Step::FccAuth(_), Scope::Device) => {}
            (Step::Switch(switch), _) => plan.push(plan_switch(switch, snapshot, policy)),
            (Step::Configuration { select, fallback, unconfigured }, _) => {
                let candidates = candidates(*select, *fallback, quirk, policy);
                plan.push(plan_configuration(&candidates, *unconfigured, snapshot));
            }
            (Step::FccAuth(procedure), _) => plan.extend(plan_unlock(procedure, scope, snapshot, quirk, policy)),
        }
    }
    // A switch and a configuration remove the drive.
    if let Some(user) = &snapshot.used_drive {
        for step in plan.iter_mut().filter(|step| runs(step, |kind| kind != StepKind::FccAuth)) {
            let reason = format!("a drive is in use: {user}; release it, or run `wwan-quirks apply DEVICE`");
            *step = suppressed(step.kind(), reason);
        }
    }
    // A new configuration creates new ports, and these have events of their own.
    if plan.iter().any(|step| runs(step, |kind| kind != StepKind::FccAuth)) {
        plan.retain(|step| step.kind() != StepKind::FccAuth);
    }
    // One port for one of several procedures is enough. If there is none, report that once.
    if plan.iter().any(|step| runs(step, |kind| kind == StepKind::FccAuth)) {
        plan.retain(|step| !matches!(step, PlanStep::NoPort(_)));
    }
    plan.dedup();
    if !snapshot.authorized {
        for step in &mut plan {
            if !matches!(step, PlanStep::Suppressed { .. }) {
                *step = PlanStep::NotAuthorized { kind: step.kind() };
            }
        }
        // An unauthorized device is not configured: report that once.
        let is_refused = |step: &PlanStep| matches!(step, PlanStep::NotAuthorized { .. });
        plan.dedup_by(|one, other| is_refused(one) && is_refused(other));
    }
    plan
}

/// The plan of a quirk for a device that is not plugged in, as far as the policy decides it.
pub(crate) fn plan_without_device(quirk: &Quirk, policy: &Resolved) -> Vec<PlanLine> {
    let mut lines: Vec<PlanLine> = quirk
        .steps
        .iter()
        .map(|step| {
            let value = match step {
                Step::Switch(switch) => {
                    switch_of_policy(switch, policy).map(|chosen| chosen.unwrap_or_else(|| switch.clone()).to_string())
                }
                Step::Configuration { select, fallback, .. } => {
                    configuration_of_policy(*select, *fallback, quirk, policy)
                }
                Step::FccAuth(_) => unlock_of_policy(policy).map(|()| step.value()),
            };
            value.map_or_else(
                |step| step.describe(),
                |text| PlanLine { step: step.kind(), decision: Decision::WhenPluggedIn, text, messages: Vec::new() },
            )
        })
        .collect();
    lines.dedup();
    lines
}

/// Whether a conversation about the composition of the modem can start. Only the modem knows which compositions it
/// supports, so the conversation decides the rest. `has_family`: compositions.toml has a family for the modem.
pub(crate) fn plan_composition(
    id: DeviceId,
    port: &Port,
    is_in_install_mode: bool,
    has_family: bool,
) -> Result<(), Failure> {
    if is_in_install_mode {
        return Err(Failure::new("the modem is in install mode", format!("run `wwan-quirks apply {port}` first")));
    }
    if !has_family {
        return Err(Failure::new(
            format!("compositions.toml has no family for {id}"),
            "see `man wwan-quirks` for the supported families, or add one to /etc/wwan-quirks/compositions.toml",
        ));
    }
    Ok(())
}

fn plan_switch(switch: &Switch, snapshot: &Snapshot, policy: &Resolved) -> PlanStep {
    let chosen = match switch_of_policy(switch, policy) {
        Ok(chosen) => chosen,
        Err(step) => return *step,
    };
    // A message from the policy says what the device becomes. Then the preferred function does not count.
    let function = policy.prefer.value.function().filter(|_| chosen.is_none());
    let switch = chosen.as_ref().unwrap_or(switch);
    if !switch.needs_interfaces() {
        return PlanStep::Run(Action::Switch { switch: switch.clone(), target: TransferTarget::default() });
    }
    match &snapshot.unreadable {
        None => plan_switch_of(switch, function, snapshot),
        Some(why) => unreadable(StepKind::Switch, why, "device"),
    }
}

/// The switch with the message that the policy chooses for a Huawei device, if it chooses one. Fails with the plan if
/// the policy allows no switch.
fn switch_of_policy(switch: &Switch, policy: &Resolved) -> Result<Option<Switch>, Box<PlanStep>> {
    let kind = StepKind::Switch;
    if !policy.switch.value {
        return Err(suppressed(kind, format!("`switch = false` in {}", policy.switch.origin)).into());
    }
    let Setting { value, origin } = &policy.huawei;
    match value.method() {
        Some(method) if Rewind::of(switch).is_some() => Ok(Some(switch.with_method(method))),
        Some(_) if origin.is_device() => {
            let reason = format!(
                "`huawei = \"{value}\"` in {origin}: this setting is only for devices that accept Huawei's command"
            );
            Err(infeasible(kind, &reason, "remove `huawei` from the `[[device]]` of this modem").into())
        }
        _ => Ok(None),
    }
}

/// Plans a switch that depends on the interfaces of the device. `function` is the preferred one.
fn plan_switch_of(switch: &Switch, function: Option<Function>, snapshot: &Snapshot) -> PlanStep {
    let kind = StepKind::Switch;
    let configurations = snapshot.descriptors.configurations.as_slice();
    let first = configurations.first().and_then(|configuration| configuration.interfaces.first());
    if let Some(class) = first.map(|first| first.class).filter(|class| switch.target_class == Some(*class)) {
        return satisfied(kind, &format!("the device has already switched: its first interface has class {class:02x}"));
    }
    let ops = switch.ops();
    let wanted = ops.iter().rev().find_map(|op| if let Op::SetConfiguration(value) = op { Some(*value) } else { None });
    if wanted.is_some() && wanted == snapshot.configuration {
        return satisfied(kind, &format!("configuration {} is active", configuration_name(wanted)));
    }
    let active = match (configurations, snapshot.configuration) {
        ([only], _) => Some(only),
        (several, active) => several.iter().find(|configuration| Some(configuration.value) == active),
    };
    let interfaces = active.map(|active| active.interfaces.as_slice()).unwrap_or_default();
    // If a configuration offers the preferred function, no switch is needed.
    let offers = |configuration: &Configuration| {
        let offered = configuration.functions(&snapshot.qmi);
        configurations.len() > 1 && function.is_some_and(|function| offered.contains(&function))
    };
    if let Some(active) = active.filter(|configuration| offers(configuration)) {
        return configure(active.value, None, snapshot);
    }
    let used = match switch.interface {
        Some(number) => interfaces.iter().find(|interface| interface.number == number),
        None => interfaces.first(),
    };
    let Some(interface) = used else {
        return satisfied(kind, "the device lacks the interface that the switch uses");
    };
    if ops.iter().any(Op::is_cbw) && interface.class != CLASS_MASS_STORAGE {
        // A phone, or a device with the same ID in modem mode: it must not get SCSI commands.
        return satisfied(kind, &format!("interface {} is not mass storage", interface.number));
    }
    if let Some(wanted) = switch.interface_class.filter(|wanted| *wanted != interface.class) {
        return satisfied(kind, &format!("interface {} is not of class {wanted:02x}", interface.number));
    }
    if let Some(to) = configurations.iter().find(|configuration| offers(configuration)) {
        return configure(to.value, None, snapshot);
    }
    match target(switch, interface, interfaces) {
        Some(target) => PlanStep::Run(Action::Switch { switch: switch.clone(), target }),
        None => infeasible(
            kind,
            "the interface lacks the bulk endpoints that the switch needs",
            "report a bug with the output of `wwan-quirks report`",
        ),
    }
}

/// Where the messages of `switch` go. `None` if `interface` lacks an endpoint for them.
fn target(switch: &Switch, interface: &Interface, interfaces: &[Interface]) -> Option<TransferTarget> {
    let bulk = |is_in| interface.endpoints.iter().find(|e| e.is_bulk() && e.is_in() == is_in).map(|e| e.address);
    let mut numbers: Vec<u8> = interfaces.iter().map(|interface| interface.number).collect();
    numbers.dedup();
    let target = TransferTarget {
        interface: interface.number,
        bulk_out: switch.out.or_else(|| bulk(false)),
        bulk_in: switch.r#in.or_else(|| bulk(true)),
        interfaces: numbers,
    };
    let needs = |is_needed: fn(&Op) -> bool| switch.ops().iter().any(is_needed);
    // Only a CBW has an answer. Some devices take other messages on an OUT endpoint without an IN endpoint.
    let lacks_out = target.bulk_out.is_none() && needs(|op| matches!(op, Op::Bulk(_)));
    let lacks_in = target.bulk_in.is_none() && needs(Op::is_cbw);
    (!lacks_out && !lacks_in).then_some(target)
}

fn plan_configuration(candidates: &[Select], unconfigured: Option<Duration>, snapshot: &Snapshot) -> PlanStep {
    let kind = StepKind::Configuration;
    if let Some(why) = &snapshot.unreadable {
        return unreadable(kind, why, "modem");
    }
    let configurations = &snapshot.descriptors.configurations;
    if configurations.len() < 2 {
        return satisfied(kind, "the modem has only one configuration");
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
        None => satisfied(
            kind,
            &format!("the kernel's choice, configuration {}, is kept", configuration_name(snapshot.configuration)),
        ),
        Some(to) => configure(to, unconfigured, snapshot),
    }
}

/// Makes configuration `to` the active one.
fn configure(to: u8, unconfigured: Option<Duration>, snapshot: &Snapshot) -> PlanStep {
    let kind = StepKind::Configuration;
    match (to, snapshot.configuration) {
        (to, Some(active)) if to == active => satisfied(kind, &format!("configuration {to} is active")),
        // To the kernel, 0 means "unconfigured": it cannot set a configuration with that number.
        (0, _) => satisfied(kind, "the wanted configuration has the number 0, which cannot be set"),
        (to, from) => match &snapshot.used_by {
            Some(user) if from.is_some() => suppressed(
                kind,
                format!("the modem is in use: {user}; `wwan-quirks apply DEVICE` sets configuration {to}"),
            ),
            _ => PlanStep::Run(Action::Configure { from, to, unconfigured }),
        },
    }
}

/// In order of precedence: the administrator's preference, the quirk, the shipped default. If the modem does not offer
/// the function that the administrator prefers, the quirk applies. A number in a shipped quirk says that the function of
/// its configuration may differ: the preferred function comes first.
fn candidates(select: Select, fallback: Option<u8>, quirk: &Quirk, policy: &Resolved) -> Vec<Select> {
    let preferred = policy.prefer.value.function().map_or(Select::Keep, Select::Function);
    let is_administrator = policy.prefer.origin.is_administrator();
    if is_administrator && preferred == Select::Keep {
        return Vec::new();
    }
    let number = fallback.map(Select::Value);
    let has_number = number.is_some() || matches!(select, Select::Value(_));
    let is_first =
        is_administrator || select == Select::Preferred || (has_number && quirk.location.layer == Layer::Shipped);
    is_first.then_some(preferred).into_iter().chain([select]).chain(number).collect()
}

/// What the configuration may be, in words. Fails with the plan if the policy and the quirk keep the kernel's choice.
fn configuration_of_policy(
    select: Select,
    fallback: Option<u8>,
    quirk: &Quirk,
    policy: &Resolved,
) -> Result<String, Box<PlanStep>> {
    let mut candidates = candidates(select, fallback, quirk, policy);
    candidates.retain(|select| !matches!(select, Select::Preferred | Select::Keep));
    candidates.dedup();
    let names: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => Err(satisfied(StepKind::Configuration, "the kernel's choice is kept").into()),
        names => Ok(names.join(" or ")),
    }
}

/// Fails with the plan if the policy allows no unlock.
fn unlock_of_policy(policy: &Resolved) -> Result<(), Box<PlanStep>> {
    match policy.fcc_auth.value {
        true => Ok(()),
        false => Err(suppressed(StepKind::FccAuth, format!("`fcc-auth = false` in {}", policy.fcc_auth.origin)).into()),
    }
}

/// Plans the unlock with `procedure`. `None` if the event is about a port that does not carry it.
fn plan_unlock(
    procedure: &Procedure,
    scope: &Scope,
    snapshot: &Snapshot,
    quirk: &Quirk,
    policy: &Resolved,
) -> Option<PlanStep> {
    let is_meant = |port: &ControlPort| match scope {
        Scope::Port(name) => port.name == *name,
        Scope::Device | Scope::All | Scope::Unlock => true,
    };
    let concerned = snapshot.ports.iter().filter(|port| is_meant(port));
    if matches!(scope, Scope::Port(_)) && concerned.clone().next().is_none() {
        return None;
    }
    if let Err(step) = unlock_of_policy(policy) {
        return Some(*step);
    }
    // A port whose protocol is unknown is left alone.
    let mut unlocks = concerned.filter_map(|port| {
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
    Some(unlocks.next().unwrap_or_else(|| PlanStep::NoPort(no_port(procedure, quirk.is_pci()))))
}

fn no_port(procedure: &Procedure, is_pci: bool) -> Failure {
    match procedure.interface() {
        _ if is_pci => {
            let wanted = procedure.wwan_protocol().map_or("usable", Protocol::wwan_type);
            Failure::new(format!("the modem has no {wanted} port"), "see `wwan-quirks doctor`")
        }
        Some(interface) => Failure::new(
            format!("interface {interface} has no tty"),
            "the option driver of a newer kernel may create it; see `wwan-quirks doctor`",
        ),
        None => Failure::new(
            "the modem has no QMI or MBIM port",
            "check that the drivers qmi_wwan and cdc_mbim are loaded; see `wwan-quirks doctor`",
        ),
    }
}

fn runs(step: &PlanStep, is_meant: impl Fn(StepKind) -> bool) -> bool {
    matches!(step, PlanStep::Run(action) if is_meant(action.kind()))
}

fn satisfied(kind: StepKind, reason: &str) -> PlanStep {
    PlanStep::Satisfied { kind, reason: reason.to_owned() }
}

fn suppressed(kind: StepKind, reason: String) -> PlanStep {
    PlanStep::Suppressed { kind, reason }
}

fn infeasible(kind: StepKind, reason: &str, remedy: &str) -> PlanStep {
    PlanStep::Infeasible { kind, failure: Failure::new(reason, remedy) }
}

fn unreadable(kind: StepKind, why: &str, what: &str) -> PlanStep {
    let remedy = format!(
        "plug the {what} in again; if that does not help, report a bug with the output of `wwan-quirks report`"
    );
    infeasible(kind, why, &remedy)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::database::layers::ConfigFile;
    use crate::database::policy::Policy;
    use crate::database::quirks::fragment::parse as parse_quirks;
    use crate::modem::device::descriptors::samples::*;
    use crate::modem::device::descriptors::{Malformed, parse};
    use crate::modem::device::vendor_interfaces::VendorInterfaces;

    const ID: &str = "1199:68a2";
    /// A drive with a bulk endpoint in each direction.
    const DRIVE: [u8; 3] = [8, 6, 0x50];
    const BULK: &[(u8, u8)] = &[(0x81, 2), (0x02, 2)];
    const VENDOR: [u8; 3] = [0xff, 0xff, 0xff];
    const MBIM: [u8; 3] = [2, 0x0e, 0];

    /// A quirk with these steps, from a file of this layer.
    pub(crate) fn quirk(layer: Layer, steps: &str) -> Quirk {
        let file = ConfigFile { layer, path: "1199-test.toml".into() };
        let text = format!("schema = 1\n[[device]]\nid = \"{ID}\"\nname = \"Test\"\nsteps = [{steps}]\n");
        let (mut quirks, errors) = parse_quirks(&file, &text);
        assert_eq!(errors, []);
        quirks.remove(0)
    }

    fn policy(layer: Layer, text: &str) -> Resolved {
        let mut policy = Policy::default();
        let errors = policy.add(&ConfigFile { layer, path: "config.toml".into() }, text);
        assert_eq!(errors, []);
        policy.resolve(ID.parse().unwrap(), None, || None)
    }

    fn snapshot(configuration: Option<u8>, configurations: &[Vec<u8>]) -> Snapshot {
        Snapshot {
            authorized: true,
            descriptors: parse(&device(configurations)).unwrap(),
            qmi: VendorInterfaces::of(ID.parse().unwrap(), &[]),
            configuration,
            ..Snapshot::default()
        }
    }

    fn modem(configuration: Option<u8>) -> Snapshot {
        Snapshot { descriptors: parse(&mc7710()).unwrap(), ..snapshot(configuration, &[]) }
    }

    fn port(name: &str, driver: &str) -> ControlPort {
        let number = crate::modem::device::DeviceNumber { major: 180, minor: 0 };
        ControlPort { name: name.to_owned(), driver: Some(driver.to_owned()), wwan_type: None, number }
    }

    /// The plan of a shipped quirk under the policy of an administrator, in words.
    fn plan_lines(scope: &Scope, steps: &str, policy_text: &str, snapshot: &Snapshot) -> Vec<String> {
        let policy = policy(Layer::Administrator, policy_text);
        let plan = plan(scope, snapshot, &quirk(Layer::Shipped, steps), &policy);
        plan.iter().map(|step| step.describe().to_string()).collect()
    }

    /// The plan of a quirk with one step for the device.
    fn only(steps: &str, policy_text: &str, snapshot: &Snapshot) -> String {
        let lines = plan_lines(&Scope::All, steps, policy_text, snapshot);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.concat()
    }

    const HUAWEI: &str = "{ switch = \"huawei-new\" }";

    fn drive() -> Snapshot {
        snapshot(Some(1), &[configuration(1, &[interface(0, DRIVE, BULK)])])
    }

    #[test]
    fn a_switch_runs_only_on_an_interface_that_can_take_its_messages() {
        let text = |snapshot: &Snapshot| only(HUAWEI, "", snapshot);
        assert!(text(&drive()).starts_with("switch: huawei-new: "), "{}", text(&drive()));
        for (interfaces, reason) in [
            (vec![interface(0, VENDOR, BULK)], "nothing to do: interface 0 is not mass storage"),
            (vec![], "nothing to do: the device lacks the interface that the switch uses"),
            (
                vec![interface(0, DRIVE, &[(0x81, 2), (0x02, 3)])],
                "not possible: the interface lacks the bulk endpoints",
            ),
            (
                vec![interface(0, DRIVE, &[(0x81, 3), (0x02, 2)])],
                "not possible: the interface lacks the bulk endpoints",
            ),
        ] {
            let text = text(&snapshot(Some(1), &[configuration(1, &interfaces)]));
            assert!(text.starts_with(&format!("switch: {reason}")), "{text}");
        }
        let unreadable = Snapshot { unreadable: Some("no".to_owned()), ..snapshot(Some(1), &[]) };
        assert!(text(&unreadable).starts_with("switch: not possible: no; plug the device in again"));
        // A message that is no SCSI command needs no answer, and no drive.
        let out = snapshot(Some(1), &[configuration(1, &[interface(0, VENDOR, &[(0x02, 2)])])]);
        assert!(only("{ switch = { do = [{ bulk = \"0102\" }] } }", "", &out).starts_with("switch: bulk:0102: "));
        let without = snapshot(Some(1), &[configuration(1, &[interface(0, VENDOR, &[(0x82, 2)])])]);
        assert!(only("{ switch = { do = [{ bulk = \"0102\" }] } }", "", &without).contains("not possible"));
    }

    #[test]
    fn a_switch_has_the_endpoints_and_the_interfaces_of_the_device() {
        let target = |steps: &str, snapshot: &Snapshot| {
            let plan = plan(&Scope::All, snapshot, &quirk(Layer::Shipped, steps), &Resolved::default());
            match plan.as_slice() {
                [PlanStep::Run(Action::Switch { target, .. })] => target.clone(),
                other => panic!("{other:?}"),
            }
        };
        let two = |active| {
            let first = configuration(1, &[interface(0, DRIVE, BULK), interface(0, DRIVE, BULK)]);
            snapshot(active, &[first, configuration(2, &[interface(3, DRIVE, &[(0x84, 2), (0x05, 2)])])])
        };
        let expect = |interface, bulk_out, bulk_in, interfaces: &[u8]| TransferTarget {
            interface,
            bulk_out: Some(bulk_out),
            bulk_in: Some(bulk_in),
            interfaces: interfaces.to_vec(),
        };
        assert_eq!(target(HUAWEI, &two(Some(1))), expect(0, 0x02, 0x81, &[0]));
        assert_eq!(target(HUAWEI, &two(Some(2))), expect(3, 0x05, 0x84, &[3]));
        // A device with one configuration can still be unconfigured.
        assert_eq!(target(HUAWEI, &Snapshot { configuration: None, ..drive() }), expect(0, 0x02, 0x81, &[0]));
        let own = "{ switch = { do = [\"huawei-new\"], out = 0x0a, in = 0x8b } }";
        assert_eq!(target(own, &two(Some(1))), expect(0, 0x0a, 0x8b, &[0]));
        let second = snapshot(
            Some(1),
            &[configuration(1, &[interface(0, VENDOR, &[]), interface(5, DRIVE, &[(0x86, 2), (0x07, 2)])])],
        );
        let numbered = "{ switch = { do = [\"huawei-new\"], interface = 5 } }";
        assert_eq!(target(numbered, &second), expect(5, 0x07, 0x86, &[0, 5]));
    }

    #[test]
    fn a_device_that_has_left_install_mode_is_not_switched() {
        let classes = "{ switch = { do = [\"huawei-new\"], target-class = 0xff } }";
        let has_left = snapshot(Some(1), &[configuration(1, &[interface(0, VENDOR, BULK), interface(1, DRIVE, BULK)])]);
        assert!(only(classes, "", &has_left).contains("nothing to do: the device has already switched"));
        assert!(only(classes, "", &drive()).starts_with("switch: huawei-new"));
        let vendor = "{ switch = { do = [\"huawei-new\"], interface-class = 0xff } }";
        assert_eq!(only(vendor, "", &drive()), "switch: nothing to do: interface 0 is not of class ff");
        let drive_only = "{ switch = { do = [\"huawei-new\"], interface-class = 8 } }";
        assert!(only(drive_only, "", &drive()).starts_with("switch: huawei-new"));
        // The last configuration that the switch sets.
        let sets = "{ switch = { do = [{ set-configuration = 1 }, { set-configuration = 2 }] } }";
        let two = |active| snapshot(active, &[configuration(1, &[interface(0, DRIVE, BULK)]), configuration(2, &[])]);
        assert_eq!(only(sets, "prefer = \"keep\"", &two(Some(2))), "switch: nothing to do: configuration 2 is active");
        assert!(only(sets, "prefer = \"keep\"", &two(Some(1))).starts_with("switch: set-configuration"));
        // Without a configuration, no configuration of a switch is active.
        let unconfigured = Snapshot { configuration: None, ..drive() };
        assert!(only(HUAWEI, "", &unconfigured).starts_with("switch: huawei-new"));
    }

    #[test]
    fn the_policy_decides_whether_and_how_to_switch() {
        assert!(only(HUAWEI, "switch = false", &drive()).contains("suppressed: `switch = false` in "));
        for (becomes, message) in
            [("network", "1106200000010100"), ("modem", "1106300000000001"), ("serial", "1106300000010000")]
        {
            let text = only(HUAWEI, &format!("huawei = \"{becomes}\""), &drive());
            assert!(text.contains(message), "{becomes}: {text}");
        }
        let sierra = "{ switch = \"sierra\" }";
        assert!(only(sierra, "huawei = \"serial\"", &drive()).starts_with("switch: sierra: "), "not for Huawei");
        let of_device = format!("[[device]]\nmatch = {{ id = \"{ID}\" }}\nhuawei = \"serial\"\n");
        let text = only(sierra, &of_device, &drive());
        assert!(text.contains("not possible: `huawei = \"serial\"` in "), "{text}");
        assert!(text.contains("remove `huawei` from"), "{text}");
    }

    #[test]
    fn a_configuration_with_the_preferred_function_makes_a_switch_needless() {
        let drive = || interface(0, DRIVE, BULK);
        let mbim = || interface(1, MBIM, &[(0x83, 3)]);
        let several = |active| snapshot(active, &[configuration(1, &[drive()]), configuration(2, &[mbim()])]);
        let mbim_preferred = "prefer = \"mbim\"";
        let text = only(HUAWEI, mbim_preferred, &several(Some(1)));
        assert!(text.starts_with("configuration: write 2 to bConfigurationValue instead of 1"), "{text}");
        let text = only(HUAWEI, mbim_preferred, &several(Some(2)));
        assert_eq!(text, "configuration: nothing to do: configuration 2 is active");
        for policy in ["prefer = \"keep\"", "prefer = \"qmi\"", "prefer = \"mbim\"\nhuawei = \"serial\""] {
            assert!(only(HUAWEI, policy, &several(Some(1))).starts_with("switch: huawei-"), "{policy}");
        }
        // The only configuration says nothing: the device has to switch.
        let one = snapshot(Some(1), &[configuration(1, &[drive(), mbim()])]);
        assert!(only(HUAWEI, mbim_preferred, &one).starts_with("switch: huawei-new"));
    }

    #[test]
    fn the_plan_has_no_configuration_that_the_kernel_cannot_or_need_not_set() {
        let preferred = "{ configuration = \"preferred\" }";
        let text = |policy: &str, snapshot: &Snapshot| only(preferred, policy, snapshot);
        let wanted = "configuration: write 2 to bConfigurationValue instead of 1";
        assert_eq!(text("prefer = \"mbim\"", &modem(Some(1))), wanted);
        assert_eq!(text("prefer = \"mbim\"", &modem(None)), wanted.replace("of 1", "of none"));
        assert_eq!(
            text("prefer = \"qmi\"", &modem(Some(1))),
            "configuration: nothing to do: configuration 1 is active"
        );
        let kept = "configuration: nothing to do: the kernel's choice, configuration 2, is kept";
        assert_eq!(text("prefer = \"keep\"", &modem(Some(2))), kept);
        let one = snapshot(Some(1), &[configuration(1, &[interface(0, MBIM, &[])])]);
        assert_eq!(text("", &one), "configuration: nothing to do: the modem has only one configuration");
        let malformed = Snapshot { unreadable: Some(Malformed::NoDevice.to_string()), ..snapshot(Some(1), &[]) };
        assert!(text("", &malformed).starts_with("configuration: not possible: no device descriptor"));
        // 0 means "unconfigured".
        let zero = snapshot(Some(1), &[configuration(1, &[]), configuration(0, &[interface(0, MBIM, &[])])]);
        assert!(text("prefer = \"mbim\"", &zero).contains("nothing to do: the wanted configuration has the number 0"));
        let used = |active| Snapshot { used_by: Some("sleep (7) holds it".to_owned()), ..modem(active) };
        let suppressed = text("prefer = \"mbim\"", &used(Some(1)));
        assert!(suppressed.starts_with("configuration: suppressed: the modem is in use: sleep (7)"), "{suppressed}");
        assert!(text("prefer = \"mbim\"", &used(None)).starts_with("configuration: write 2"));
        assert!(text("prefer = \"mbim\"", &used(Some(2))).contains("nothing to do"));
    }

    #[test]
    fn a_modem_that_was_left_unconfigured_gets_a_configuration() {
        let steps = "{ configuration = { select = \"preferred\", unconfigured = 0.1 } }";
        let text = |active| only(steps, "prefer = \"keep\"", &modem(active));
        assert_eq!(
            text(None),
            "configuration: write 1 to bConfigurationValue instead of none, after 0.1 s without a configuration"
        );
        assert!(text(Some(2)).contains("nothing to do: the kernel's choice"));
        assert!(only("{ configuration = \"preferred\" }", "prefer = \"keep\"", &modem(None)).contains("is kept"));
    }

    #[test]
    fn an_administrator_comes_before_a_quirk_and_a_quirk_before_the_shipped_policy() {
        let without_mbim = snapshot(
            None,
            &[
                configuration(1, &[interface(8, VENDOR, CONTROL_CHANNEL)]),
                configuration(2, &[interface(0, DRIVE, BULK)]),
            ],
        );
        let to = |snapshot: &Snapshot, layer, select: &str, policy_layer, prefer: &str| {
            let quirk = quirk(layer, &format!("{{ configuration = {select} }}"));
            let policy = policy(policy_layer, &format!("prefer = \"{prefer}\"\n"));
            let plan = plan(&Scope::All, snapshot, &quirk, &policy);
            match plan.as_slice() {
                [PlanStep::Run(Action::Configure { to, .. })] => Some(*to),
                _ => None,
            }
        };
        use Layer::{Administrator, Shipped};
        for (layer, select, policy_layer, prefer, expected) in [
            (Shipped, "\"preferred\"", Shipped, "mbim", Some(2)),
            (Shipped, "\"qmi\"", Shipped, "mbim", Some(1)),
            (Shipped, "\"qmi\"", Administrator, "mbim", Some(2)),
            (Shipped, "\"qmi\"", Administrator, "keep", None),
            (Shipped, "1", Shipped, "mbim", Some(2)),
            (Administrator, "1", Shipped, "mbim", Some(1)),
            (Administrator, "1", Administrator, "mbim", Some(2)),
            (Shipped, "7", Shipped, "keep", None),
        ] {
            let case = format!("{layer:?} {select}, {policy_layer:?} {prefer}");
            assert_eq!(to(&modem(None), layer, select, policy_layer, prefer), expected, "{case}");
        }
        for select in ["\"qmi\"", "1"] {
            assert_eq!(to(&without_mbim, Shipped, select, Administrator, "mbim"), Some(1), "{select}");
        }
    }

    const UNLOCK: &str = "{ fcc-auth = \"sierra\" }";

    #[test]
    fn one_port_is_enough_for_an_unlock() {
        let ports = vec![port("cdc-wdm0", "cdc_ether"), port("cdc-wdm1", "qmi_wwan"), port("cdc-wdm2", "cdc_mbim")];
        let with = Snapshot { ports, ..modem(Some(1)) };
        let on = |name: &str, protocol: &str| {
            vec![format!("fcc-auth: sierra over {protocol} on /dev/{name}, if the radio is in low power")]
        };
        let of = |scope: &Scope| plan_lines(scope, UNLOCK, "", &with);
        assert_eq!(of(&Scope::All), on("cdc-wdm1", "QMI"));
        assert_eq!(of(&Scope::Port("cdc-wdm2".to_owned())), on("cdc-wdm2", "MBIM"));
        assert_eq!(of(&Scope::Port("ttyUSB0".to_owned())), [""; 0], "another port of the modem");
        assert_eq!(of(&Scope::Device), [""; 0]);
        assert!(of(&Scope::Port("cdc-wdm0".to_owned())).concat().contains("the modem has no QMI or MBIM port"));
        let off = |scope: &Scope| plan_lines(scope, UNLOCK, "fcc-auth = false", &with);
        for scope in [Scope::All, Scope::Port("cdc-wdm2".to_owned())] {
            assert!(off(&scope).concat().contains("suppressed: `fcc-auth"), "{scope:?}");
        }
        assert_eq!(off(&Scope::Port("ttyUSB0".to_owned())), [""; 0], "another port of the modem");
        // A port for one of two procedures is enough. Without one, the reason is reported once.
        let tty = "{ fcc-auth = { gtfcclock = { interface = 3, number = \"hex\", oem-strings = [\"A\"] } } }";
        let two = format!("{tty}, {UNLOCK}");
        assert_eq!(plan_lines(&Scope::All, &two, "", &with), on("cdc-wdm1", "QMI"));
        assert_eq!(plan_lines(&Scope::All, &two, "", &modem(Some(1))).len(), 2);
        let alike = format!("{UNLOCK}, {{ fcc-auth = \"quectel\" }}");
        assert_eq!(plan_lines(&Scope::All, &alike, "", &modem(Some(1))).len(), 1);
    }

    #[test]
    fn an_unlock_waits_for_the_ports_of_a_new_configuration() {
        let steps = format!("{{ configuration = \"preferred\" }}, {UNLOCK}");
        let with = |active| Snapshot { ports: vec![port("cdc-wdm1", "qmi_wwan")], ..modem(active) };
        let of = |scope: &Scope, active| plan_lines(scope, &steps, "prefer = \"mbim\"", &with(active));
        let starts = |lines: Vec<String>| lines.iter().map(|line| line[..17].to_owned()).collect::<Vec<_>>();
        assert_eq!(starts(of(&Scope::All, Some(1))), ["configuration: wr"]);
        assert_eq!(starts(of(&Scope::All, Some(2))), ["configuration: no", "fcc-auth: sierra "]);
        assert_eq!(starts(of(&Scope::Device, Some(2))), ["configuration: no"]);
        assert_eq!(starts(of(&Scope::Unlock, Some(1))), ["fcc-auth: sierra "]);
        // The order of the steps in the quirk does not matter.
        let steps = format!("{UNLOCK}, {{ configuration = \"preferred\" }}");
        let lines = plan_lines(&Scope::All, &steps, "prefer = \"mbim\"", &with(Some(1)));
        assert_eq!(starts(lines), ["configuration: wr"]);
    }

    #[test]
    fn nothing_is_done_to_a_device_that_is_not_authorized() {
        let steps = format!("{{ configuration = \"preferred\" }}, {UNLOCK}");
        let blocked = Snapshot { authorized: false, ports: vec![port("cdc-wdm1", "qmi_wwan")], ..modem(Some(2)) };
        let lines = plan_lines(&Scope::All, &steps, "prefer = \"mbim\"", &blocked);
        assert_eq!(lines, [format!("configuration: not authorized; {AUTHORIZE}")]);
        // What the policy suppresses remains suppressed.
        let lines = plan_lines(&Scope::All, UNLOCK, "fcc-auth = false", &blocked);
        assert!(lines.concat().contains("suppressed"), "{lines:?}");
    }
}
