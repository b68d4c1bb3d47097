//! What a heap can be asked to do, as values: the property tests draw them at random, and the fuzzer makes them of bytes.

use temporal_slab::Policy;
use temporal_slab::provider::Fault;

/// One step. Numbers are reduced to what exists, so every value of every field means something.
///
/// `local` is a local's number, or the shared path beyond them; `epoch` is 0 where none is named, or the number of a
/// token, be its epoch open, closed or over.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are what the text above says of them"
)]
pub enum Action {
    /// Allocates; with a handle, if a class serves it. Sizes from [`HUGE`] on are as large as a layout can be.
    Alloc {
        local: u8,
        epoch: u8,
        size: u32,
        align: u8,
        zeroed: bool,
        named: bool,
    },
    /// Allocates several of one size.
    Batch {
        local: u8,
        epoch: u8,
        size: u16,
        count: u8,
    },
    /// Allocates through what times allocations.
    Sampled {
        local: u8,
        size: u16,
    },
    /// Frees the `object`th live object: by its layout or handle, or by its address alone.
    Free {
        local: u8,
        object: u16,
    },
    FreeAny {
        local: u8,
        object: u16,
    },
    /// Frees `count` objects that lie beside each other.
    FreeMany {
        local: u8,
        object: u16,
        count: u8,
    },
    /// Resizes one.
    Resize {
        local: u8,
        object: u16,
        size: u32,
    },
    /// Frees what is no live object, or not in that way: a checked heap refuses it.
    Misuse {
        local: u8,
        object: u16,
        how: u8,
    },
    /// Flushes a local, has it leave an epoch, or drops it and makes a new one in its place.
    Flush {
        local: u8,
    },
    Leave {
        local: u8,
        epoch: u8,
    },
    Renew {
        local: u8,
    },
    /// Gives back what is empty; all of it, or but for so many bytes.
    Reclaim,
    ReclaimTo {
        bytes: u32,
    },
    /// Takes memory from the provider for later.
    Reserve {
        bytes: u32,
    },
    /// Asks what was idle.
    Idle,
    /// Takes all locks, and gives them back.
    Pause,
    /// Changes the policy.
    Policy(Policy),
    /// Lets the heap take so many bytes more than it has, or any number.
    Limit {
        more: Option<u32>,
    },
    /// Breaks calls of the provider, or has it behave again.
    Break {
        after: u8,
        count: u8,
        fault: Fault,
    },
    Mend,
    /// Opens an epoch, and makes it current or not.
    Open {
        current: bool,
    },
    /// Closes one.
    Close {
        epoch: u8,
    },
    /// Calls one something.
    Label {
        epoch: u8,
        label: u8,
    },
    /// Asks for an epoch that may never have been.
    Token {
        index: u16,
        era: u64,
    },
    /// Counts somebody in or out, by no guard.
    Count {
        epoch: u8,
        enters: bool,
        closes: bool,
    },
    /// Goes into a domain, inside the one that was entered last or beside it; leaves the one that was entered last; or
    /// allocates in it.
    Enter {
        epoch: u8,
        closes: bool,
        nested: bool,
    },
    Exit,
    AllocInside {
        local: u8,
        size: u16,
    },
    /// Moves a value into the heap, and what becomes of it.
    Insert {
        local: u8,
        epoch: u8,
        kind: u8,
    },
    Read {
        value: u8,
        times: u8,
    },
    Unread {
        reading: u8,
    },
    Remove {
        local: u8,
        value: u8,
    },
    Take {
        local: u8,
        value: u8,
    },
    Forget {
        local: u8,
        value: u8,
    },
    /// Looks up bits that are those of a known handle but for these, and frees what they name, if they do.
    Forge {
        local: u8,
        handle: u16,
        flips: u64,
    },
    /// Makes a scope; allocates in one; empties it; or drops it.
    Scope,
    InScope {
        scope: u8,
        how: u8,
        size: u16,
        align: u8,
    },
    Reset {
        scope: u8,
    },
    EndScope {
        scope: u8,
    },
    /// Allocates, grows and shrinks through an adapter.
    Adapt {
        through: u8,
        epoch: u8,
        size: u16,
    },
    /// Compares all figures with the walker's.
    Stats,
    /// Writes a report.
    Report {
        kind: u8,
    },
}

/// From here on a size stands for one of the largest that a layout can have.
pub const HUGE: u32 = u32::MAX - 64;
