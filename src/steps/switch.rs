//! `switch`: makes a modem leave its install mode, and knows afterwards whether it left.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::link::usb::{Usb, UsbError};
use crate::quirks::switch::Op;
use crate::steps::{Outcome, Trouble};

/// No modem takes longer to take or refuse one control transfer without data.
const TRANSFER: Duration = Duration::from_millis(600);

pub fn run(usb: &mut dyn Usb, ops: &[Op], deadline: Deadline) -> Outcome {
    let [Op::Control(control)] = ops else {
        return Outcome::Failed(Trouble::new(
            "this program can send one control message and nothing else",
            "see whether a newer one can do more",
        ));
    };
    let sent = usb.control_out(control.setup(0), &control.data.0, deadline.within(TRANSFER).remaining());
    if sent == Err(UsbError::Gone) || usb.wait_until_gone(deadline) {
        return left();
    }
    const CURE: &str = "if it stays so, plug it in again, or run `wwan-quirks apply`";
    match sent {
        // Real ones need up to a few seconds to leave, and no udev event lasts so long.
        Ok(_) => {
            Outcome::Unfinished(Trouble::new("the modem took the message, and has not left install mode yet", CURE))
        }
        Err(error) => Outcome::Failed(Trouble::new(format!("{error}, and the modem is still in install mode"), CURE)),
    }
}

/// The modem left, by our message or by somebody else's: the kernel's own switcher may have been first.
pub fn left() -> Outcome {
    Outcome::Done("the modem left install mode".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::usb::Setup;
    use crate::quirks::Switch;

    const SIERRA: Setup = Setup { request_type: 0x40, request: 0x0b, value: 1, index: 0 };

    struct Script {
        answer: Result<usize, UsbError>,
        leaves: bool,
        sent: Vec<Setup>,
    }

    impl Usb for Script {
        fn control_out(&mut self, setup: Setup, data: &[u8], _: Duration) -> Result<usize, UsbError> {
            assert!(data.is_empty());
            self.sent.push(setup);
            self.answer
        }

        fn control_in(&mut self, _: Setup, _: &mut [u8], _: Duration) -> Result<usize, UsbError> {
            unreachable!("nothing is asked of the modem")
        }

        fn wait_until_gone(&mut self, _: Deadline) -> bool {
            self.leaves
        }
    }

    fn outcome(answer: Result<usize, UsbError>, leaves: bool) -> Outcome {
        let mut script = Script { answer, leaves, sent: Vec::new() };
        let outcome =
            run(&mut script, &Switch::method("sierra").unwrap().ops(), Deadline::after(Duration::from_secs(1)));
        assert_eq!(script.sent, [SIERRA], "one message, once");
        outcome
    }

    #[test]
    fn what_counts_is_whether_the_modem_left() {
        for answer in [Ok(0), Err(UsbError::Stall), Err(UsbError::TimedOut), Err(UsbError::Gone)] {
            assert_eq!(outcome(answer, true), left(), "{answer:?}");
        }
        assert_eq!(outcome(Err(UsbError::Gone), false), left());
    }

    #[test]
    fn one_that_stays_is_not_said_to_have_left() {
        assert!(matches!(outcome(Ok(0), false), Outcome::Unfinished(_)));
        for answer in [Err(UsbError::Stall), Err(UsbError::TimedOut)] {
            assert!(matches!(outcome(answer, false), Outcome::Failed(_)), "{answer:?}");
        }
    }
}
