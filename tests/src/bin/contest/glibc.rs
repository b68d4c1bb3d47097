//! The contest's program on the system's allocator.
mod program;
#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;
fn main() {
    program::main(|| {});
}
