//! The list of devices, for human readers.

use std::fmt::Write as _;

use wwan_quirks::database::quirks::{Quirk, Seen, Select, Step};

const INTRO: &str = "wwan-quirks acts on these devices. `seen` says how well each entry is confirmed.";
const SEEN: &str = "**hardware**: the action worked on such a device. **capture**: its descriptors or messages were recorded. \
    **table**: taken from a table of another project. **hint**: one unconfirmed mention.";

/// One row, for one device.
struct Row<'a> {
    id: String,
    name: &'a str,
    action: String,
    seen: &'static str,
    source: &'a str,
}

/// All devices, in the order of their IDs.
fn rows(quirks: &[Quirk]) -> Vec<Row<'_>> {
    let row = |quirk| move |id: wwan_quirks::bus::DeviceId| row(quirk, id);
    let mut rows: Vec<Row> = quirks.iter().flat_map(|quirk| quirk.ids().map(row(quirk))).collect();
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows
}

fn row(quirk: &Quirk, id: wwan_quirks::bus::DeviceId) -> Row<'_> {
    let actions: Vec<String> = quirk.steps.iter().map(action).collect();
    let action = if actions.is_empty() { "none: see `explain`".to_owned() } else { actions.join("; ") };
    Row {
        id: id.to_string(),
        name: quirk.name_of(id),
        action,
        seen: quirk.seen.map_or("", |seen| seen.name()),
        source: quirk.source.as_deref().unwrap_or_default(),
    }
}

fn action(step: &Step) -> String {
    match step {
        Step::Switch(switch) if switch.to_string().contains(':') => "leaves install mode (custom message)".to_owned(),
        Step::Switch(switch) => format!("leaves install mode ({switch})"),
        Step::Configuration { select: Select::Preferred, .. } => {
            "gets the USB configuration that the policy prefers".to_owned()
        }
        Step::Configuration { select: Select::Keep, .. } => "keeps the kernel's USB configuration".to_owned(),
        Step::Configuration { select: Select::Function(function), fallback, .. } => {
            let otherwise = fallback.map_or(String::new(), |value| format!(", or configuration {value}"));
            format!("gets the USB configuration with {}{otherwise}", function.name().to_uppercase())
        }
        Step::Configuration { select: Select::Value(value), .. } => format!("gets USB configuration {value}"),
        Step::FccAuth(procedure) => format!("FCC unlock ({procedure})"),
    }
}

pub(crate) fn markdown(quirks: &[Quirk]) -> String {
    let rows = rows(quirks);
    let mut text = format!(
        "# Devices\n\n<!-- Generated from the database by `make pages`. -->\n\n{INTRO}\n\n[devices.html](devices.html) is the same \
         list with a search box. It works offline. `wwan-quirks explain VID:PID` shows more about a device.\n\n\
         ![The page after a search for 1199 FCC](devices.png)\n\n\
         {} entries. {SEEN}\n\n| ID | name | action | seen | source |\n|---|---|---|---|---|\n",
        rows.len()
    );
    for Row { id, name, action, seen, source } in rows {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {id} | {} | {} | {seen} | {} |", cell(name), cell(&action), cell(source));
    }
    text + &untried(quirks)
}

/// Text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The modems whose unlock has not been confirmed on hardware.
fn untried(quirks: &[Quirk]) -> String {
    let is_untried = |quirk: &&Quirk| quirk.procedure().is_some() && quirk.seen != Some(Seen::Hardware);
    let mut ids: Vec<String> = quirks
        .iter()
        .filter(is_untried)
        .flat_map(|quirk| quirk.ids().map(|id| format!("| {id} | {} |\n", cell(quirk.name_of(id)))))
        .collect();
    ids.sort_unstable();
    format!(
        "\n## Unlocks without a report from hardware\n\nThere is no report yet that the unlock works on these modems. \
         `wwan-quirks status` also says so. If you have one of them, please send us the output of `sudo wwan-quirks \
         report`, and tell us whether the radio came online.\n\n| ID | name |\n|---|---|\n{}",
        ids.concat()
    )
}

/// A self-contained HTML page.
pub(crate) fn html(quirks: &[Quirk]) -> String {
    let mut body = String::new();
    let rows = rows(quirks);
    for Row { id, name, action, seen, source } in &rows {
        let (name, action, source) = (escaped(name), escaped(action), escaped(source));
        let _ = writeln!(body, "<tr><td>{id}<td>{name}<td>{action}<td>{seen}<td>{source}");
    }
    PAGE.replace("COUNT", &rows.len().to_string()).replace("ROWS", &body)
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>wwan-quirks: devices</title>
<style>
body { font: 16px/1.5 sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222; background: #fff }
input { font: inherit; width: 100%; padding: .5rem; box-sizing: border-box }
table { border-collapse: collapse; width: 100%; margin-top: 1rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
td:first-child { font-family: monospace; white-space: nowrap }
code { background: #f2f2f2; padding: 0 .2rem }
</style>
<h1>Devices that wwan-quirks knows</h1>
<p>wwan-quirks acts on these devices. <code>seen</code> says how well each entry is confirmed.
<code>wwan-quirks explain VID:PID</code> shows more about a device.</p>
<p><label for="search">Search by ID, name or action, for example <code>1199:9079 FCC</code>:</label>
<input id="search" type="search" autofocus autocomplete="off"></p>
<p id="found" role="status">COUNT devices</p>
<table>
<thead><tr><th>ID<th>name<th>action<th>seen<th>source</thead>
<tbody>
ROWS</tbody>
</table>
<p>hardware: the action worked on such a device. capture: its descriptors or messages were recorded. table: from a table of
another project. hint: one unconfirmed mention.</p>
<script>
const rows = Array.from(document.querySelectorAll("tbody tr"), row => [row, row.textContent.toLowerCase()]);
const search = document.getElementById("search"), found = document.getElementById("found");
function filter() {
  const words = search.value.toLowerCase().split(/\s+/);
  let shown = 0;
  for (const [row, text] of rows) {
    row.hidden = !words.every(word => text.includes(word));
    shown += !row.hidden;
  }
  found.textContent = shown + " of " + rows.length + " devices" +
    (shown ? "" : ": not known. `wwan-quirks report` prints what a maintainer needs to add it");
}
search.addEventListener("input", filter);
if (location.hash) { search.value = decodeURIComponent(location.hash.slice(1)); filter(); }
</script>
</html>
"#;
