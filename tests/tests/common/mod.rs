//! What the tests that span crates share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

pub mod programs;
pub mod reports;
