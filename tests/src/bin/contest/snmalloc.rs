//! The contest's program on snmalloc.
mod program;
#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;
fn main() {
    program::main(|| {});
}
