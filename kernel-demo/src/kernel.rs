//! Entry, panic, and the order in which things come to life.

use bootloader::BootInfo;
use bootloader::bootinfo::MemoryRegionType;
use core::panic::PanicInfo;

use crate::exit::{Exit, exit};
use crate::serial::say;
use crate::{count, demo, fwcfg, heap, memory, selftest, smp};

bootloader::entry_point!(main);

fn main(boot: &'static BootInfo) -> ! {
    heap::init_early();
    let mut buffer = [0; 32];
    let mode = fwcfg::file("opt/tslab/mode", &mut buffer);
    banner(boot);
    let early = alloc::boxed::Box::new(*b"before there were frames");
    memory::init(boot);
    heap::init_late();
    let (free, total) = memory::frames();
    say!(
        "memory: {free} of {total} frames free, {} MiB",
        (free * 4096) >> 20
    );
    match mode {
        // Two boots that go wrong on purpose, so that those who watch can be seen to notice.
        "panic" => panic!("as it was told to"),
        "hang" => loop {
            core::hint::spin_loop();
        },
        _ => {}
    }
    let failures = match mode {
        "count" => count::run(),
        "report" => demo::run(true),
        _ => selftest::run() + smp::run(fwcfg::cpus()) + demo::run(false),
    };
    // The early heap gets back what is its own.
    drop(early);
    if failures == 0 {
        say!("verdict: passed");
        exit(Exit::Success);
    }
    say!("verdict: {failures} checks failed");
    exit(Exit::Failure)
}

fn banner(boot: &BootInfo) {
    say!("");
    say!(
        "  temporal-slab {}: a kernel of its own",
        env!("CARGO_PKG_VERSION")
    );
    say!("");
    for region in boot.memory_map.iter() {
        let (start, end) = (region.range.start_addr(), region.range.end_addr());
        if region.region_type == MemoryRegionType::Usable {
            say!(
                "  {start:#012x} to {end:#012x}  {:>8} KiB usable",
                (end - start) / 1024
            );
        }
    }
    say!("");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("panic: {info}");
    exit(Exit::Panic)
}
