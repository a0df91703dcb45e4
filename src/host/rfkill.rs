//! The switches of a machine's radios, as the kernel's rfkill has them.

use crate::host::root::Root;
use std::fs;

/// Which switch, if any, holds the mobile radios off: somebody wants it so.
pub fn wwan_is_blocked(root: &Root) -> Option<String> {
    let switches = fs::read_dir(root.at("/sys/class/rfkill")).into_iter().flatten().flatten();
    let mut blocked: Vec<String> = switches
        .filter_map(|switch| {
            let attribute = |name| fs::read_to_string(switch.path().join(name)).ok();
            let is = |name, value| attribute(name).is_some_and(|text| text.trim_end() == value);
            let name = attribute("name").unwrap_or_default();
            (is("type", "wwan") && (is("soft", "1") || is("hard", "1")))
                .then(|| format!("{} ({}) is blocked", switch.file_name().to_string_lossy(), name.trim_end()))
        })
        .collect();
    blocked.sort_unstable();
    blocked.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_blocked_switch_of_mobile_radios_counts() {
        let path = std::env::temp_dir().join(format!("wwan-quirks-rfkill-{}", std::process::id()));
        let root = Root::new(&path);
        let switch = |number: u8, kind: &str, soft: &str, hard: &str| {
            let switch = path.join(format!("sys/class/rfkill/rfkill{number}"));
            fs::create_dir_all(&switch).unwrap();
            for (name, value) in [("type", kind), ("soft", soft), ("hard", hard), ("name", "tpacpi_wwan_sw")] {
                fs::write(switch.join(name), format!("{value}\n")).unwrap();
            }
            wwan_is_blocked(&root)
        };
        assert_eq!(wwan_is_blocked(&root), None);
        assert_eq!(switch(0, "wlan", "1", "1"), None);
        assert_eq!(switch(1, "wwan", "0", "0"), None);
        let blocked = Some("rfkill1 (tpacpi_wwan_sw) is blocked".to_owned());
        assert_eq!(switch(1, "wwan", "1", "0"), blocked);
        assert_eq!(switch(1, "wwan", "0", "1"), blocked);
        fs::remove_dir_all(&path).unwrap();
    }
}
