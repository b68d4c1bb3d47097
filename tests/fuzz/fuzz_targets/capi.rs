//! See `temporal_slab_targets::capi`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| temporal_slab_targets::capi(data));
