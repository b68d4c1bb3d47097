//! What QEMU was told to tell: `-fw_cfg name=opt/tslab/mode,string=...`.

use crate::port;

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const SIGNATURE: u16 = 0x0000;
const CPUS: u16 = 0x0005;
const DIRECTORY: u16 = 0x0019;

fn select(item: u16) {
    // SAFETY: the selector only decides what is read next.
    unsafe { port::write_u16(SELECTOR, item) };
}

fn read<const N: usize>() -> [u8; N] {
    // SAFETY: reading moves on in the selected item, and does nothing else.
    core::array::from_fn(|_| unsafe { port::read_u8(DATA) })
}

/// How many CPUs the machine has.
pub(crate) fn cpus() -> usize {
    select(SIGNATURE);
    if read() != *b"QEMU" {
        return 1;
    }
    select(CPUS);
    usize::from(u16::from_le_bytes(read()))
}

/// The content of a file, as much of it as `buffer` takes. Empty if there is none.
pub(crate) fn file<'b>(name: &str, buffer: &'b mut [u8]) -> &'b str {
    select(SIGNATURE);
    if read() != *b"QEMU" {
        return "";
    }
    select(DIRECTORY);
    let count = u32::from_be_bytes(read());
    for _ in 0..count {
        let size = u32::from_be_bytes(read()) as usize;
        let item = u16::from_be_bytes(read());
        let _reserved: [u8; 2] = read();
        let entry: [u8; 56] = read();
        let length = entry.iter().position(|b| *b == 0).unwrap_or(entry.len());
        if entry.get(..length) == Some(name.as_bytes()) {
            select(item);
            let length = size.min(buffer.len());
            for byte in buffer.iter_mut().take(length) {
                [*byte] = read();
            }
            let text = buffer.get(..length).unwrap_or(&[]);
            return core::str::from_utf8(text).unwrap_or("");
        }
    }
    ""
}
