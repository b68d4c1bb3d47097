//! Programs of well-known crates on this allocator: their output is that under the system's.
#![cfg(target_os = "linux")]

mod common;
mod programs;

#[global_allocator]
static GLOBAL: temporal_slab_hosted::TemporalSlab = temporal_slab_hosted::TemporalSlab;

#[test]
fn output_is_as_recorded() {
    assert_eq!(programs::run(), programs::RECORDED);
}
