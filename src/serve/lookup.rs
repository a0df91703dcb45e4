//! Finds the quirk and the policy for a device.

use crate::bus::DeviceId;
use crate::database::diagnostic::merge;
use crate::database::policy::{Policy, Resolved};
use crate::database::quirks::{self, DeviceString, Lookup, Quirk};
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::Error;

/// The quirk and the policy for a known device.
pub(crate) struct MatchedDevice {
    pub quirk: Quirk,
    pub policy: Resolved,
    /// All files that concern the device were read. If one was not, it might have said to leave the device alone.
    pub complete: bool,
}

/// The quirk and the policy for `device`, and the errors in files that concern it. There is no quirk if the database
/// does not know the device.
pub(crate) fn lookup(root: &Root, device: &Device) -> (Option<MatchedDevice>, Vec<Error>) {
    let Lookup { quirk, mut errors } = quirks::lookup(root, device.id, |wanted| text(device, wanted));
    let matched = quirk.map(|quirk| {
        let (policy, policy_errors) = Policy::load(root);
        merge(&mut errors, policy_errors);
        let policy = policy.resolve(device.id, Some(&device.port), || device.serial());
        MatchedDevice { quirk, policy, complete: errors.is_empty() }
    });
    (matched, errors.into_iter().map(Error::from).collect())
}

/// The name that an entry for `before` gives to `id`, which the device has after the switch.
pub(crate) fn name_after_switch(root: &Root, before: DeviceId, id: DeviceId) -> Option<String> {
    let (quirks, _) = quirks::all(root);
    let models = quirks.iter().filter_map(|quirk| quirk.model(before));
    models.flat_map(|model| &model.becomes).find(|target| target.id == id)?.name.clone()
}

fn text(device: &Device, text: DeviceString) -> Option<String> {
    match text {
        DeviceString::Manufacturer => device.attribute("manufacturer").ok(),
        DeviceString::Product => device.attribute("product").ok(),
        DeviceString::Serial => device.serial(),
        DeviceString::ScsiVendor => device.scsi_attribute("vendor"),
        DeviceString::ScsiModel => device.scsi_attribute("model"),
        DeviceString::ScsiRevision => device.scsi_attribute("rev"),
        DeviceString::Subsystem => device.subsystem().map(|subsystem| subsystem.to_string()),
    }
}
