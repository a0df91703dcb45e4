//! Who asked for a run, and what follows from that.

use std::time::Duration;

use crate::database::policy::Resolved;
use crate::modem::access::Sharing;

/// Of ModemManager's 5 s, what is left after starting and ending a process.
const MODEM_MANAGER: Duration = Duration::from_millis(4500);
/// What the look before sleep may take for all modems together.
pub(crate) const BEFORE_SLEEP: Duration = Duration::from_millis(700);

/// Who asked for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The kernel: the device or the port is new.
    Uevent,
    /// `udevadm trigger`, at boot or by an administrator: udev cannot tell the two apart (`SYNTH_UUID=0`).
    Coldplug,
    /// A person, by `udevadm trigger` with `--uuid`, `--settle` or `--wait`.
    Requested,
    /// A person, by `wwan-quirks apply`.
    Command,
    /// A systemd unit, or the process that continues after an event on a system without systemd.
    Unit,
    /// ModemManager, by its own unlock mechanism.
    ModemManager,
}

impl Trigger {
    /// A udev event, or what stands for one elsewhere: it holds up other events.
    pub fn is_event(self) -> bool {
        matches!(self, Trigger::Uevent | Trigger::Coldplug | Trigger::Requested)
    }

    /// What the whole run may take.
    pub fn budget(self, policy: &Resolved) -> Duration {
        match self {
            Trigger::Uevent | Trigger::Coldplug | Trigger::Requested => policy.hook.value,
            Trigger::Command | Trigger::Unit => policy.modem_ready.value,
            Trigger::ModemManager => MODEM_MANAGER,
        }
    }

    /// Whether other programs may use the modem's ports by now.
    pub fn sharing(self) -> Sharing {
        if self == Trigger::Uevent { Sharing::New } else { Sharing::Possible }
    }

    /// Whether a person named this modem, and wants a message and an exit status for it.
    pub fn is_explicit(self) -> bool {
        matches!(self, Trigger::Command | Trigger::ModemManager)
    }

    /// Whether the administrator asked for the unlock, whatever the policy says: for ModemManager by a link.
    pub fn overrides_policy(self) -> bool {
        self == Trigger::ModemManager
    }

    /// Whether a modem that other programs use may be reconfigured.
    pub fn may_interrupt_users(self) -> bool {
        self == Trigger::Command
    }

    /// Whether the guard against loops applies. What continues after an event is part of the same loop.
    pub fn is_guarded(self) -> bool {
        self.is_event() || self == Trigger::Unit
    }

    /// Whether the process may serve other modems after this one, which the sandbox does not allow.
    pub fn serves_more(self) -> bool {
        self == Trigger::Command
    }

    /// Whether the run opens the port again if other programs come to it, which the sandbox does not allow.
    pub fn may_reopen(self) -> bool {
        !self.is_event()
    }
}
