//! What the system says is resident. Nothing here allocates.

use crate::sys;

/// The process's memory, as `/proc/self/statm` tells it: cheap, and up to some pages for each thread
/// behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Bytes that are in memory.
    pub resident_bytes: u64,
}

impl Usage {
    /// Reads it now. `None` where the system does not tell.
    #[must_use]
    pub fn read() -> Option<Self> {
        let mut buffer = [0; 128];
        let text = sys::read_file(c"/proc/self/statm", &mut buffer)?;
        let mut numbers = text.split(|b| *b == b' ').map(number);
        let page = sys::page_size() as u64;
        Some(Self {
            virtual_bytes: numbers.next()?? * page,
            resident_bytes: numbers.next()?? * page,
        })
    }
}

/// The process's memory, as `/proc/self/smaps_rollup` tells it: exact, and costly where there are many
/// mappings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rollup {
    /// Bytes that are in memory, of files too.
    pub resident_bytes: u64,
    /// Of these, those that are of no file.
    pub anonymous_bytes: u64,
    /// Of these, those that were given back lazily ([`Purge::Lazy`](crate::Purge::Lazy)) and that the
    /// kernel has not taken yet.
    pub lazily_freed_bytes: u64,
    /// Of the anonymous ones, those in huge pages.
    pub huge_bytes: u64,
}

impl Rollup {
    /// Reads it now. `None` where the system does not tell.
    #[must_use]
    pub fn read() -> Option<Self> {
        let mut buffer = [0; 4096];
        let text = sys::read_file(c"/proc/self/smaps_rollup", &mut buffer)?;
        let mut rollup = Self::default();
        for line in text.split(|b| *b == b'\n') {
            let Some(colon) = line.iter().position(|b| *b == b':') else {
                continue;
            };
            let (name, rest) = line.split_at(colon);
            let field = match name {
                b"Rss" => &mut rollup.resident_bytes,
                b"Anonymous" => &mut rollup.anonymous_bytes,
                b"LazyFree" => &mut rollup.lazily_freed_bytes,
                b"AnonHugePages" => &mut rollup.huge_bytes,
                _ => continue,
            };
            *field = number(rest).unwrap_or(0) * 1024;
        }
        Some(rollup)
    }
}

/// How many mappings the process has: the kernel allows `vm.max_map_count` of them.
#[must_use]
pub fn mappings() -> Option<usize> {
    sys::count_in_file(c"/proc/self/maps", b'\n')
}

/// The first number in a text.
fn number(text: &[u8]) -> Option<u64> {
    let mut digits = text.iter().skip_while(|b| !b.is_ascii_digit()).peekable();
    digits.peek()?;
    let digits = digits.take_while(|b| b.is_ascii_digit());
    digits
        .map(|b| u64::from(b - b'0'))
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a field that is read for another, and a unit that is taken for another.
    #[test]
    fn what_is_touched_is_seen() {
        let before = (Usage::read().unwrap(), Rollup::read().unwrap());
        let bytes = vec![1u8; 64 << 20];
        let after = (Usage::read().unwrap(), Rollup::read().unwrap());
        let near = |grown: u64| grown.abs_diff(64 << 20) < 4 << 20;
        assert!(near(after.0.resident_bytes - before.0.resident_bytes));
        assert!(near(after.1.resident_bytes - before.1.resident_bytes));
        assert!(near(after.1.anonymous_bytes - before.1.anonymous_bytes));
        assert!(after.0.virtual_bytes >= after.0.resident_bytes);
        assert!(after.1.lazily_freed_bytes < 1 << 20);
        assert_eq!(bytes.iter().map(|b| u64::from(*b)).sum::<u64>(), 64 << 20);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(mappings().unwrap().abs_diff(maps.lines().count()) < 8);
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b":   1234 kB"), Some(1234));
        assert_eq!(number(b"7"), Some(7));
        assert_eq!(number(b"none"), None);
        assert_eq!(number(b"99999999999999999999"), None);
    }
}
