//! Entry and panic.

use bootloader::BootInfo;
use bootloader::bootinfo::MemoryRegionType;
use core::fmt::Write;
use core::panic::PanicInfo;

use crate::exit::{Exit, exit};
use crate::serial::Serial;

bootloader::entry_point!(main);

fn main(boot: &'static BootInfo) -> ! {
    let usable: u64 = boot
        .memory_map
        .iter()
        .filter(|region| region.region_type == MemoryRegionType::Usable)
        .map(|region| region.range.end_addr() - region.range.start_addr())
        .sum();
    say(format_args!(
        "temporal-slab kernel: hello, {} KiB usable",
        usable / 1024
    ));
    exit(Exit::Success)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say(format_args!("temporal-slab kernel: {info}"));
    exit(Exit::Panic)
}

/// Writes one line to the serial port, which is initialised each time: a panic may come before
/// anything else did.
fn say(line: core::fmt::Arguments<'_>) {
    // Writing to the port cannot fail; an error could only come from a `Display` of ours, and there
    // is nowhere to report it.
    let _ = writeln!(Serial::init(), "{line}");
}
