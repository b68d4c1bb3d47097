//! Frames: a scope that is reset after each one. Nothing is freed one by one, and after the first
//! frame nothing is asked of the heap.

use core::error::Error;
use temporal_slab::config::Standard;
use temporal_slab::provider::StaticProvider;
use temporal_slab::{Heap, Scope};

#[derive(Debug, Clone, Copy)]
struct Particle {
    place: [f32; 3],
    age: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut memory = Box::<[u8]>::new_uninit_slice(4 << 20);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    let heap: Heap<Standard<_>> = Heap::new(provider);
    let mut frame = Scope::new(&heap);
    let mut taken = 0;
    for number in 0..600u32 {
        let particles = frame.alloc_slice_fill_with(500, |index| Particle {
            place: [index as f32, 0.0, 0.0],
            age: number,
        })?;
        for particle in particles.iter_mut() {
            particle.place[1] += 9.81;
        }
        let title = frame.alloc_str("frame")?;
        assert_eq!((particles[499].age, &*title), (number, "frame"));
        frame.reset();
        if number == 1 {
            taken = heap.bytes().taken;
        }
        assert!(number < 1 || heap.bytes().taken == taken);
    }
    println!("600 frames in {taken} bytes");
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
