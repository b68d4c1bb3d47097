//! The first serial port, a 16550, polled.

use core::fmt;

use crate::port;

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = DATA + 1;
const FIFO_CONTROL: u16 = DATA + 2;
const LINE_CONTROL: u16 = DATA + 3;
const LINE_STATUS: u16 = DATA + 5;

/// Line status: the transmitter can take a byte.
const TRANSMIT_READY: u8 = 1 << 5;

/// An initialised port.
#[derive(Debug)]
pub(crate) struct Serial(());

impl Serial {
    /// Sets the port to 115,200 baud, 8 data bits, no parity, one stop bit, no interrupts.
    pub(crate) fn init() -> Self {
        let sequence = [
            (INTERRUPT_ENABLE, 0),
            (LINE_CONTROL, 0x80), // the next two set the divisor, 1
            (DATA, 1),
            (INTERRUPT_ENABLE, 0),
            (LINE_CONTROL, 0x03),
            (FIFO_CONTROL, 0x07), // on, and emptied
        ];
        for (port, value) in sequence {
            // SAFETY: these are the registers of the serial port, which does no DMA.
            unsafe { port::write_u8(port, value) };
        }
        Self(())
    }

    fn send(&mut self, byte: u8) {
        // SAFETY: as in `init`.
        unsafe {
            while port::read_u8(LINE_STATUS) & TRANSMIT_READY == 0 {
                core::hint::spin_loop();
            }
            port::write_u8(DATA, byte);
        }
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.send(byte));
        Ok(())
    }
}

/// Writes one line to the serial port, which is initialised each time: a panic may come before anything
/// else did. Writing to the port cannot fail; an error could only come from a `Display` of ours, and there
/// is nowhere to report it.
macro_rules! say {
    ($($line:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::serial::Serial::init(), $($line)*);
    }};
}
pub(crate) use say;
