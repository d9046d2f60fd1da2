#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lens_fuzz::run("document", bytes));
