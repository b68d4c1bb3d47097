//! Port input and output.

use core::arch::asm;

/// Writes a byte to `port`.
///
/// # Safety
/// The device behind the port must not break memory safety by what the write makes it do.
pub(crate) unsafe fn write_u8(port: u16, value: u8) {
    // SAFETY: the caller vouches for the device; the instruction itself touches neither memory nor
    // stack.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    };
}

/// Writes 16 bits to `port`.
///
/// # Safety
/// As for [`write_u8`].
pub(crate) unsafe fn write_u16(port: u16, value: u16) {
    // SAFETY: as in `write_u8`.
    unsafe {
        asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags))
    };
}

/// Writes 32 bits to `port`.
///
/// # Safety
/// As for [`write_u8`].
pub(crate) unsafe fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `write_u8`.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags))
    };
}

/// Reads a byte from `port`.
///
/// # Safety
/// The device behind the port must not break memory safety by what the read makes it do.
pub(crate) unsafe fn read_u8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: as in `write_u8`.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    };
    value
}
