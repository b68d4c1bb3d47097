//! What a heap says of itself, in all encodings, and the endpoint that says it to others.
//!
//! Catches an encoding that its parser does not read, or reads as something else than what was encoded; a label that
//! breaks out of its quotes or its line; a sum or a share that is none; an encoder that goes on where there is no room;
//! a request that is answered wrongly, or by a panic. Seen to catch: a quote that is not escaped, in either encoding; an
//! endpoint that takes the end of a request for one of its lines.

use crate::endpoint::endpoint;
use crate::figures;
use crate::reports::reports;
use arbitrary::Unstructured;

/// Runs one input.
pub fn encoders(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let _end = match bytes.int_in_range(0..=2u8) {
        Ok(0) => reports(&mut bytes),
        Ok(1) => endpoint(&mut bytes),
        _ => figures::check(&mut bytes),
    };
}
