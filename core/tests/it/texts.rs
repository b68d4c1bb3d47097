//! What people read: each error says something of its own, and what is printed for a programmer holds its parts.

use core::fmt::{Debug, Display};
use std::collections::HashSet;
use temporal_slab::provider::ProviderError;
use temporal_slab::{AllocError, Epoch, EpochError, FreeError, HandleError, Label, RawHandle};

fn texts<T: Display + Debug>(errors: &[T]) -> Vec<String> {
    let text = |error: &T| {
        let text = error.to_string();
        assert!(text.len() > 10, "{error:?} says {text:?}");
        assert_ne!(text, format!("{error:?}"));
        text
    };
    errors.iter().map(text).collect()
}

/// Catches an error that says nothing, or what another of its kind says.
#[test]
fn each_error_says_something_of_its_own() {
    use AllocError as A;
    use EpochError as E;
    use FreeError as F;
    use HandleError as H;
    let kinds = [
        texts(&[
            A::OutOfMemory,
            A::Limit,
            A::TooLarge,
            A::EpochClosed,
            A::HandlesExhausted,
        ]),
        texts(&[F::DoubleFree, F::Foreign, F::Interior, F::WrongLayout]),
        texts(&[H::Malformed, H::Foreign, H::Stale, H::WrongClass, H::InUse]),
        texts(&[
            E::Closed,
            E::RingFull,
            E::Immortal,
            E::OutOfMemory,
            E::OtherHeap,
        ]),
        texts(&[ProviderError]),
    ];
    for texts in &kinds {
        let distinct: HashSet<_> = texts.iter().collect();
        assert_eq!(distinct.len(), texts.len(), "{texts:?}");
    }
}

/// Catches a part of a handle that is read from other bits than the format has it in.
#[test]
fn a_handle_has_its_parts() {
    let (id, generation, slot, class) = (0x2A_BCDE, 0x12_3456, 0x37, 0x59);
    let bits = id << 42 | generation << 18 | slot << 10 | class << 2 | 1;
    let handle = RawHandle::from_bits(bits);
    assert_eq!(handle.bits(), bits);
    assert_eq!(u64::from(handle.id()), id);
    assert_eq!(u64::from(handle.generation()), generation);
    assert_eq!((handle.slot() as u64, handle.class() as u64), (slot, class));
    assert!(handle.is_well_formed());
    for (bits, why) in [
        (bits ^ 0b11, "another version"),
        (bits & !0b11, "no version"),
        (bits & !(0xFF << 10) | 64 << 10, "a slot that no slab has"),
        (0, "nothing"),
    ] {
        assert!(!RawHandle::from_bits(bits).is_well_formed(), "{why}");
    }
    let last = bits & !(0xFF << 10) | 63 << 10;
    assert!(RawHandle::from_bits(last).is_well_formed(), "the last slot");
    let text = format!("{handle:?}");
    assert_eq!(
        text,
        format!(
            "RawHandle(id {id}, generation {generation}, slot {slot}, class {class}, version 1)"
        )
    );
}

#[test]
fn tokens_and_labels_are_shown() {
    let epoch = Epoch::from_parts(7, 1234).unwrap();
    let text = format!("{epoch:?}");
    assert!(text.contains('7') && text.contains("1234"), "{text}");
    let label = Label::new("a \"request\"");
    assert_eq!(label.to_string(), "a \"request\"");
    assert_eq!(format!("{label:?}"), "\"a \\\"request\\\"\"");
    assert_eq!(format!("[{:>12}]", Label::new("batch")), "[       batch]");
}
