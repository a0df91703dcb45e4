//! Finds the quirk and the policy for a device.

use std::cell::Cell;

use crate::bus::DeviceId;
use crate::database::audit;
use crate::database::diagnostic::merge;
use crate::database::load::{self, Lookup};
use crate::database::policy::{Policy, Resolved};
use crate::database::quirks::{DeviceString, Quirk};
use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::modem::device::{Device, DeviceError};
use crate::serve::error::Error;
use crate::serve::run::LONGEST_PROBE;

/// The quirk and the policy for a known device.
pub(crate) struct MatchedDevice {
    pub quirk: Quirk,
    pub policy: Resolved,
}

/// The quirk and the policy for `device`, and the errors in files that concern it. There is no quirk if the database
/// does not know the device. If there are errors, nothing is done to the device: one of these files may say to leave it
/// alone.
pub(crate) fn lookup(root: &Root, device: &Device) -> (Option<MatchedDevice>, Vec<Error>) {
    lookup_by(root, device, Deadline::after(LONGEST_PROBE))
}

/// Like [`lookup`], but does not wait beyond the deadline for strings of the device that an entry or the policy names.
/// [`DeviceError::Held`] is then among the errors.
pub(crate) fn lookup_by(root: &Root, device: &Device, deadline: Deadline) -> (Option<MatchedDevice>, Vec<Error>) {
    let held = Cell::new(None);
    let read = |string| {
        text(device, string, deadline).unwrap_or_else(|error| {
            // A device that left has no strings. The snapshot reports that.
            if matches!(error, DeviceError::Held { .. }) {
                held.set(Some(error));
            }
            None
        })
    };
    let Lookup { quirk, mut errors } = load::lookup(root, device.id, read);
    let matched = quirk.map(|quirk| {
        let (policy, policy_errors) = Policy::load(root);
        merge(&mut errors, policy_errors);
        errors.extend(audit::policy_errors(root, &policy, device.id));
        let policy = policy.resolve(device.id, Some(&device.port), || read(DeviceString::Serial));
        MatchedDevice { quirk, policy }
    });
    let errors = errors.into_iter().map(Error::from).chain(held.take().map(Error::from)).collect();
    (matched, errors)
}

/// The name that an entry for `before` gives to `id`, which the device has after the switch.
pub(crate) fn name_after_switch(root: &Root, before: DeviceId, id: DeviceId) -> Option<String> {
    let (quirks, _) = load::all(root);
    let models = quirks.iter().filter_map(|quirk| quirk.model(before));
    models.flat_map(|model| &model.becomes).find(|target| target.id == id)?.name.clone()
}

/// A string of the device. `None` if it has no such string.
pub(crate) fn text(device: &Device, string: DeviceString, deadline: Deadline) -> Result<Option<String>, DeviceError> {
    Ok(match string {
        DeviceString::Manufacturer => device.attribute_by("manufacturer", deadline)?,
        DeviceString::Product => device.attribute_by("product", deadline)?,
        DeviceString::Serial => device.serial_by(deadline)?,
        DeviceString::ScsiVendor => device.scsi_attribute("vendor"),
        DeviceString::ScsiModel => device.scsi_attribute("model"),
        DeviceString::ScsiRevision => device.scsi_attribute("rev"),
        DeviceString::Subsystem => device.subsystem().map(|subsystem| subsystem.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;

    #[test]
    fn the_name_after_a_switch_is_that_of_the_target() {
        let root = TempRoot::new("after-switch");
        root.write(
            "/usr/share/wwan-quirks/quirks.d/x.toml",
            "schema = 1\n[[device]]\nid = { id = \"12d1:1446\", becomes = [\n  { id = \"12d1:1001\", name = \"A\" }, \
             { id = \"12d1:1002\", name = \"B\" }, \"12d1:1003\" ] }\nname = \"Stick\"\nsteps = [{ switch = \"huawei\" }]\n",
        );
        let [stick, one, two, unnamed, other] =
            ["12d1:1446", "12d1:1001", "12d1:1002", "12d1:1003", "12d1:1004"].map(|id| id.parse().unwrap());
        let name = |before, id| name_after_switch(&root, before, id);
        assert_eq!((name(stick, one).as_deref(), name(stick, two).as_deref()), (Some("A"), Some("B")));
        assert_eq!((name(stick, unnamed), name(stick, other), name(other, one)), (None, None, None));
    }
}
