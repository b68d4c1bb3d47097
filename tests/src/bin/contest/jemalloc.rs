//! The contest's program on jemalloc.
mod program;
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
fn main() {
    program::main(|| {});
}
