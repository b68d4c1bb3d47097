//! A small x86_64 kernel that embeds temporal-slab as a kernel author would: frames from the boot loader's
//! memory map, a page provider over them, a lock that masks interrupts, a global allocator. It tests the
//! core where it runs, shows the phases of a simulated server on the serial port, and leaves QEMU by an
//! exit code.
//!
//! Built for `x86_64-unknown-none` it is a kernel. For any other target it is a program that says
//! so, which keeps commands over the whole workspace (`cargo clippy --workspace`) working.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod count;
#[cfg(target_os = "none")]
mod demo;
#[cfg(target_os = "none")]
mod exit;
#[cfg(target_os = "none")]
mod fwcfg;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
mod lock;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod port;
#[cfg(target_os = "none")]
mod selftest;
#[cfg(target_os = "none")]
mod serial;
#[cfg(target_os = "none")]
mod smp;
#[cfg(target_os = "none")]
mod vmem;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("This is a kernel: build it with --target x86_64-unknown-none and boot it.");
    std::process::exit(1);
}
