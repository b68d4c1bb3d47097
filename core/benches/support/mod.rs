//! What benchmarks share.

pub(crate) mod contender;
pub(crate) mod driver;
pub(crate) mod options;
pub(crate) mod partner;
pub(crate) mod pattern;
pub(crate) mod report;
