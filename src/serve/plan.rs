//! From what a modem is, what its quirk says and what the administrator wants, to what there is to do.
//!
//! Pure: no I/O of any kind happens here, so that `--dry-run`, `explain` and most tests are this.

use std::fmt;
use std::time::Duration;

use crate::database::policy::Resolved;
use crate::database::quirks::switch::Op;
use crate::database::quirks::{Procedure, Quirk, Reset, Step, Switch, Wish};
use crate::modem::device::ControlPort;
use crate::modem::device::descriptors::{CLASS_MASS_STORAGE, Descriptors};
use crate::modem::transport::Protocol;
use crate::outcome::Failure;
use crate::serve::event::Occasion;
use crate::steps::fcc_auth;
use crate::steps::switch::Target;

/// What is known of the modem: as much as the steps of its quirk need for this occasion.
#[derive(Debug, Default)]
pub struct Stand {
    /// The descriptors, or why they cannot be had.
    pub descriptors: Option<Result<Descriptors, String>>,
    /// The active configuration; none where the modem is unconfigured.
    pub configuration: Option<u8>,
    pub ports: Vec<ControlPort>,
}

/// Something to do to the modem.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Switch {
        switch: Switch,
        target: Target,
    },
    Configure {
        from: Option<u8>,
        to: u8,
        /// How long the modem is left unconfigured in between.
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
    pub fn step(&self) -> &'static str {
        match self {
            Action::Switch { .. } => "switch",
            Action::Configure { .. } => "configuration",
            Action::FccAuth { .. } => "fcc-auth",
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
                unconfigured.map_or(Ok(()), |pause| write!(f, ", by way of 0 for {} s", pause.as_secs_f64()))
            }
            Action::FccAuth { port, protocol, procedure, .. } => {
                write!(f, "{procedure} over {protocol} on /dev/{}, if the radio is in low power", port.name)
            }
        }
    }
}

/// One step of the quirk, and what it comes to here.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned {
    Act(Action),
    /// Nothing to do for this step, and why.
    Stands {
        step: &'static str,
        why: String,
    },
    /// Not to be done, by the policy's word or for want of a port, and why: the modem may be waiting for it.
    Withheld {
        step: &'static str,
        why: String,
    },
    /// The step cannot be planned: nothing is touched.
    Cannot {
        step: &'static str,
        trouble: Failure,
    },
}

impl Planned {
    pub fn step(&self) -> &'static str {
        match self {
            Planned::Act(action) => action.step(),
            Planned::Stands { step, .. } | Planned::Withheld { step, .. } | Planned::Cannot { step, .. } => step,
        }
    }
}

impl Planned {
    /// With `verbose`, a line for each message of an unlock as well; what a switch sends is in its own line.
    pub fn lines(&self, verbose: bool) -> Vec<String> {
        let mut lines = vec![self.to_string()];
        if let (true, Planned::Act(Action::FccAuth { protocol, procedure, .. })) = (verbose, self) {
            lines.extend(fcc_auth::messages(procedure, *protocol).into_iter().map(|line| format!("  {line}")));
        }
        lines
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Planned::Act(action) => write!(f, "{}: {action}", action.step()),
            Planned::Stands { step, why } | Planned::Withheld { step, why } => {
                write!(f, "{step}: nothing to do: {why}")
            }
            Planned::Cannot { step, trouble } => write!(f, "{step}: cannot be done: {trouble}"),
        }
    }
}

/// What there is to do on `occasion`, in the order of the quirk's steps.
pub fn plan(occasion: &Occasion, stand: &Stand, quirk: &Quirk, policy: &Resolved) -> Vec<Planned> {
    let mut planned = Vec::new();
    for step in &quirk.steps {
        match (step, occasion) {
            (Step::Switch(_) | Step::Configuration { .. }, Occasion::ControlPort(_) | Occasion::Unlock)
            | (Step::FccAuth(_), Occasion::Device) => {}
            (Step::Switch(switch), _) => planned.push(switching(switch, stand, policy)),
            (Step::Configuration { wish, unconfigured }, _) => {
                planned.push(configuring(*wish, *unconfigured, stand, quirk, policy));
            }
            // A new configuration brings new ports, and these have events of their own.
            (Step::FccAuth(_), _) if planned.iter().any(|planned| matches!(planned, Planned::Act(_))) => {}
            (Step::FccAuth(procedure), _) => planned.extend(unlocking(procedure, occasion, stand, quirk, policy)),
        }
    }
    planned
}

fn switching(switch: &Switch, stand: &Stand, policy: &Resolved) -> Planned {
    let step = "switch";
    if !policy.switch.value {
        return withheld(step, format!("`switch = false` in {}", policy.switch.origin));
    }
    if !switch.needs_interfaces() {
        return Planned::Act(Action::Switch { switch: switch.clone(), target: Target::default() });
    }
    let configurations = match &stand.descriptors {
        Some(Ok(descriptors)) => &descriptors.configurations,
        Some(Err(why)) => return cannot(step, why, "plug the device in again; if that does not help, report it"),
        None => return stands(step, "its interfaces are not known"),
    };
    let first = configurations.first().and_then(|configuration| configuration.interfaces.first());
    if let Some(class) = first.map(|first| first.class).filter(|class| switch.target_class == Some(*class)) {
        return stands(step, &format!("it has switched already: its first interface is of class {class:02x}"));
    }
    let ops = switch.ops();
    let wanted = ops.iter().rev().find_map(|op| if let Op::SetConfiguration(value) = op { Some(*value) } else { None });
    if wanted.is_some() && wanted == stand.configuration {
        return stands(step, &format!("configuration {} is active", name(wanted)));
    }
    let active = match (configurations.as_slice(), stand.configuration) {
        ([only], _) => Some(only),
        (several, active) => several.iter().find(|configuration| Some(configuration.value) == active),
    };
    let interfaces = active.map(|active| active.interfaces.as_slice()).unwrap_or_default();
    let spoken_to = match switch.interface {
        Some(number) => interfaces.iter().find(|interface| interface.number == number),
        None => interfaces.first(),
    };
    let Some(interface) = spoken_to else { return stands(step, "it has not the interface that the switch speaks to") };
    if ops.iter().any(Op::is_cbw) && interface.class != CLASS_MASS_STORAGE {
        // A phone, or the same ID in modem mode: SCSI commands are not for it.
        return stands(step, &format!("its interface {} is no mass storage", interface.number));
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
    // Only a CBW has an answer; there are devices that hear messages on an endpoint without a fellow.
    if (target.out.is_none() && ops.iter().any(|op| matches!(op, Op::Bulk(_))))
        || (target.r#in.is_none() && ops.iter().any(Op::is_cbw))
    {
        return cannot(step, "its interface has not the bulk endpoints that the switch needs", "report it");
    }
    Planned::Act(Action::Switch { switch: switch.clone(), target })
}

fn configuring(wish: Wish, unconfigured: Option<Duration>, stand: &Stand, quirk: &Quirk, policy: &Resolved) -> Planned {
    let step = "configuration";
    let descriptors = match &stand.descriptors {
        Some(Ok(descriptors)) => descriptors,
        Some(Err(why)) => return cannot(step, why, "plug the modem in again; if that does not help, report it"),
        None => return stands(step, "its configurations are not known"),
    };
    let configurations = &descriptors.configurations;
    if configurations.len() < 2 {
        return stands(step, "the modem has one configuration");
    }
    let wanted = wishes(wish, policy).into_iter().find_map(|wish| match wish {
        Wish::Preferred | Wish::Keep => None,
        Wish::Value(value) => configurations.iter().find(|configuration| configuration.value == value),
        Wish::Function(function) => configurations
            .iter()
            .find(|configuration| configuration.functions(&quirk.qmi_interfaces).contains(&function)),
    });
    // A run that was killed halfway has left it unconfigured, which nobody wants.
    let cut_short = stand.configuration.is_none() && unconfigured.is_some();
    let wanted = wanted.or(configurations.first().filter(|_| cut_short));
    match (wanted.map(|configuration| configuration.value), stand.configuration) {
        (None, _) => {
            stands(step, &format!("configuration {} is left as the kernel chose it", name(stand.configuration)))
        }
        (Some(to), Some(active)) if to == active => stands(step, &format!("configuration {to} is active")),
        // The kernel takes 0 for "unconfigured": a modem that numbers a configuration so cannot be given it.
        (Some(0), _) => stands(step, "the configuration that offers it is numbered 0 and cannot be set"),
        (Some(to), from) => Planned::Act(Action::Configure { from, to, unconfigured }),
    }
}

/// The administrator's word before the quirk's wish, the quirk's wish before the shipped default. Where the modem does
/// not offer the function that the administrator prefers, the quirk's wish counts.
fn wishes(wish: Wish, policy: &Resolved) -> Vec<Wish> {
    let preferred = policy.prefer.value.function().map_or(Wish::Keep, Wish::Function);
    match (policy.prefer.origin.is_administrator(), preferred, wish) {
        (true, Wish::Keep, _) | (_, _, Wish::Preferred) => vec![preferred],
        (true, _, _) => vec![preferred, wish],
        (false, _, _) => vec![wish],
    }
}

fn unlocking(
    procedure: &Procedure,
    occasion: &Occasion,
    stand: &Stand,
    quirk: &Quirk,
    policy: &Resolved,
) -> Vec<Planned> {
    let step = "fcc-auth";
    if !policy.fcc_auth.value {
        return vec![withheld(step, format!("`fcc-auth = false` in {}", policy.fcc_auth.origin))];
    }
    let is_meant = |port: &ControlPort| match occasion {
        Occasion::ControlPort(name) => port.name == *name,
        Occasion::Device | Occasion::ByHand | Occasion::Unlock => true,
    };
    let concerned = stand.ports.iter().filter(|port| is_meant(port));
    if matches!(occasion, Occasion::ControlPort(_)) && concerned.clone().next().is_none() {
        // A port of this modem that the lock is not asked on.
        return Vec::new();
    }
    // Which protocol a port speaks is the driver's to say; one that is bound to neither is left alone.
    let ports = concerned.filter_map(|port| {
        let protocol = Protocol::of_driver(port.driver.as_deref()?)?;
        Some(Planned::Act(Action::FccAuth {
            port: port.clone(),
            protocol,
            procedure: procedure.clone(),
            reset: quirk.online_after_reset,
        }))
    });
    // One port is enough: the lock is the modem's, not the port's.
    let first: Vec<Planned> = ports.take(1).collect();
    if first.is_empty() {
        let why = match procedure {
            Procedure::Rolling { interface, .. } => {
                format!("interface {interface} has no tty; the option driver of Linux 6.18 and later makes one")
            }
            _ => "no port speaks QMI or MBIM".to_owned(),
        };
        return vec![withheld(step, why)];
    }
    first
}

fn stands(step: &'static str, why: &str) -> Planned {
    Planned::Stands { step, why: why.to_owned() }
}

fn withheld(step: &'static str, why: String) -> Planned {
    Planned::Withheld { step, why }
}

fn cannot(step: &'static str, cause: &str, cure: &str) -> Planned {
    Planned::Cannot { step, trouble: Failure::new(cause, cure) }
}

fn name(configuration: Option<u8>) -> String {
    configuration.map_or("none".to_owned(), |value| value.to_string())
}
