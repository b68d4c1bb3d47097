//! The clock that single calls are timed by.

use std::time::Instant;

/// Reads the clock; the call stays between two readings.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn now() -> u64 {
    use core::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every CPU of this architecture has both; the fences keep the call between the readings.
    unsafe {
        _mm_lfence();
        let time = _rdtsc();
        _mm_lfence();
        time
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn now() -> u64 {
    static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    BEGIN.elapsed().as_nanos() as u64
}

/// What is known of the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Nanoseconds for each tick.
    pub(super) scale: f64,
    /// Ticks that reading it twice costs at least: in every figure.
    pub(super) least: u64,
}

impl Clock {
    pub(super) fn read() -> Self {
        let (start, first) = (Instant::now(), now());
        while start.elapsed().as_millis() < 50 {
            core::hint::spin_loop();
        }
        let scale = start.elapsed().as_nanos() as f64 / (now() - first).max(1) as f64;
        let costs = (0..10_000).map(|_| {
            let start = now();
            now() - start
        });
        Self {
            scale,
            least: costs.min().unwrap_or(1).max(1),
        }
    }
}
