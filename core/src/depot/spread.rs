//! Where the shared path starts to look for a bit in a word.
//!
//! Sequential starts keep neighbours together, but two CPUs that start at the same bit collide.
//! When too many takes of a window collided, starts are spread by CPU; when few do, they are not.
//! Three windows in a row must agree before the mode changes, so it does not flap.
//!
//! The controller runs under its class list's lock; only `retries` and `mode` are touched outside it.

use crate::sync::{AtomicU8, AtomicU32, Ordering};

/// Takes in a window.
const WINDOW: u32 = 256;
/// Windows in a row that must agree.
const DWELL: u8 = 3;

/// The part that the lock-free path reads.
#[derive(Debug)]
pub(super) struct Spread {
    /// Collisions since the last window. `Relaxed`: a count that orders nothing.
    retries: AtomicU32,
    /// 1 when starts are spread. `Relaxed`: a hint.
    mode: AtomicU8,
}

/// The part under the class list's lock.
#[derive(Debug)]
pub(super) struct Window {
    takes: u32,
    retries: u32,
    agreed: u8,
    /// So far, the open window not included. Flat, because there are as many as epochs times classes.
    switches: u32,
    checks: u64,
    all_takes: u64,
    all_retries: u64,
}

/// What the controller of one class list has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpreadCounts {
    /// Windows that were judged.
    pub(crate) checks: u64,
    /// Changes of mode.
    pub(crate) switches: u64,
    /// Slots that the shared path was given to take.
    pub(crate) takes: u64,
    /// Takes that found their bit gone.
    pub(crate) retries: u64,
}

impl Spread {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            retries: AtomicU32::new(0),
            mode: AtomicU8::new(0),
        }
    }
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            retries: AtomicU32::new(0),
            mode: AtomicU8::new(0),
        }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.mode.load(Ordering::Relaxed) != 0
    }

    #[cold]
    pub(super) fn collided(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that `takes` slots were put before the shared path, and judges a full window.
    pub(super) fn offered(&self, takes: u32, window: &mut Window) {
        window.takes = window.takes.saturating_add(takes);
        window.retries = window
            .retries
            .saturating_add(self.retries.swap(0, Ordering::Relaxed));
        if window.takes >= WINDOW {
            let on = window.judge(self.is_on());
            self.mode.store(u8::from(on), Ordering::Relaxed);
        }
    }
}

impl Window {
    pub(super) const fn new() -> Self {
        Self {
            takes: 0,
            retries: 0,
            agreed: 0,
            switches: 0,
            checks: 0,
            all_takes: 0,
            all_retries: 0,
        }
    }

    pub(super) fn counts(&self) -> SpreadCounts {
        SpreadCounts {
            checks: self.checks,
            switches: u64::from(self.switches),
            takes: self.all_takes + u64::from(self.takes),
            retries: self.all_retries + u64::from(self.retries),
        }
    }

    /// Begins to count anew. The mode and its dwell go on.
    pub(super) fn forget_counts(&mut self) {
        (self.takes, self.retries, self.switches) = (0, 0, 0);
        (self.checks, self.all_takes, self.all_retries) = (0, 0, 0);
    }

    /// Closes the window. Turns on above 30 collisions in 100 takes, off below 10.
    fn judge(&mut self, on: bool) -> bool {
        let (takes, retries) = (u64::from(self.takes), u64::from(self.retries));
        self.takes = 0;
        self.retries = 0;
        self.checks += 1;
        self.all_takes += takes;
        self.all_retries += retries;
        let wrong = if on {
            retries * 10 < takes
        } else {
            retries * 10 > takes * 3
        };
        self.agreed = if wrong { self.agreed + 1 } else { 0 };
        if self.agreed < DWELL {
            return on;
        }
        self.agreed = 0;
        self.switches = self.switches.saturating_add(1);
        !on
    }
}

/// The first set bit of `word` at or after bit `start`, going round.
pub(super) const fn pick(word: u64, start: u32) -> u64 {
    let turned = word.rotate_right(start);
    (turned & turned.wrapping_neg()).rotate_left(start)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn windows(spread: &Spread, window: &mut Window, n: u32, retries: u32) {
        for _ in 0..n {
            for _ in 0..retries {
                spread.collided();
            }
            spread.offered(WINDOW, window);
        }
    }

    /// Catches a threshold that is off, a missing dwell, and a mode that never goes back.
    #[test]
    fn mode_follows_the_retry_rate_with_dwell() {
        let (spread, mut window) = (Spread::new(), Window::new());
        windows(&spread, &mut window, 10, WINDOW * 29 / 100);
        assert!(!spread.is_on(), "29 % is not enough");
        windows(&spread, &mut window, 2, WINDOW / 2);
        assert!(!spread.is_on(), "two windows are not enough");
        windows(&spread, &mut window, 1, 0);
        windows(&spread, &mut window, 2, WINDOW / 2);
        assert!(!spread.is_on(), "a quiet window starts the count again");
        windows(&spread, &mut window, 1, WINDOW / 2);
        assert!(spread.is_on());
        windows(&spread, &mut window, 10, WINDOW * 11 / 100);
        assert!(spread.is_on(), "11 % is not quiet");
        windows(&spread, &mut window, 3, WINDOW * 9 / 100);
        assert!(!spread.is_on());
        assert_eq!(window.counts().switches, 2);
    }

    /// What counts as too much and as little is beyond a bound and not at it; windows may be longer than they have to be.
    #[test]
    fn bounds_are_not_beyond_themselves() {
        let (spread, mut window) = (Spread::new(), Window::new());
        let mut windows = |n: u32, takes: u32, retries: u32| {
            for _ in 0..n {
                (0..retries).for_each(|_| spread.collided());
                spread.offered(takes, &mut window);
            }
            spread.is_on()
        };
        assert!(!windows(10, 300, 90), "30 of 100");
        assert!(windows(3, 300, 91));
        assert!(windows(10, 300, 30), "10 of 100");
        assert!(!windows(3, 300, 29));
    }

    #[test]
    fn what_was_offered_is_counted() {
        let (spread, mut window) = (Spread::new(), Window::new());
        windows(&spread, &mut window, 3, 200);
        spread.collided();
        spread.offered(10, &mut window);
        let counts = SpreadCounts {
            checks: 3,
            switches: 1,
            takes: u64::from(3 * WINDOW + 10),
            retries: 601,
        };
        assert_eq!(window.counts(), counts);
        window.forget_counts();
        assert_eq!(window.counts(), SpreadCounts::default());
    }

    #[test]
    fn one_bit_is_picked_behind_the_start() {
        let word = 1 << 3 | 1 << 5 | 1 << 40 | 1 << 63;
        for (start, bit) in [
            (0, 3),
            (3, 3),
            (4, 5),
            (6, 40),
            (41, 63),
            (63, 63),
            (64, 3),
            (70, 40),
        ] {
            assert_eq!(pick(word, start), 1 << bit, "from {start}");
        }
        assert_eq!(pick(1, 17), 1, "round and back");
        assert_eq!(pick(0, 17), 0);
    }
}
