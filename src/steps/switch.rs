//! `switch`: makes a device leave install mode, and finds out whether the device disconnected, changed in place, or
//! stayed.
//!
//! Interfaces are detached or claimed only for transfers that need it. If the device stays, detached interfaces are
//! returned to the kernel's drivers. A failed transfer does not prevent the next one: only the final reaction of the
//! device counts.

use std::time::Duration;

use crate::database::quirks::switch::{Bytes, Op, Switch};
use crate::host::deadline::Deadline;
use crate::modem::link::usb::{Usb, UsbError};
use crate::usb::TransferTarget;

/// No device takes longer than this to accept or refuse a transfer, unless it never replies.
const TRANSFER: Duration = Duration::from_secs(3);
/// Bulk-only transport (USB Mass Storage Bulk-Only 1.0, 5.2).
const CSW_SIGNATURE: &[u8] = b"USBS";
const CSW: usize = 13;
/// No switch message requests more data than this.
const DATA_LIMIT: u32 = 4096;

/// The reaction of a device to the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// The device left the bus.
    Left,
    /// The device changed its configuration in place.
    Changed,
    /// The device is still in install mode. Contains its reply, or the first error.
    Stays(String),
    /// The device is still in install mode, and has not taken all messages. They can be sent again. Contains the first
    /// error.
    NotTaken(String),
}

/// Makes the device switch, then waits up to `leaving` for it to leave. `returned` means that the device has left and
/// come back in the same state. `configure` sets a configuration through the kernel, and returns whether it is then
/// active.
pub fn run(
    usb: &mut dyn Usb,
    switch: &Switch,
    target: &TransferTarget,
    returned: bool,
    configure: &mut dyn FnMut(u8) -> bool,
    leaving: Duration,
    deadline: Deadline,
) -> Reaction {
    let mut run = Transfers { usb, target, detached: Vec::new(), claimed: false, first_error: None, is_taken: true };
    let leaves_during =
        |usb: &mut dyn Usb, pause: Duration| !pause.is_zero() && usb.wait_until_gone(deadline.at_most(pause));
    if leaves_during(run.usb, switch.wait_before.0) {
        return Reaction::Left;
    }
    let ops = switch.part(returned);
    let mut changed = false;
    for (index, op) in ops.iter().enumerate() {
        // The remaining time is divided among the remaining operations and the wait for the device to leave, so that a
        // time-out leaves time for the others.
        let share = deadline.share(ops.len() - index + 1);
        let done = match op {
            Op::SetConfiguration(value) => {
                changed = configure(*value);
                Ok(())
            }
            Op::Sleep(pause) if leaves_during(run.usb, pause.0) => return Reaction::Left,
            op => run.carry_out(op, share),
        };
        match done {
            Ok(()) => {}
            // libusb also reports this error for a device that it is not allowed to use. Only the kernel knows whether
            // the device left.
            Err(UsbError::Gone) if run.usb.wait_until_gone(deadline.at_most(leaving)) => return Reaction::Left,
            Err(error) => {
                log::debug!("{op}: {error}");
                run.first_error.get_or_insert(error);
            }
        }
    }
    if leaves_during(run.usb, switch.release_delay.0) {
        return Reaction::Left;
    }
    run.end(changed, deadline.at_most(leaving))
}

struct Transfers<'a> {
    usb: &'a mut dyn Usb,
    target: &'a TransferTarget,
    /// Interfaces that were detached from the kernel's drivers.
    detached: Vec<u8>,
    claimed: bool,
    first_error: Option<UsbError>,
    /// Whether the device has taken all messages for an endpoint other than 0. Whether it has taken a control transfer
    /// that failed is not known.
    is_taken: bool,
}

impl Transfers<'_> {
    fn carry_out(&mut self, op: &Op, deadline: Deadline) -> Result<(), UsbError> {
        match op {
            Op::Detach => self.detach(),
            Op::Reset => self.usb.reset(),
            Op::Control(control) => {
                let timeout = timeout(deadline).min(control.timeout.0);
                let setup = control.setup(self.target.interface);
                if control.is_in() {
                    let mut data = vec![0; control.length.into()];
                    self.usb.control_in(setup, &mut data, timeout).map(drop)
                } else {
                    self.usb.control_out(setup, &control.data.0, timeout).map(drop)
                }
            }
            Op::Bulk(message) => {
                self.claim()?;
                self.bulk(message, deadline)
            }
            Op::InterruptOut(transfer) => {
                self.claim()?;
                let sent = self.usb.interrupt_out(transfer.endpoint, &transfer.data.0, timeout(deadline));
                self.is_taken &= sent != Err(UsbError::TimedOut);
                sent.map(drop)
            }
            Op::InterruptIn(transfer) => {
                self.claim()?;
                let mut data = vec![0; transfer.length.into()];
                // All repetitions share the time of one transfer.
                let deadline = deadline.at_most(TRANSFER);
                (0..transfer.times)
                    .try_for_each(|_| self.usb.interrupt_in(transfer.endpoint, &mut data, timeout(deadline)).map(drop))
            }
            Op::AlternateSetting(alternate) => {
                self.claim()?;
                self.usb.set_alternate(self.target.interface, *alternate)
            }
            Op::SetConfiguration(_) | Op::Sleep(_) | Op::WaitForReturn => Ok(()),
        }
    }

    fn detach(&mut self) -> Result<(), UsbError> {
        for interface in &self.target.interfaces {
            if self.usb.detach(*interface)? {
                self.detached.push(*interface);
            }
        }
        Ok(())
    }

    fn claim(&mut self) -> Result<(), UsbError> {
        if !self.claimed {
            let claimed = self.detach().and_then(|()| self.usb.claim(self.target.interface));
            self.claimed = claimed.is_ok();
            self.is_taken &= self.claimed;
            claimed?;
        }
        Ok(())
    }

    /// Sends one message. After a CBW, also reads the data stage and the CSW.
    fn bulk(&mut self, message: &Bytes, deadline: Deadline) -> Result<(), UsbError> {
        let missing = UsbError::Other(rusb::Error::NotFound);
        let bulk_out = self.target.bulk_out.ok_or(missing)?;
        let sent = self.usb.bulk_out(bulk_out, &message.0, timeout(deadline));
        self.is_taken &= sent != Err(UsbError::TimedOut);
        match sent {
            // The reply shows whether the command failed.
            Err(UsbError::Stall) => self.usb.clear_halt(bulk_out)?,
            sent => drop(sent?),
        }
        if !message.is_cbw() {
            return Ok(());
        }
        let bulk_in = self.target.bulk_in.ok_or(missing)?;
        let length = message.0.get(8..12).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
        let to_host = message.0.get(12).is_some_and(|flags| flags & 0x80 != 0);
        if length > 0 && to_host {
            let mut data = vec![0; usize::try_from(length.min(DATA_LIMIT)).unwrap_or(CSW).max(CSW)];
            match self.answer(bulk_in, &mut data, deadline) {
                // Many devices skip the data stage and send the CSW at once.
                Ok(got) if data.get(..got).is_some_and(|data| data.len() == CSW && data.starts_with(CSW_SIGNATURE)) => {
                    return status(&data);
                }
                Err(UsbError::Gone) => return Err(UsbError::Gone),
                Ok(_) | Err(_) => {}
            }
        }
        let mut csw = [0; CSW];
        self.answer(bulk_in, &mut csw, deadline)?;
        status(&csw)
    }

    /// Reads a reply. After a STALL, clears the halt and reads once more (Bulk-Only 1.0, figure 2).
    fn answer(&mut self, endpoint: u8, data: &mut [u8], deadline: Deadline) -> Result<usize, UsbError> {
        match self.usb.bulk_in(endpoint, data, timeout(deadline)) {
            Err(UsbError::Stall) => {
                self.usb.clear_halt(endpoint)?;
                self.usb.bulk_in(endpoint, data, timeout(deadline))
            }
            answer => answer,
        }
    }

    /// Finds out what the device did, and cleans up if the device stayed.
    fn end(mut self, changed: bool, deadline: Deadline) -> Reaction {
        if self.claimed {
            let _ = self.usb.release(self.target.interface);
        }
        if !changed && self.usb.wait_until_gone(deadline) {
            return Reaction::Left;
        }
        self.give_back();
        match self.first_error {
            _ if changed => Reaction::Changed,
            Some(error) if !self.is_taken => Reaction::NotTaken(error.to_string()),
            Some(error) => Reaction::Stays(error.to_string()),
            None => Reaction::Stays("the device accepted the message".to_owned()),
        }
    }

    fn give_back(&mut self) {
        for interface in self.detached.drain(..) {
            if let Err(error) = self.usb.attach(interface) {
                log::debug!("interface {interface} is left without its driver: {error}");
            }
        }
    }
}

/// The time for one transfer. For libusb, a time-out of 0 means unlimited.
fn timeout(deadline: Deadline) -> Duration {
    deadline.remaining().clamp(Duration::from_millis(1), TRANSFER)
}

/// A CSW with a failed status does not mean a failed transfer: some devices switch and report a failure. The status is
/// reported only if the device stays.
fn status(csw: &[u8]) -> Result<(), UsbError> {
    match csw.get(12) {
        Some(0) => Ok(()),
        _ => Err(UsbError::Refused),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::host::deadline::clock;
    use std::collections::VecDeque;

    /// Replies to transfers in turn, and records all actions.
    #[derive(Default)]
    pub(crate) struct Script {
        answers: VecDeque<Result<Vec<u8>, UsbError>>,
        leaves: bool,
        /// Each transfer takes all the time that it may.
        slow: bool,
        seen: Vec<String>,
        /// The time for the device to leave, each time.
        waits: Vec<Duration>,
    }

    impl Script {
        /// A device that leaves.
        pub(crate) fn that_leaves() -> Script {
            Script { leaves: true, ..Script::default() }
        }

        fn note(&mut self, what: String) -> Result<(), UsbError> {
            self.seen.push(what);
            Ok(())
        }

        fn answer(&mut self, what: String, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError> {
            self.seen.push(what);
            if self.slow {
                clock::wait(timeout);
            }
            let answer = self.answers.pop_front().unwrap_or(Ok(Vec::new()))?;
            data[..answer.len()].copy_from_slice(&answer);
            Ok(answer.len())
        }
    }

    fn hex(data: &[u8]) -> String {
        data.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    impl Usb for Script {
        fn control_out(&mut self, s: crate::usb::Setup, data: &[u8], timeout: Duration) -> Result<usize, UsbError> {
            self.answer(
                format!(
                    "control {:02x}{:02x} {:04x} {:04x} {}",
                    s.request_type,
                    s.request,
                    s.value,
                    s.index,
                    hex(data)
                ),
                &mut [],
                timeout,
            )
        }
        fn control_in(&mut self, s: crate::usb::Setup, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError> {
            self.answer(
                format!(
                    "control {:02x}{:02x} {:04x} {:04x} in {}",
                    s.request_type,
                    s.request,
                    s.value,
                    s.index,
                    data.len()
                ),
                data,
                timeout,
            )
        }
        fn bulk_out(&mut self, endpoint: u8, data: &[u8], timeout: Duration) -> Result<usize, UsbError> {
            self.answer(format!("out {endpoint:02x} {}", hex(data)), &mut [], timeout)
        }
        fn bulk_in(&mut self, endpoint: u8, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError> {
            self.answer(format!("in {endpoint:02x} {}", data.len()), data, timeout)
        }
        fn interrupt_out(&mut self, endpoint: u8, data: &[u8], timeout: Duration) -> Result<usize, UsbError> {
            self.answer(format!("int-out {endpoint:02x} {}", hex(data)), &mut [], timeout)
        }
        fn interrupt_in(&mut self, endpoint: u8, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError> {
            self.answer(format!("int-in {endpoint:02x} {}", data.len()), data, timeout)
        }
        fn clear_halt(&mut self, endpoint: u8) -> Result<(), UsbError> {
            self.note(format!("clear {endpoint:02x}"))
        }
        fn claim(&mut self, interface: u8) -> Result<(), UsbError> {
            self.note(format!("claim {interface}"))
        }
        fn release(&mut self, interface: u8) -> Result<(), UsbError> {
            self.note(format!("release {interface}"))
        }
        fn detach(&mut self, interface: u8) -> Result<bool, UsbError> {
            self.note(format!("detach {interface}"))?;
            Ok(true)
        }
        fn attach(&mut self, interface: u8) -> Result<(), UsbError> {
            self.note(format!("attach {interface}"))
        }
        fn set_alternate(&mut self, interface: u8, alternate: u8) -> Result<(), UsbError> {
            self.note(format!("alternate {interface} {alternate}"))
        }
        fn reset(&mut self) -> Result<(), UsbError> {
            self.note("reset".to_owned())
        }
        fn wait_until_gone(&mut self, deadline: Deadline) -> bool {
            self.waits.push(deadline.remaining());
            self.leaves
        }
    }

    fn go(method: &str, answers: Vec<Result<Vec<u8>, UsbError>>, leaves: bool) -> (Reaction, Vec<String>) {
        let mut script = Script { answers: answers.into(), leaves, ..Script::default() };
        let reaction = run_on(&mut script, method, Deadline::after(TRANSFER));
        (reaction, script.seen)
    }

    fn run_on(script: &mut Script, method: &str, deadline: Deadline) -> Reaction {
        let target = TransferTarget { interface: 0, bulk_out: Some(1), bulk_in: Some(0x81), interfaces: vec![0, 1] };
        let switch = Switch::method(method).unwrap();
        run(script, &switch, &target, false, &mut |_| true, TRANSFER, deadline)
    }

    fn took_it() -> Reaction {
        Reaction::Stays("the device accepted the message".to_owned())
    }

    const CSW_GOOD: &[u8] = b"USBS\x12\x34\x56\x78\0\0\0\0\0";

    #[test]
    fn sierra_is_one_message_and_nothing_else() {
        for answer in [Ok(vec![]), Err(UsbError::Stall), Err(UsbError::TimedOut), Err(UsbError::Gone)] {
            let (reaction, seen) = go("sierra", vec![answer], true);
            assert_eq!(reaction, Reaction::Left);
            assert_eq!(seen, ["control 400b 0001 0000 "]);
        }
        assert_eq!(go("sierra", vec![Ok(vec![])], false).0, took_it());
        for error in [UsbError::Stall, UsbError::TimedOut, UsbError::Gone] {
            assert_eq!(go("sierra", vec![Err(error)], false).0, Reaction::Stays(error.to_string()));
        }
    }

    #[test]
    fn a_device_that_stays_gets_its_drivers_back() {
        let (reaction, seen) = go("huawei-new", vec![Ok(vec![]), Ok(CSW_GOOD.to_vec())], false);
        assert_eq!(reaction, took_it());
        assert_eq!(
            seen,
            [
                "detach 0",
                "detach 1",
                "claim 0",
                "out 01 55534243123456780000000000000011062000000101000100000000000000",
                "in 81 13",
                "release 0",
                "attach 0",
                "attach 1"
            ]
        );
    }

    #[test]
    fn stalls_are_cleared_and_time_outs_do_not_end_the_list() {
        let (reaction, seen) =
            go("eject", vec![Err(UsbError::Stall), Err(UsbError::TimedOut), Ok(vec![]), Err(UsbError::Stall)], false);
        assert_eq!(reaction, Reaction::Stays(UsbError::TimedOut.to_string()));
        assert_eq!(seen.iter().filter(|what| what.starts_with("out")).count(), 4, "{seen:?}");
        assert_eq!(seen.iter().filter(|what| *what == "clear 01").count(), 1);
        assert_eq!(seen.iter().filter(|what| *what == "clear 81").count(), 1);
    }

    #[test]
    fn a_message_that_the_device_has_taken_is_not_lost_with_its_answer() {
        for (answers, expected) in [
            (vec![Err(UsbError::TimedOut)], Reaction::NotTaken(UsbError::TimedOut.to_string())),
            (vec![Ok(vec![]), Err(UsbError::TimedOut)], Reaction::Stays(UsbError::TimedOut.to_string())),
            (vec![Err(UsbError::Stall), Ok(CSW_GOOD.to_vec())], took_it()),
        ] {
            assert_eq!(go("huawei-new", answers, false).0, expected);
        }
    }

    #[test]
    fn a_device_that_leaves_between_transfers_has_left() {
        for good in 0..8 {
            let answers = (0..good).map(|n| Ok(if n % 2 == 1 { CSW_GOOD.to_vec() } else { vec![] }));
            let (reaction, seen) = go("eject", answers.chain([Err(UsbError::Gone)]).collect(), true);
            assert_eq!(reaction, Reaction::Left);
            assert!(!seen.iter().any(|what| what.starts_with("attach")));
        }
    }

    #[test]
    fn a_device_that_leaves_in_a_pause_ends_the_run() {
        const SIERRA: &str = "control 400b 0001 0000 ";
        for (switch, sent, all) in [
            ("do = [\"sierra\"]\nwait-before = 10", 0, 1),
            ("do = [\"sierra\", { sleep = 10 }, \"sierra\"]", 1, 2),
            ("do = [\"sierra\"]\nrelease-delay = 10", 1, 1),
        ] {
            let switch: Switch = toml::from_str(switch).unwrap();
            for (leaves, expected, sent) in [(true, Reaction::Left, sent), (false, took_it(), all)] {
                let mut script = Script { leaves, ..Script::default() };
                let (target, clock) = (TransferTarget::default(), clock::StoppedClock::stop());
                let deadline = Deadline::after(100 * TRANSFER);
                let reaction = run(&mut script, &switch, &target, false, &mut |_| true, TRANSFER, deadline);
                assert_eq!((reaction, clock.elapsed()), (expected, Duration::ZERO), "{switch}");
                assert_eq!(script.seen, vec![SIERRA; sent], "{switch}");
                assert!(script.waits.contains(&Duration::from_secs(10)), "{switch}: {:?}", script.waits);
            }
        }
    }

    #[test]
    fn slow_transfers_leave_time_for_the_device_to_leave() {
        for method in ["sierra", "eject", "huawei-new"] {
            let clock = clock::StoppedClock::stop();
            let budget = Duration::from_millis(1500);
            let mut script = Script { slow: true, ..Script::default() };
            run_on(&mut script, method, Deadline::after(budget));
            assert!(script.waits.last() >= Some(&(budget / 6)), "{method}: {:?}", script.waits);
            assert!(clock.elapsed() <= budget, "{method}: {:?}", clock.elapsed());
        }
    }

    #[test]
    fn repeated_transfers_share_the_time_of_one() {
        let clock = clock::StoppedClock::stop();
        let mut script = Script { slow: true, ..Script::default() };
        run_on(&mut script, "mobile-action", Deadline::after(100 * TRANSFER));
        let ops = Switch::method("mobile-action").unwrap().ops().len() as u32;
        // Each of the 150 repetitions still gets the shortest time-out of 1 ms.
        assert!(clock.elapsed() <= ops * TRANSFER + Duration::from_millis(150), "{:?}", clock.elapsed());
    }
}
