//! Whether the user wants the mobile radios off, from the kernel's rfkill switches and from NetworkManager's state.

use crate::host::root::{Root, read_limited};
use std::fs::{self, File};

/// The file in which NetworkManager stores the state of `nmcli radio` and of the desktop's switches, even while
/// NetworkManager does not run. USB modems have no rfkill switch of their own.
const NETWORK_MANAGER: &str = "/var/lib/NetworkManager/NetworkManager.state";
const LIMIT: usize = 4096;

/// The reason why the mobile radios must stay off. `None` if there is none.
pub(crate) fn wwan_is_blocked(root: &Root) -> Option<String> {
    blocked_switch(root).or_else(|| {
        let reason = || format!("mobile broadband is off in {NETWORK_MANAGER} (`nmcli radio wwan on` turns it on)");
        network_manager_blocks(root).then(reason)
    })
}

/// Whether NetworkManager is installed, but the file system with its state is not mounted yet: `/var/lib` is missing or
/// empty. If only its own directory is missing there, NetworkManager has never run, or the directory is mounted later,
/// which is not noticed.
pub(crate) fn is_unknown_yet(root: &Root) -> bool {
    let is_empty = || fs::read_dir(root.at("/var/lib")).map_or(true, |mut entries| entries.next().is_none());
    root.at("/usr/sbin/NetworkManager").exists() && is_empty()
}

fn blocked_switch(root: &Root) -> Option<String> {
    let switches = fs::read_dir(root.at("/sys/class/rfkill")).into_iter().flatten().flatten();
    let blocked = switches.filter_map(|switch| {
        let attribute = |name| fs::read_to_string(switch.path().join(name)).ok();
        let is = |name, value| attribute(name).is_some_and(|text| text.trim_end() == value);
        let name = attribute("name").unwrap_or_default();
        (is("type", "wwan") && (is("soft", "1") || is("hard", "1")))
            .then(|| format!("{} ({}) is blocked", switch.file_name().to_string_lossy(), name.trim_end()))
    });
    blocked.min()
}

/// Whether NetworkManager's state has `WWANEnabled=false` in its group `[main]`. A file that cannot be read does not
/// block the radios.
fn network_manager_blocks(root: &Root) -> bool {
    let state = File::open(root.at(NETWORK_MANAGER)).and_then(|file| read_limited(file, LIMIT)).unwrap_or_default();
    let state = String::from_utf8_lossy(&state);
    let mut group = "";
    let mut value = None;
    for line in state.lines().map(str::trim) {
        match (line.strip_prefix('[').and_then(|line| line.strip_suffix(']')), line.split_once('=')) {
            (Some(name), _) => group = name,
            (None, Some((key, text))) if group == "main" && key.trim_end() == "WWANEnabled" => {
                value = Some(text.trim())
            }
            _ => {}
        }
    }
    value == Some("false")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;

    #[test]
    fn a_blocked_wwan_switch_counts() {
        let root = TempRoot::new("rfkill");
        let switch = |number: u8, kind: &str, soft: &str, hard: &str| {
            for (name, value) in [("type", kind), ("soft", soft), ("hard", hard), ("name", "tpacpi_wwan_sw")] {
                root.write(&format!("/sys/class/rfkill/rfkill{number}/{name}"), format!("{value}\n"));
            }
            wwan_is_blocked(&root)
        };
        assert_eq!(wwan_is_blocked(&root), None);
        assert_eq!(switch(0, "wlan", "1", "1"), None);
        assert_eq!(switch(1, "wwan", "0", "0"), None);
        let blocked = Some("rfkill1 (tpacpi_wwan_sw) is blocked".to_owned());
        assert_eq!(switch(1, "wwan", "1", "0"), blocked);
        assert_eq!(switch(1, "wwan", "0", "1"), blocked);
    }

    #[test]
    fn mobile_broadband_disabled_in_network_manager_counts() {
        let root = TempRoot::new("network-manager");
        let file = root.at(NETWORK_MANAGER);
        let state = |bytes: &[u8]| {
            root.write(NETWORK_MANAGER, bytes);
            wwan_is_blocked(&root)
        };
        let reason = state(b"[main]\nNetworkingEnabled=true\nWirelessEnabled=true\nWWANEnabled=false\n").unwrap();
        assert!(reason.contains(NETWORK_MANAGER) && reason.contains("nmcli radio wwan on"), "{reason}");
        assert!(state(b"[other]\n\n# a comment\n[main]\nWWANEnabled = false").is_some());
        // The last value counts.
        assert!(state(b"[main]\nWWANEnabled=true\nWWANEnabled=false\n").is_some());
        let long = [b"[main]\nWWANEnabled=false\n".to_vec(), vec![b'#'; LIMIT]].concat();
        for bytes in [
            &b""[..],
            b"[main]\nWWANEnabled=true\n",
            b"[main]\nWWANEnabled=false\nWWANEnabled=true\n",
            b"[other]\nWWANEnabled=false\n",
            b"WWANEnabled=false\n",
            b"[main]\nWirelessEnabled=false\n#WWANEnabled=false\n",
            b"[main]\n\xff\xfe\0",
            &long,
        ] {
            assert_eq!(state(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(wwan_is_blocked(&root), None);
    }
}
