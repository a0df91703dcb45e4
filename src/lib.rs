//! wwan-quirks makes a USB WWAN modem work by the time it is plugged in.
