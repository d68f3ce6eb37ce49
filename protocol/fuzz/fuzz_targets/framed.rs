//! Any bytes as a framed stream: what the ordinary tests replay the corpus through.

#![no_main]

libfuzzer_sys::fuzz_target!(|stream: &[u8]| iris_protocol::check::framed(stream));
