//! What is counted under the lock of the pages, as plain data.

/// What a heap has from its provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageStats {
    /// Bytes that are held from the provider.
    pub committed: u64,
    /// The most that there were.
    pub most_committed: u64,
    /// Of these, what was touched and not given back, as accounted.
    pub resident: u64,
    /// The byte limit, if there is one.
    pub limit: Option<u64>,
    /// Chunks that there are.
    pub chunks: u64,
    /// Chunks that were got so far.
    pub chunks_acquired: u64,
    /// Chunks that went back whole.
    pub chunks_released: u64,
    /// Requests that the provider refused.
    pub acquires_failed: u64,
    /// Regions that the provider gave and that had to be refused because of their shape or place.
    pub regions_refused: u64,
    /// Decommit calls that succeeded.
    pub decommits: u64,
    /// Resident bytes that they gave back.
    pub decommitted_bytes: u64,
    /// Decommit calls that failed; the pages stay counted as resident.
    pub decommits_failed: u64,
}
