//! The policy: how much of what is empty stays in memory.

/// How much of what is empty stays in memory, and what a close does with what it empties.
///
/// What is more goes back to the provider in batches of up to 2 MiB, or page by page where nothing is kept. [`Heap::reclaim`](crate::Heap::reclaim) gives all of it
/// back, whatever the policy, and so does a heap whose provider has nothing left.
///
/// ```
/// use temporal_slab::{Emptied, Policy};
///
/// let small = Policy { emptied: Emptied::Return, ..Policy::keeping(1 << 20) };
/// assert_eq!(Policy::DEFAULT, Policy::keeping(32 << 20));
/// # let _ = small;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Empty bytes that may stay, rounded down to a multiple of 512, so that less than 512 are none; `usize::MAX`: all, whatever
    /// `live_divisor` is. With 0, and no share, pages go back one by one as they become free.
    pub keep: usize,
    /// What is in use divided by this may stay, if that is more; 0: no such share.
    pub live_divisor: u8,
    /// What becomes of what a close empties.
    pub emptied: Emptied,
}

/// What becomes of what the close of an epoch empties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptied {
    /// It stays for what is allocated next, within what the policy keeps.
    Keep,
    /// It goes back to the provider at once.
    Return,
}

impl Policy {
    /// Keeps 32 MiB.
    pub const DEFAULT: Self = Self::keeping(32 << 20);

    /// Keeps nothing: what becomes empty goes back at once.
    pub const EAGER: Self = Self {
        emptied: Emptied::Return,
        ..Self::keeping(0)
    };

    /// Keeps what becomes empty until an epoch is closed, and gives what that empties back.
    pub const ON_CLOSE: Self = Self {
        emptied: Emptied::Return,
        ..Self::keeping(usize::MAX)
    };

    /// Keeps all, until [`Heap::reclaim`](crate::Heap::reclaim) or until the provider has nothing left.
    pub const NEVER: Self = Self::keeping(usize::MAX);

    /// Keeps so many bytes.
    #[must_use]
    pub const fn keeping(keep: usize) -> Self {
        Self {
            keep,
            live_divisor: 0,
            emptied: Emptied::Keep,
        }
    }

    /// Keeps an eighth of what is in use, or so many bytes if that is more.
    #[must_use]
    pub const fn proportional(keep: usize) -> Self {
        Self {
            live_divisor: 8,
            ..Self::keeping(keep)
        }
    }

    /// In one word: `[..:9] keep / 512 | [8:1] live_divisor | [0] emptied`.
    pub(super) const fn encode(self) -> usize {
        let emptied = matches!(self.emptied, Emptied::Return) as usize;
        (self.keep & !0x1FF) | (self.live_divisor as usize) << 1 | emptied
    }

    pub(super) const fn decode(code: usize) -> Self {
        let keep = code & !0x1FF;
        Self {
            keep: if keep == usize::MAX & !0x1FF {
                usize::MAX
            } else {
                keep
            },
            live_divisor: (code >> 1) as u8,
            emptied: if code & 1 == 1 {
                Emptied::Return
            } else {
                Emptied::Keep
            },
        }
    }

    /// Whether pages go back one by one.
    pub(super) const fn keeps_nothing(self) -> bool {
        self.keep == 0 && self.live_divisor == 0
    }

    /// How much may stay empty beside so many bytes in use. `None`: nothing, or all.
    pub(super) const fn kept(self, in_use: usize) -> Option<usize> {
        if self.keeps_nothing() || self.keep == usize::MAX {
            return None;
        }
        match in_use.checked_div(self.live_divisor as usize) {
            Some(share) if share > self.keep => Some(share),
            _ => Some(self.keep),
        }
    }

    /// Whether what a close empties goes back at once.
    pub(super) const fn returns_on_close(self) -> bool {
        matches!(self.emptied, Emptied::Return)
    }

    /// How much of what was warm before a close may stay so, where the epoch had left so many bytes of it.
    pub(super) const fn kept_by_close(self, warm: usize, left: usize) -> usize {
        if self.returns_on_close() {
            warm.saturating_sub(left)
        } else {
            warm
        }
    }

    /// Bytes of empty slabs that may stay in the depots' caches, beside so many in use.
    pub(super) const fn cache_bound(self, in_use: usize) -> usize {
        match self.kept(in_use) {
            Some(bytes) => bytes,
            None if self.keeps_nothing() => 0,
            None => usize::MAX,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a policy that is another one after it was set.
    #[test]
    fn a_policy_is_kept_in_a_word() {
        for keep in [
            0,
            511,
            512,
            1 << 20,
            usize::MAX / 2,
            usize::MAX - 511,
            usize::MAX,
        ] {
            for live_divisor in [0, 1, 8, u8::MAX] {
                for emptied in [Emptied::Keep, Emptied::Return] {
                    let policy = Policy {
                        keep,
                        live_divisor,
                        emptied,
                    };
                    let kept = Policy::decode(policy.encode());
                    assert_eq!((kept.live_divisor, kept.emptied), (live_divisor, emptied));
                    let is_all = keep >= usize::MAX - 511;
                    assert_eq!(kept.keep, if is_all { usize::MAX } else { keep & !511 });
                }
            }
        }
    }

    /// Catches a share that is not the larger of the two, and a bound that is none.
    #[test]
    fn the_larger_of_the_two_is_kept() {
        let policy = Policy::proportional(1 << 20);
        assert_eq!(policy.kept(1 << 20), Some(1 << 20));
        assert_eq!(policy.kept(1 << 24), Some(1 << 21));
        assert_eq!(Policy::keeping(4096).kept(usize::MAX), Some(4096));
        assert_eq!(
            (
                Policy::EAGER.kept(1 << 30),
                Policy::EAGER.cache_bound(1 << 30)
            ),
            (None, 0)
        );
        assert_eq!(
            (Policy::NEVER.kept(0), Policy::ON_CLOSE.cache_bound(0)),
            (None, usize::MAX)
        );
        let mixed = Policy {
            emptied: Emptied::Return,
            ..policy
        };
        assert_eq!(
            (mixed.kept(0), mixed.kept_by_close(100, 70)),
            (Some(1 << 20), 30)
        );
        assert_eq!(policy.kept_by_close(100, 70), 100);
    }
}
