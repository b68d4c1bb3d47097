//! What each fuzz target does with its input. They are functions, so that the inputs that are kept are run as tests as
//! well, by the pinned compiler and without a fuzzer.

mod api;
mod capi;
mod encoders;
mod endpoint;
mod figures;
mod handles;
mod moving;
mod reports;

use arbitrary::Unstructured;

pub use api::api;
pub use capi::capi;
pub use encoders::encoders;
pub use handles::handles;

/// An input, as far as it was read.
type Bytes<'d> = Unstructured<'d>;

/// What was read of an input, unless it was over.
type Known<T> = arbitrary::Result<T>;
