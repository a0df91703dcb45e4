//! AT commands: lines of text, as in ITU-T V.250.

use super::Framer;
use super::Head;

/// Longer lines are discarded as noise.
const MAX_LENGTH: usize = 1024;

/// Splits the input from a tty into lines, including their line endings. NUL and bytes that are not text are kept.
pub fn framer() -> Framer {
    Framer::new(head, MAX_LENGTH)
}

fn head(bytes: &[u8]) -> Head {
    match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) => Head::Message(end + 1),
        None if bytes.len() > MAX_LENGTH => Head::Noise,
        None => Head::Incomplete,
    }
}

/// Parses the final result of a reply: success, or the error text of the modem. `None` for other lines: the reply
/// itself, the echo, or unsolicited messages. Some modems use lower case.
pub fn final_result(line: &str) -> Option<Result<(), &str>> {
    match line.to_ascii_uppercase().as_str() {
        "OK" => Some(Ok(())),
        "ERROR" | "COMMAND NOT SUPPORT" => Some(Err(line)),
        upper if upper.starts_with("+CME ERROR:") || upper.starts_with("+CMS ERROR:") => Some(Err(line)),
        _ => None,
    }
}

/// Whether a final error means that the modem does not know the command: ERROR of V.250, or the errors 4 (operation not
/// supported) and 100 (unknown) of 3GPP TS 27.007, as a number or as text.
pub(crate) fn is_unsupported(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    match of_equipment(&error) {
        Some(error) => matches!(error, "4" | "100" | "operation not supported" | "unknown"),
        None => matches!(error.as_str(), "error" | "command not support"),
    }
}

/// Whether a final error means that the modem may know the command later: error 14 of 3GPP TS 27.007, as a number or as
/// text.
pub(crate) fn is_busy(error: &str) -> bool {
    matches!(of_equipment(&error.to_ascii_lowercase()), Some("14" | "sim busy"))
}

/// The error in a line in lower case: `14` in `+cme error: 14`.
fn of_equipment(error: &str) -> Option<&str> {
    error.strip_prefix("+cme error:").map(str::trim)
}

/// The values in a line with this name: `+CFUN: 1,0` has the values `1` and `0` of `+CFUN`. An EM7305 omits the `!` of
/// a name.
pub fn values<'a>(line: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let (head, values) = line.split_once(':')?;
    let is_name =
        [Some(name), name.strip_prefix('!')].into_iter().flatten().any(|name| head.eq_ignore_ascii_case(name));
    is_name.then(|| values.split(',').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_independently_of_reads() {
        let stream = b"\r\n+GTFCCLOCKGEN: 0x1234abcd\r\n\r\nOK\r\n";
        for step in 1..stream.len() {
            let mut framer = framer();
            let mut lines = Vec::new();
            for read in stream.chunks(step) {
                framer.push(read);
                while let Some(line) = framer.next_message() {
                    lines.push(String::from_utf8_lossy(line).trim().to_owned());
                }
            }
            lines.retain(|line| !line.is_empty());
            assert_eq!(lines, ["+GTFCCLOCKGEN: 0x1234abcd", "OK"]);
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut framer = framer();
        for _ in 0..20 {
            framer.push(&[b'x'; 1000]);
            assert_eq!(framer.next_message(), None);
        }
        assert!(framer.skipped() > 17_000);
        framer.push(b"\r\nOK\r\n");
        let mut last = Vec::new();
        while let Some(line) = framer.next_message() {
            if line.len() > 1 {
                last = line.to_vec();
            }
        }
        assert_eq!(last, b"OK\r");
    }

    #[test]
    fn results_and_values_are_distinguished() {
        assert_eq!(final_result("OK"), Some(Ok(())));
        assert_eq!(final_result("+CME ERROR: 3"), Some(Err("+CME ERROR: 3")));
        assert_eq!(final_result("+CFUN: 1"), None);
        assert_eq!(final_result("ok"), Some(Ok(())));
        assert_eq!(final_result("Error"), Some(Err("Error")));
        assert!(is_busy("+CME ERROR: 14") && is_busy("+CME ERROR: SIM busy") && !is_busy("+CME ERROR: 4"));
        for (error, is_unsupported) in [
            ("ERROR", true),
            ("COMMAND NOT SUPPORT", true),
            ("+CME ERROR: 4", true),
            ("+CME ERROR: operation not supported", true),
            ("+CME ERROR: 14", false),
            ("+CMS ERROR: 4", false),
        ] {
            assert_eq!(super::is_unsupported(error), is_unsupported, "{error}");
        }
        assert_eq!(values("+CFUN: 1,0", "+CFUN"), Some(vec!["1", "0"]));
        assert_eq!(values("+cfun:4", "+CFUN"), Some(vec!["4"]));
        assert_eq!(values("+CFUNNY: 1", "+CFUN"), None);
        assert_eq!(values("!UDUSBCOMP: 6", "!UDUSBCOMP"), Some(vec!["6"]));
        assert_eq!(values("UDUSBCOMP: 6", "!UDUSBCOMP"), Some(vec!["6"]));
        assert_eq!(values("CFUN: 1", "+CFUN"), None);
        assert_eq!(values("RDY", "+CFUN"), None);
    }
}
