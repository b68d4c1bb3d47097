//! Where what outlives its phase was allocated, as a program is told of it.

use core::num::NonZeroU32;
use std::io::Read;
use temporal_slab_hosted::TemporalSlab;

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

/// What leaks: the first is zeroed.
#[inline(never)]
fn remembers(what: u64) -> Vec<u64> {
    // Not its last call, which would be the caller's.
    std::hint::black_box(vec![what; 12])
}

/// What leaks, and was moved when it grew: another object lies behind it.
#[inline(never)]
fn grows(what: u64) -> Vec<u64> {
    let mut numbers = vec![what; 8];
    let between = vec![what; 8];
    numbers.extend_from_slice(&[what; 50]);
    drop(between);
    std::hint::black_box(numbers)
}

/// What does not.
#[inline(never)]
fn forgets(what: u64) -> Vec<u64> {
    vec![what; 40]
}

fn told() -> String {
    let mut text = String::with_capacity(1 << 16);
    TemporalSlab::write_origins(&mut text).unwrap();
    text
}

fn serve(name: &str) -> Vec<Vec<u64>> {
    let mut kept = Vec::with_capacity(11);
    let phase = TemporalSlab::phase().unwrap();
    TemporalSlab::heap().set_label(phase.epoch(), name).unwrap();
    for what in 0..10 {
        kept.push(remembers(what));
        drop(forgets(what));
    }
    kept.push(grows(10));
    kept
}

/// Survivors are told with their label, their number and the function that made them, or had them grow; and no more once they are freed. Catches objects that
/// were freed in their phase, those of threads that were not asked, and text of the allocator's own functions.
#[test]
fn survivors_lead_to_where_they_were_allocated() {
    drop(serve("nobody asked"));
    let unasked = serve("nobody asked");
    assert_eq!(told(), "");
    TemporalSlab::sample_threads(NonZeroU32::new(1));
    let by_this = serve("of this thread");
    let by_new = std::thread::spawn(|| serve("of another")).join().unwrap();
    TemporalSlab::sample_threads(None);
    let text = told();
    for label in ["of this thread", "of another"] {
        // By the call for zeroed memory, and by the other.
        for told in ["1 sampled survivors, 96 B", "9 sampled survivors, 864 B"] {
            let told = format!("{label:?}: {told}");
            assert!(text.contains(&told), "{text}");
        }
    }
    assert_eq!(text.matches("remembers (").count(), 4, "{text}");
    assert!(
        text.contains("serve (") && text.contains("tests/origins.rs:"),
        "{text}"
    );
    assert!(
        !text.contains("forgets") && !text.contains("nobody asked"),
        "{text}"
    );
    assert!(
        !text.contains("src/global") && !text.contains("library/alloc"),
        "{text}"
    );
    assert_eq!(text.matches("grows (").count(), 2, "{text}");
    // As `tslab doctor` has it.
    let exporter = TemporalSlab::export("127.0.0.1:0").unwrap();
    let mut stream = temporal_slab_hosted::export::connect(exporter.address()).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /findings.txt HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&text), "{answer}");
    drop((by_this, by_new, unasked));
    assert_eq!(told(), "");
}
