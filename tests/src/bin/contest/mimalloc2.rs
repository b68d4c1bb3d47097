//! The contest's program on mimalloc 2.
mod program;
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
unsafe extern "C" {
    safe fn mi_version() -> core::ffi::c_int;
}
fn main() {
    assert_eq!(mi_version() / 10_000, 2, "not built for the contest");
    program::main(|| {});
}
