#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zos_vmm::fuzz::target("http")(bytes));
