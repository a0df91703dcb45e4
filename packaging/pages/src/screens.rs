//! Pictures of `status`, `explain` and `doctor` at each stage of the trip, from the output that the scenario `50-operator`
//! expects.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;

use crate::devices::escaped;

const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vm/scenarios/50-operator");
const STAGES: [&str; 5] = ["install-mode", "locked", "broken-policy", "to-do", "online"];
const LINE: usize = 18;
/// Width of a character of the 13px font, in tenths of a pixel.
const CHARACTER: usize = 79;

/// The file name and the text of each picture.
pub(crate) fn all() -> Result<Vec<(String, String)>, Box<dyn Error>> {
    STAGES.into_iter().map(|stage| Ok((format!("{stage}.svg"), picture(stage)?))).collect()
}

fn picture(stage: &str) -> Result<String, Box<dyn Error>> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (verb, command) in [("status", "status"), ("explain", "explain 1-1"), ("doctor", "doctor")] {
        let path = format!("{EXPECTED}/{stage}.{verb}");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        // The scenario replaces what differs from run to run.
        let text = text.replace("PORT", "1-1").replace("N s ago", "3 s ago");
        let text = text.replace("cdc-wdmN", "cdc-wdm0").replace("wwanN", "wwan0");
        if !lines.is_empty() {
            lines.push(("", String::new()));
        }
        lines.push(("prompt", format!("# wwan-quirks {command}")));
        lines.extend(text.lines().map(|line| (colour(verb, line), line.to_owned())));
    }
    let columns = lines.iter().map(|(_, line)| line.chars().count()).max().unwrap_or(0);
    let (width, height) = (columns * CHARACTER / 10 + 24, lines.len() * LINE + 24);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>wwan-quirks status, explain and doctor: {stage}</title>\n\
         <style>text {{ font: 13px monospace; fill: #ddd; white-space: pre }} .prompt {{ fill: #8ab4f8 }}\n\
         .bold {{ font-weight: bold }} .red {{ fill: #ff7b72 }} .green {{ fill: #7ee787 }} .yellow {{ fill: #e3b341 }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1b1f24\"/>\n"
    );
    for (row, (class, line)) in lines.iter().enumerate() {
        let line = escaped(line);
        if !line.is_empty() {
            let y = row * LINE + 25;
            writeln!(svg, "<text x=\"12\" y=\"{y}\" class=\"{class}\" xml:space=\"preserve\">{line}</text>")?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// The colour that `status` gives to a row on a terminal.
fn colour(verb: &str, line: &str) -> &'static str {
    match line.split_whitespace().next() {
        _ if verb != "status" => "",
        _ if !line.starts_with(' ') => "bold",
        Some("problem") => "red",
        Some("suppressed") => "yellow",
        Some("radio") if line.contains("the radio is online") => "green",
        _ => "",
    }
}
