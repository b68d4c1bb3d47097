//! The other CPUs: started by INIT-SIPI-SIPI, each with its own stack, segments, GS base and local; and a
//! test in which they allocate, pass objects to each other and free what they got.
//!
//! # Starting
//!
//! A started CPU begins in real mode at a page below 1 MiB, with nothing but its instruction pointer. The
//! code at the end of this file is copied there; it goes to long mode at once with the page tables of the
//! first CPU (the boot loader left that page mapped as it is), takes a number, and with it a stack.
//!
//! # Orderings
//!
//! `STARTED`, `ROUND` and `DONE` are stored and added to with `Release` and read with `Acquire`: who sees a
//! CPU done is behind all that it did. A slot of a mailbox is swapped with `AcqRel`: who gets an object is
//! behind who wrote it.

use alloc::boxed::Box;
use core::alloc::Layout;
use core::arch::{asm, global_asm};
use core::fmt::Write;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::control::Cr3;
use x86_64::registers::model_specific::GsBase;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use temporal_slab_kernel_demo::frames::FRAME;

use crate::heap::{HEAP, KernelConfig};
use crate::memory;
use crate::port;
use crate::serial::{Serial, say};

type KernelLocal = temporal_slab::Local<'static, KernelConfig>;

const MOST: usize = 16;
const STACK: usize = 64 << 10;
/// What each CPU does in a round.
const OPERATIONS: usize = 1_000_000;
const SLOTS: usize = 256;
/// After so many operations a CPU counts a step, and after as many of these as there are CPUs there is a dot on the
/// serial port: an emulator takes minutes for a round, and is not to be taken for hung.
const STEP: usize = OPERATIONS / 40;
/// The most frames of metadata that a round may add.
const MOST_DESCRIBED: usize = 64;

/// Where a started CPU begins. The vector of the start-up message is its page's number.
const TRAMPOLINE: usize = 0x8000;
/// Where in that page the first CPU leaves what the others need: see the code below.
const PARAMETERS: usize = 0xf00;
/// The local interrupt controller's command register.
const COMMAND: usize = 0xfee0_0300;

static STARTED: AtomicUsize = AtomicUsize::new(0);
static ROUND: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);
static WRONG: AtomicUsize = AtomicUsize::new(0);
static CPUS: AtomicUsize = AtomicUsize::new(1);
/// What all CPUs have done so far, in steps of [`STEP`]. `Relaxed`: a figure to watch, and nothing depends on it.
static STEPS: AtomicUsize = AtomicUsize::new(0);

/// Where others leave objects for a CPU.
static MAIL: [[AtomicPtr<u8>; SLOTS]; MOST] =
    [const { [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS] }; MOST];

/// What a CPU has of its own. Its GS base points here.
#[repr(C)]
struct Cpu {
    /// The address of this, so that one load through GS finds it.
    this: *mut Cpu,
    number: usize,
    local: Option<KernelLocal>,
    segments: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

/// Gives this CPU what it has of its own, for good.
fn own(number: usize) {
    let cpu = Box::leak(Box::new(Cpu {
        this: ptr::null_mut(),
        number,
        local: None,
        segments: GlobalDescriptorTable::new(),
        tss: TaskStateSegment::new(),
    }));
    cpu.this = &raw mut *cpu;
    let code = cpu.segments.append(Descriptor::kernel_code_segment());
    let data = cpu.segments.append(Descriptor::kernel_data_segment());
    let tss: *const TaskStateSegment = &raw const cpu.tss;
    // SAFETY: the box is leaked, so the tables stay; the segments are those that the kernel runs on.
    unsafe {
        let task = cpu.segments.append(Descriptor::tss_segment_unchecked(tss));
        let segments: *const GlobalDescriptorTable = &raw const cpu.segments;
        (*segments).load();
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
    }
    GsBase::write(VirtAddr::from_ptr(cpu.this));
}

/// This CPU's own.
fn this_cpu() -> &'static mut Cpu {
    let cpu: *mut Cpu;
    // SAFETY: the GS base was set to this CPU's own, which begins with its address. There is one context on
    // each CPU that asks.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) cpu, options(nostack, readonly, preserves_flags));
        &mut *cpu
    }
}

/// About so many microseconds: a write to a port that nobody listens to takes one.
fn wait(microseconds: usize) {
    for _ in 0..microseconds {
        // SAFETY: the port is for this.
        unsafe { port::write_u8(0x80, 0) };
    }
}

/// Starts the other CPUs; how many there are then.
fn start(expected: usize) -> usize {
    unsafe extern "C" {
        static trampoline_start: u8;
        static trampoline_end: u8;
    }
    let stacks = alloc::vec![0u8; expected * STACK].leak();
    let (top, _) = Cr3::read();
    let parameters = [
        top.start_address().as_u64(),
        other_main as *const () as u64,
        stacks.as_mut_ptr().expose_provenance() as u64,
        // The next CPU's number. This one is 0.
        1,
        // Where its first segments are, and how long that is: 23, and the address behind these two words.
        23 | ((TRAMPOLINE + PARAMETERS + 48) as u64) << 16,
        0,
        // None, code of 64 bits, data.
        0,
        0x00af_9a00_0000_ffff,
        0x00cf_9200_0000_ffff,
    ];
    memory::with(|_, offset| {
        let at = |physical: usize| ptr::with_exposed_provenance_mut::<u8>(offset + physical);
        let command: *mut u32 = at(COMMAND).cast();
        // SAFETY: the page below 1 MiB is the boot loader's, which is done, and no frame of ours; physical
        // memory is mapped at the offset, with the controller's registers in it.
        unsafe {
            let code = &raw const trampoline_start;
            let length = (&raw const trampoline_end).addr() - code.addr();
            at(TRAMPOLINE).copy_from_nonoverlapping(code, length);
            let place: *mut u64 = at(TRAMPOLINE + PARAMETERS).cast();
            place.copy_from_nonoverlapping(parameters.as_ptr(), parameters.len());
            // To all but this one: INIT, and twice the page at which to start.
            command.write_volatile(0x000c_4500);
            wait(10_000);
            for _ in 0..2 {
                command.write_volatile(0x000c_4600 | (TRAMPOLINE >> 12) as u32);
                wait(1000);
            }
        }
    });
    for _ in 0..2000 {
        if STARTED.load(Ordering::Acquire) + 1 == expected {
            break;
        }
        wait(1000);
    }
    STARTED.load(Ordering::Acquire) + 1
}

/// Where the trampoline leads.
extern "C" fn other_main(number: usize) -> ! {
    own(number);
    STARTED.fetch_add(1, Ordering::Release);
    let mut round = 0;
    loop {
        while ROUND.load(Ordering::Acquire) == round {
            core::hint::spin_loop();
        }
        round += 1;
        work(round);
        DONE.fetch_add(1, Ordering::Release);
    }
}

/// Allocates, gives objects to other CPUs, frees what it found in their place. An object begins with its
/// size, and all its bytes behind that are its low byte.
fn work(round: usize) {
    let cpu = this_cpu();
    cpu.local = HEAP.local().ok();
    let Some(local) = cpu.local.as_mut() else {
        WRONG.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let cpus = CPUS.load(Ordering::Relaxed);
    let (mut seed, mut wrong) = ((cpu.number + round * 100) as u64, 0);
    // The first round only warms up.
    let operations = if round == 1 {
        OPERATIONS / 4
    } else {
        OPERATIONS
    };
    for step in 0..operations {
        if step % STEP == 0 {
            STEPS.fetch_add(1, Ordering::Relaxed);
            if cpu.number == 0 {
                show_progress();
            }
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let random = (seed >> 33) as usize;
        let size = 16 + random % 1000;
        let Some(object) = make(local, size, step) else {
            wrong += 1;
            continue;
        };
        let other = (cpu.number + random / 1000) % cpus;
        let slot = MAIL.get(other).and_then(|mail| mail.get(random % SLOTS));
        let before = slot.map_or(ptr::null_mut(), |slot| {
            slot.swap(object.as_ptr(), Ordering::AcqRel)
        });
        if let Some(before) = NonNull::new(before) {
            wrong += usize::from(!take(Some(local), before, step));
        }
    }
    // The slots that it holds go back before this CPU says that it is done.
    cpu.local = None;
    WRONG.fetch_add(wrong, Ordering::Relaxed);
}

/// Writes a dot for what the CPUs have done since the last. For the first CPU.
fn show_progress() {
    static SHOWN: AtomicUsize = AtomicUsize::new(0);
    let dots = STEPS.load(Ordering::Relaxed) / CPUS.load(Ordering::Relaxed);
    for _ in SHOWN.swap(dots, Ordering::Relaxed)..dots {
        // It cannot fail: see `say`.
        let _ = Serial::init().write_str(".");
    }
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size, 8).ok()
}

fn make(local: &mut KernelLocal, size: usize, step: usize) -> Option<NonNull<u8>> {
    let layout = layout(size)?;
    let object = if step.is_multiple_of(8) {
        HEAP.alloc(layout)
    } else {
        local.alloc(layout)
    };
    let object = object.ok()?;
    // SAFETY: the object is ours and this long.
    unsafe {
        object.write_bytes(size as u8, size);
        object.cast::<usize>().write(size);
    }
    Some(object)
}

/// Checks an object that another CPU may have made, and frees it.
fn take(local: Option<&mut KernelLocal>, object: NonNull<u8>, step: usize) -> bool {
    // SAFETY: whoever put the object in the slot gave it up, and wrote its size first.
    unsafe {
        let size = object.cast::<usize>().read();
        let Some(layout) = layout(size).filter(|_| size < 2000) else {
            return false;
        };
        let bytes = core::slice::from_raw_parts(object.as_ptr(), size);
        let whole = bytes.iter().skip(8).all(|b| *b == size as u8);
        let freed = match local {
            Some(local) if step % 8 != 1 => local.free(object, layout),
            _ => HEAP.free(object, layout),
        };
        whole && freed.is_ok()
    }
}

/// The frames that the heap has for its metadata, by its own account.
fn metadata_frames() -> usize {
    (HEAP.stats().residency.metadata as usize).div_ceil(FRAME)
}

/// Starts the other CPUs and has all of them work; how many checks failed.
pub(crate) fn run(expected: usize) -> usize {
    // The trampoline overwrites what the boot loader left, its segments among it.
    own(0);
    if expected < 2 {
        return 0;
    }
    let cpus = start(expected.min(MOST));
    CPUS.store(cpus, Ordering::Relaxed);
    let mut failures = usize::from(cpus != expected.min(MOST));
    for _ in 0..2 {
        HEAP.reclaim();
        let (before, metadata) = (memory::frames().0, metadata_frames());
        DONE.store(0, Ordering::Relaxed);
        let round = ROUND.fetch_add(1, Ordering::Release) + 1;
        work(round);
        while DONE.load(Ordering::Acquire) + 1 < cpus {
            show_progress();
            core::hint::spin_loop();
        }
        say!("");
        for slot in MAIL.iter().flatten() {
            if let Some(object) = NonNull::new(slot.swap(ptr::null_mut(), Ordering::AcqRel)) {
                failures += usize::from(!take(None, object, 1));
            }
        }
        HEAP.reclaim();
        // SAFETY: the other CPUs are waiting for the next round.
        failures += usize::from(unsafe { HEAP.walk() }.is_err());
        // What describes slabs stays, and how many there were at once was the machine's choice: all but that is back,
        // and that is bounded by what the CPUs can pass around.
        let lost = before.saturating_sub(memory::frames().0);
        let described = metadata_frames().saturating_sub(metadata);
        if lost > described || described > MOST_DESCRIBED {
            say!("FAILED CPUs: {lost} frames did not come back, {described} of them metadata");
            failures += 1;
        }
    }
    failures += WRONG.load(Ordering::Relaxed);
    say!("       {cpus} CPUs, {OPERATIONS} objects made and passed on by each");
    if failures == 0 {
        say!("ok     CPUs");
    } else {
        say!("FAILED CPUs: {failures} checks");
    }
    failures
}

global_asm!(
    ".pushsection .rodata.trampoline, \"a\"",
    ".global trampoline_start",
    ".global trampoline_end",
    ".code16",
    "trampoline_start:",
    "cli",
    "cld",
    "xor ax, ax",
    "mov ds, ax",
    "lgdt [{base} + {parameters} + 32]",
    // Long mode at once: address extension, the tables, the mode, then protection and paging together.
    "mov eax, cr4",
    "or eax, 0x20",
    "mov cr4, eax",
    "mov eax, [{base} + {parameters}]",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x900",
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80010001",
    "and eax, 0x9fffffff",
    "mov cr0, eax",
    ".byte 0x66, 0xea",
    ".long {base} + trampoline_long - trampoline_start",
    ".word 8",
    ".code64",
    "trampoline_long:",
    "mov ax, 16",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "mov edi, 1",
    "mov ebx, {base} + {parameters}",
    "lock xadd [rbx + 24], rdi",
    // The stack of this number; the first CPU has another.
    "mov rsp, rdi",
    "imul rsp, rsp, {stack}",
    "add rsp, [rbx + 16]",
    "xor ebp, ebp",
    "push 0",
    "jmp [rbx + 8]",
    "trampoline_end:",
    ".popsection",
    base = const TRAMPOLINE,
    parameters = const PARAMETERS,
    stack = const STACK,
);
