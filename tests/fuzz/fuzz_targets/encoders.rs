//! See `temporal_slab_targets::encoders`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| temporal_slab_targets::encoders(data));
