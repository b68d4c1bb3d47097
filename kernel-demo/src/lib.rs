//! The parts of the demo kernel that are plain logic, so that they are tested where there are tests.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod frames;
