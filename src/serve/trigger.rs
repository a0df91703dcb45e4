//! Who triggered a run, and what the run may do.

use std::time::Duration;

use crate::database::policy::Resolved;
use crate::modem::access::Sharing;

/// What remains of ModemManager's 5 s after the time for starting and ending a process.
const MODEM_MANAGER: Duration = Duration::from_millis(4500);
/// The time limit of the run before sleep. Each modem has a run of its own.
pub(crate) const BEFORE_SLEEP: Duration = Duration::from_millis(700);

/// Who triggered a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The kernel: the device or the port is new.
    Uevent,
    /// `udevadm trigger`, at boot or by an administrator: udev cannot tell the two apart (`SYNTH_UUID=0`).
    Coldplug,
    /// A person, by `udevadm trigger` with `--uuid`, `--settle` or `--wait`.
    Requested,
    /// A person, by `wwan-quirks apply` for all modems.
    Command,
    /// A person, by a verb that names this modem.
    Named,
    /// A systemd unit or a boot script, or the process that continues after an event on a system without systemd.
    Unit,
    /// ModemManager, through its own unlock mechanism.
    ModemManager,
    /// The process that continues after ModemManager's call, if ModemManager held the port.
    AfterModemManager,
}

impl Trigger {
    /// Whether this is a udev event, or its equivalent on other systems. It holds up other events.
    pub(crate) fn is_event(self) -> bool {
        matches!(self, Trigger::Uevent | Trigger::Coldplug | Trigger::Requested)
    }

    /// The time limit of the whole run.
    pub(crate) fn budget(self, policy: &Resolved) -> Duration {
        match self {
            Trigger::Uevent | Trigger::Coldplug | Trigger::Requested => policy.hook.value,
            Trigger::Command | Trigger::Named | Trigger::Unit | Trigger::AfterModemManager => policy.modem_ready.value,
            Trigger::ModemManager => MODEM_MANAGER,
        }
    }

    /// Whether other programs may already use the modem's ports.
    pub(crate) fn sharing(self) -> Sharing {
        if self == Trigger::Uevent { Sharing::New } else { Sharing::Possible }
    }

    /// Whether a person ran a verb.
    pub(crate) fn is_verb(self) -> bool {
        matches!(self, Trigger::Command | Trigger::Named)
    }

    /// Whether the caller named this modem.
    pub(crate) fn is_named(self) -> bool {
        matches!(self, Trigger::Named | Trigger::ModemManager)
    }

    /// Whether the caller expects a message and an exit status.
    pub(crate) fn is_explicit(self) -> bool {
        self.is_verb() || self.is_named()
    }

    /// Whether the administrator asked for the unlock regardless of the policy. For ModemManager, a link asks for it.
    pub(crate) fn overrides_policy(self) -> bool {
        matches!(self, Trigger::ModemManager | Trigger::AfterModemManager)
    }

    /// Whether the run leaves alone a modem that other programs use. A new device has no users, and a person who names
    /// a device may interrupt them.
    pub(crate) fn spares_users(self) -> bool {
        !matches!(self, Trigger::Uevent | Trigger::Named)
    }

    /// Whether the run leaves alone a device whose drive is in use. The unit does not: it continues the event of a new
    /// device, whose drive a desktop may have mounted meanwhile.
    pub(crate) fn spares_drives(self) -> bool {
        self.spares_users() && self != Trigger::Unit
    }

    /// Whether the guard against loops applies. A process that continues after an event is part of the same loop.
    pub(crate) fn is_guarded(self) -> bool {
        self.is_event() || self == Trigger::Unit
    }

    /// Whether the run waits until another program closes the port.
    pub(crate) fn waits_for_port(self) -> bool {
        matches!(self, Trigger::Unit | Trigger::AfterModemManager)
    }

    /// Whether the run may reopen the port if other programs open it. The sandbox would not allow that.
    pub(crate) fn may_reopen(self) -> bool {
        !self.is_event()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trigger_has_its_rights() {
        use Trigger::*;
        let all = [Uevent, Coldplug, Requested, Command, Named, Unit, ModemManager, AfterModemManager];
        let of = |has: fn(Trigger) -> bool| all.into_iter().filter(|trigger| has(*trigger)).collect::<Vec<_>>();
        assert_eq!(of(Trigger::is_event), [Uevent, Coldplug, Requested]);
        assert_eq!(of(|trigger| trigger.sharing() == Sharing::New), [Uevent]);
        assert_eq!(of(Trigger::is_verb), [Command, Named]);
        assert_eq!(of(Trigger::is_named), [Named, ModemManager]);
        assert_eq!(of(Trigger::is_explicit), [Command, Named, ModemManager]);
        assert_eq!(of(Trigger::overrides_policy), [ModemManager, AfterModemManager]);
        assert_eq!(of(|trigger| !trigger.spares_users()), [Uevent, Named]);
        assert_eq!(of(|trigger| !trigger.spares_drives()), [Uevent, Named, Unit]);
        assert_eq!(of(Trigger::is_guarded), [Uevent, Coldplug, Requested, Unit]);
        assert_eq!(of(Trigger::waits_for_port), [Unit, AfterModemManager]);
        assert_eq!(of(Trigger::may_reopen), [Command, Named, Unit, ModemManager, AfterModemManager]);
    }
}
