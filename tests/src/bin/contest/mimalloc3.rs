//! The contest's program on mimalloc 3.
mod program;
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
unsafe extern "C" {
    safe fn mi_version() -> core::ffi::c_int;
}
fn main() {
    // All features at once have both programs on mimalloc 2.
    assert_eq!(mi_version() / 10_000, 3, "not built for the contest");
    program::main(|| {});
}
