//! The contest's program on temporal-slab.
mod program;
#[global_allocator]
static GLOBAL: temporal_slab_hosted::TemporalSlab = temporal_slab_hosted::TemporalSlab;
fn main() {
    program::main(|| temporal_slab_hosted::TemporalSlab::heap().reclaim());
}
