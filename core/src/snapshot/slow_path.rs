//! The counters of what is done off the fast path.

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// A counter of a snapshot, as reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Its name in reports.
    pub name: &'static str,
    /// Which cause it counts, where counters of several causes share a name.
    pub cause: Option<&'static str>,
    /// What it counts.
    pub help: &'static str,
    /// Its value, which only grows.
    pub value: u64,
}

/// Makes a snapshot and what counts for it out of one table. A line is a counter: its field, what reports call it and,
/// where several share that name, its cause; and what it counts. The snapshot of a local, sums, JSON, Prometheus and the
/// schema follow. What classes, epochs and the heap tell of it is taken from class lists and locals in `heap/stats.rs`: a
/// line that is not there is 0 for them.
macro_rules! counters {
    (
        $(#[$doc:meta])* $stats:ident, counted in $live:ident:
        $($field:ident $name:literal $($cause:literal)? : $help:literal;)+
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $stats {
            $(#[doc = $help] pub $field: u64,)+
        }

        impl $stats {
            /// All counters.
            #[must_use]
            pub const fn counters(&self) -> [Counter; [$($name),+].len()] {
                [$(Counter {
                    name: $name,
                    cause: counters!(cause $($cause)?),
                    help: $help,
                    value: self.$field,
                }),+]
            }

            /// Adds what another counted.
            pub const fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.saturating_add(other.$field);)+
            }
        }

        /// The same, where it is counted. One context writes, by plain loads and stores; `Relaxed`: figures.
        #[derive(Debug, Default)]
        pub(crate) struct $live {
            $(pub(crate) $field: AtomicU64,)+
        }

        impl $live {
            pub(crate) fn read(&self) -> $stats {
                $stats { $($field: self.$field.load(Relaxed),)+ }
            }
        }
    };
    (cause) => { None };
    (cause $cause:literal) => { Some($cause) };
}

counters! {
    /// How often the fast path was left, and what for.
    ///
    /// An allocation leaves it when neither a freed slot nor a current word is at hand: that is a *hit*, and each
    /// hit is served from the local's stash or asks the depot. A free leaves it when the magazine is full: a
    /// *spill*.
    SlowPathStats, counted in SlowPathCounters:
    from_stash "slow_path" "stash": "Hits that a local served from its own stash";
    depot_visits "slow_path" "depot": "Hits that asked the depot, by locals and by the shared path";
    new_slabs "slow_path" "new_slab": "Visits that found nothing in the depot and made a slab from a chunk";
    spills "slow_path" "spill": "Frees that found the magazine full";
    epoch_closed "slow_path" "epoch_closed": "Allocations that were refused because the epoch was closed";
    limit "slow_path" "limit": "Allocations that were refused because of the heap's byte limit";
    out_of_memory "slow_path" "out_of_memory": "Allocations that were refused because the provider had no memory, or no id was left for a handle";
    no_word "slow_path_no_word": "Hits that found that there had never been a current word: first uses of a class by a local in an epoch";
    from_cache "slabs_from_cache": "Slabs that the depot had in its cache; one visit may take several";
    words_taken "words_taken": "Words that locals took from the depot";
    words_given "words_given": "Words that locals gave back";
}

impl SlowPathStats {
    /// Allocations that left the fast path.
    #[must_use]
    pub const fn hits(&self) -> u64 {
        self.from_stash.saturating_add(self.depot_visits)
    }

    /// Hits that found the current word used up. A difference, as [`SlowPathStats::from_depot`].
    #[must_use]
    pub const fn word_used_up(&self) -> u64 {
        self.hits().saturating_sub(self.no_word)
    }

    /// Visits to the depot that made no slab: they found slots there, or were refused. A difference, which may
    /// be less at a later reading.
    #[must_use]
    pub const fn from_depot(&self) -> u64 {
        self.depot_visits.saturating_sub(self.new_slabs)
    }

    /// Allocations that were refused.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.epoch_closed
            .saturating_add(self.limit)
            .saturating_add(self.out_of_memory)
    }
}
