//! Any bytes as a classic stream: what the ordinary tests replay the corpus through.

#![no_main]

libfuzzer_sys::fuzz_target!(|stream: &[u8]| iris_protocol::check::classic(stream));
