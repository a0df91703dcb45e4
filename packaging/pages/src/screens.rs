//! Pictures of `status`, `explain` and `doctor` at each stage of the trip, from the output on a terminal that the scenario
//! `50-operator` expects.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;

use crate::devices::escaped;

const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vm/scenarios/50-operator");
const STAGES: [&str; 5] = ["install-mode", "locked", "broken-policy", "to-do", "online"];
const LINE: usize = 18;
/// The SGR codes in that output, and their styles.
const CODES: [(&str, &str); 5] = [("<0>", ""), ("<1>", "bold"), ("<31>", "red"), ("<32>", "green"), ("<33>", "yellow")];
/// Width of a character of the 13px font, in tenths of a pixel.
const CHARACTER: usize = 79;

/// The file name and the text of each picture.
pub(crate) fn all() -> Result<Vec<(String, String)>, Box<dyn Error>> {
    STAGES.into_iter().map(|stage| Ok((format!("{stage}.svg"), picture(stage)?))).collect()
}

fn picture(stage: &str) -> Result<String, Box<dyn Error>> {
    let mut lines: Vec<Vec<(&str, String)>> = Vec::new();
    for (verb, command) in [("status", "status"), ("explain", "explain 1-1"), ("doctor", "doctor")] {
        let path = format!("{EXPECTED}/{stage}.{verb}");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        // The scenario replaces what differs from run to run.
        let text = text.replace("PORT", "1-1").replace("N s ago", "3 s ago");
        let text = text.replace("cdc-wdmN", "cdc-wdm0").replace("wwanN", "wwan0");
        if !lines.is_empty() {
            lines.push(Vec::new());
        }
        lines.push(vec![("prompt", format!("# wwan-quirks {command}"))]);
        // The scenario, not the program, prints the exit status.
        lines.extend(text.lines().filter(|line| !line.starts_with("exit status ")).map(styled));
    }
    let length = |line: &Vec<(&str, String)>| line.iter().map(|(_, text)| text.chars().count()).sum::<usize>();
    let columns = lines.iter().map(length).max().unwrap_or(0);
    let (width, height) = (columns * CHARACTER / 10 + 24, lines.len() * LINE + 24);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>wwan-quirks status, explain and doctor: {stage}</title>\n\
         <style>text {{ font: 13px monospace; fill: #ddd; white-space: pre }} .prompt {{ fill: #8ab4f8 }}\n\
         .bold {{ font-weight: bold }} .red {{ fill: #ff7b72 }} .green {{ fill: #7ee787 }} .yellow {{ fill: #e3b341 }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1b1f24\"/>\n"
    );
    for (row, line) in lines.iter().enumerate() {
        if line.is_empty() {
            continue;
        }
        write!(svg, "<text x=\"12\" y=\"{}\" xml:space=\"preserve\">", row * LINE + 25)?;
        for (style, text) in line {
            match (*style, escaped(text)) {
                ("", text) => svg.push_str(&text),
                (style, text) => write!(svg, "<tspan class=\"{style}\">{text}</tspan>")?,
            }
        }
        svg.push_str("</text>\n");
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// The parts of a line, each with its style.
fn styled(line: &str) -> Vec<(&'static str, String)> {
    let (mut parts, mut style, mut rest) = (Vec::new(), "", line);
    loop {
        let code = CODES.iter().filter_map(|(code, style)| Some((rest.find(code)?, code.len(), *style))).min();
        let (end, length, next) = code.unwrap_or((rest.len(), 0, ""));
        if end > 0 {
            parts.push((style, rest[..end].to_owned()));
        }
        rest = &rest[end + length..];
        style = next;
        if code.is_none() {
            return parts;
        }
    }
}
