//! The contest's program on mimalloc.
mod program;
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    program::main(|| {});
}
