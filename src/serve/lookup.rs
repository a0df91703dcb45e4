//! Which quirk and which policy apply to a device.

use crate::database::policy::{Policy, Resolved};
use crate::database::quirks::{self, DeviceString, Quirk};
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::Error;

/// A device that the database knows, with the policy for it.
pub struct MatchedDevice {
    pub quirk: Quirk,
    pub policy: Resolved,
    /// Every file that concerns the device could be read. Otherwise one of them may say to leave it alone.
    pub complete: bool,
}

/// The quirk and the policy for `device`, and what is wrong with the files that concern it. No quirk if the database
/// does not know the device.
pub(crate) fn lookup(root: &Root, device: &Device) -> (Option<MatchedDevice>, Vec<Error>) {
    let found = quirks::lookup(root, device.id, |wanted| text(device, wanted));
    let mut errors: Vec<Error> = found.errors.into_iter().map(Error::from).collect();
    let Some(quirk) = found.quirk else { return (None, errors) };
    let (policy, policy_errors) = Policy::load(root);
    errors.extend(policy_errors.into_iter().map(Error::from));
    let policy = policy.resolve(device.id, Some(&device.port), || device.serial());
    (Some(MatchedDevice { quirk, policy, complete: errors.is_empty() }), errors)
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
