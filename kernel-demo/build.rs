//! Has the kernel linked at fixed addresses.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The bootloader applies no relocations: a position-independent kernel would hang at its first
    // use of an absolute address, without a word. Only for the kernel's target, because the host's
    // linker driver needs its own start files to agree.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg=--no-pie");
    }
}
