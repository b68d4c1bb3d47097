//! A loop of frames: what a frame allocates is of an epoch of its own, and memory is what one frame needs, for any number of them.
//!
//! ```sh
//! cargo run --release -p temporal-slab-hosted --example frames
//! ```

use std::collections::BTreeMap;
use temporal_slab::EpochError;
use temporal_slab_hosted::TemporalSlab;

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

/// What moves, from frame to frame.
#[derive(Debug, Clone, Copy)]
struct Body {
    place: i64,
    speed: i64,
}

/// Moves the bodies, and gives a picture of where they are.
fn draw(bodies: &mut [Body]) -> String {
    let mut places: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (number, body) in bodies.iter_mut().enumerate() {
        body.place += body.speed;
        if !(0..60).contains(&body.place) {
            (body.place, body.speed) = (body.place.clamp(0, 59), -body.speed);
        }
        places.entry(body.place).or_default().push(number);
    }
    let sign = |place| match places.get(&place).map_or(0, Vec::len) {
        0 => ' ',
        1 => '.',
        _ => 'o',
    };
    (0..60).map(sign).collect()
}

/// Draws frames, each in a phase; the last picture, and the most bytes that blocks had behind a frame.
fn run(frames: usize) -> Result<(String, u64), EpochError> {
    let body = |number: i64| Body {
        place: number * 7 % 60,
        speed: number % 5 - 2,
    };
    let mut bodies: Vec<Body> = (0..40).map(body).collect();
    let (mut last, mut most) = (String::new(), 0);
    for frame in 0..frames {
        let phase = TemporalSlab::phase()?;
        let picture = draw(&mut bodies);
        // What stays is not of the frame.
        TemporalSlab::outside(|| last.clone_from(&picture));
        drop(picture);
        drop(phase);
        if frame % 1000 == 0 {
            most = most.max(TemporalSlab::heap().stats().blocks.bytes);
        }
    }
    Ok((last, most))
}

fn main() -> Result<(), EpochError> {
    let (picture, bytes) = run(100_000)?;
    println!(
        "[{picture}] after 100,000 frames, for which {} KiB of blocks served",
        bytes >> 10
    );
    Ok(())
}

/// Catches frames whose memory is not that of the next.
#[test]
fn memory_is_that_of_one_frame() {
    let (picture, bytes) = run(5000).unwrap();
    assert_eq!(picture.len(), 60);
    assert!(bytes <= 256 << 10, "{bytes}");
    assert_eq!(TemporalSlab::heap().stats().open_epochs, 1);
}
