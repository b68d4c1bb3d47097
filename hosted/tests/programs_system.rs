//! Programs of well-known crates on the system's allocator: where the recorded output comes from.
#![cfg(target_os = "linux")]

mod common;
mod programs;

#[test]
fn output_is_as_recorded() {
    assert_eq!(programs::run(), programs::RECORDED);
}
