#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wwan_quirks_fuzz::smbios(data));
