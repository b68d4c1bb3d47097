//! The timer: an interrupt whose handler allocates and frees, while the main line does the same.
//!
//! The entry stub is assembly, because the compiler's own kind of handler is not stable: it saves what a
//! call may change, calls [`on_timer`], and returns. The kernel uses no vector registers.
//!
//! A handler interrupts the allocator anywhere but under a lock, which masks interrupts. It uses the shared
//! path, which needs nothing of what the main line may be in the middle of.

use core::alloc::Layout;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::structures::idt::InterruptDescriptorTable;

use crate::heap::HEAP;
use crate::port;

/// Interrupts in a second.
const RATE: u32 = 5000;
const TIMER: u8 = 32;

const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xa0;
const END_OF_INTERRUPT: u8 = 0x20;

// All are counts and a flag of one CPU, which interrupts itself: `Relaxed`.
static ENTRIES: AtomicUsize = AtomicUsize::new(0);
static ENTRIES_INSIDE: AtomicUsize = AtomicUsize::new(0);
static FAILURES: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicBool = AtomicBool::new(false);

static mut TABLE: InterruptDescriptorTable = InterruptDescriptorTable::new();

/// What was counted so far: handler entries, those that came while the main line was inside the allocator,
/// and those that got no memory.
pub(crate) fn counts() -> [usize; 3] {
    [&ENTRIES, &ENTRIES_INSIDE, &FAILURES].map(|count| count.load(Relaxed))
}

/// Runs `f`, which calls the allocator, and has interrupts know.
pub(crate) fn inside<T>(f: impl FnOnce() -> T) -> T {
    INSIDE.store(true, Relaxed);
    let result = f();
    INSIDE.store(false, Relaxed);
    result
}

/// Lets the timer interrupt. Call it once.
pub(crate) fn start() {
    // SAFETY: called once, before interrupts are on; the table stays; the stub keeps what the interrupted
    // code relies on. The ports are those of the interrupt controllers and of the timer.
    unsafe {
        let table: *mut InterruptDescriptorTable = &raw mut TABLE;
        let table = &mut *table;
        table[TIMER].set_handler_addr(VirtAddr::new(timer_entry as *const () as u64));
        table.load();
        // The controllers' interrupts go to 32 and up, behind the CPU's own; all but the timer are masked.
        for (port, value) in [
            (MASTER, 0x11),
            (SLAVE, 0x11),
            (MASTER + 1, TIMER),
            (SLAVE + 1, TIMER + 8),
            (MASTER + 1, 4),
            (SLAVE + 1, 2),
            (MASTER + 1, 1),
            (SLAVE + 1, 1),
            (MASTER + 1, 0xfe),
            (SLAVE + 1, 0xff),
        ] {
            port::write_u8(port, value);
        }
        let divisor = (1_193_182 / RATE) as u16;
        let [low, high] = divisor.to_le_bytes();
        for (port, value) in [(0x43, 0x34), (0x40, low), (0x40, high)] {
            port::write_u8(port, value);
        }
    }
    interrupts::enable();
}

/// Ends it.
pub(crate) fn stop() {
    interrupts::disable();
    // SAFETY: the controller's mask.
    unsafe { port::write_u8(MASTER + 1, 0xff) };
}

#[unsafe(naked)]
extern "C" fn timer_entry() {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        // The CPU aligned the stack and pushed five words: with these nine it is aligned for a call.
        "cld",
        "call {handler}",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "iretq",
        handler = sym on_timer,
    );
}

extern "C" fn on_timer() {
    let entry = ENTRIES.fetch_add(1, Relaxed);
    if INSIDE.load(Relaxed) {
        ENTRIES_INSIDE.fetch_add(1, Relaxed);
    }
    let size = 16 + entry * 37 % 1000;
    if let Ok(layout) = Layout::from_size_align(size, 8) {
        let done = HEAP.alloc(layout).is_ok_and(|object| {
            // SAFETY: the object is ours, this long, and freed once.
            unsafe {
                object.write_bytes(0xaa, size);
                HEAP.free(object, layout).is_ok()
            }
        });
        FAILURES.fetch_add(usize::from(!done), Relaxed);
    }
    // SAFETY: tells the controller that the timer may interrupt again.
    unsafe { port::write_u8(MASTER, END_OF_INTERRUPT) };
}
