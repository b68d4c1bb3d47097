//! Libraries with the C library's memory functions, to be preloaded: ours, and those of the peers.
//!
//! A peer's library is built from the source that its crate brings along, with the flags that its own build has for a
//! library that replaces `malloc`; so a call is the peer's own function, and the version is the one that programs in Rust get.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::command::{on_path, output, target_dir, words};

const LIBRARY: &str = "libtemporal_slab_malloc.so";

/// Builds ours as it ships, which checks each pointer that comes back.
pub(crate) fn ours() -> Result<PathBuf> {
    output(words(
        "cargo build --quiet --profile dist -p temporal-slab-malloc",
    ))?;
    Ok(target_dir().join("dist").join(LIBRARY))
}

/// Builds ours without checks. In a folder of its own: the library's name is the same, and the two would be built in turns.
pub(crate) fn ours_unchecked() -> Result<PathBuf> {
    let folder = target_dir().join("unchecked");
    let mut build =
        words("cargo build --quiet --profile dist -p temporal-slab-malloc --no-default-features");
    build.arg("--target-dir").arg(&folder);
    output(build)?;
    Ok(folder.join("dist").join(LIBRARY))
}

/// How a peer's library is made of its crate's source. `@` is the crate's folder.
struct Source {
    name: &'static str,
    package: &'static str,
    command: &'static str,
}

const MIMALLOC: &str = "-O3 -DNDEBUG -DMI_BUILD_RELEASE -DMI_DEBUG=0 -fPIC -shared -fvisibility=hidden \
    -ftls-model=initial-exec -fno-builtin-malloc -DMI_MALLOC_OVERRIDE -DMI_SHARED_LIB -DMI_SHARED_LIB_EXPORT";

const SOURCES: [Source; 4] = [
    Source {
        name: "mimalloc2",
        package: "libmimalloc-sys",
        command: "cc @mimalloc -I@/c_src/mimalloc/v2/include -I@/c_src/mimalloc/v2/src @/c_src/mimalloc/v2/src/static.c -lpthread",
    },
    Source {
        name: "mimalloc3",
        package: "libmimalloc-sys",
        command: "cc @mimalloc -I@/c_src/mimalloc/v3/include -I@/c_src/mimalloc/v3/src @/c_src/mimalloc/v3/src/static.c -lpthread",
    },
    Source {
        name: "snmalloc",
        package: "snmalloc-sys",
        command: "c++ -O3 -DNDEBUG -std=c++20 -mcx16 -fPIC -shared -fno-rtti -fomit-frame-pointer -fvisibility=hidden \
            -ftls-model=initial-exec -static-libstdc++ -pthread -DSNMALLOC_EXPORT=__attribute__((visibility(\"default\"))) \
            -DSNMALLOC_USE_WAIT_ON_ADDRESS=1 -DSNMALLOC_HAS_LINUX_FUTEX_H -DSNMALLOC_HAS_LINUX_RANDOM_H \
            -DSNMALLOC_PLATFORM_HAS_GETENTROPY -DSNMALLOC_CHECK_LOADS=false -DSNMALLOC_PAGEID=false -I@/upstream/src \
            @/upstream/src/snmalloc/override/malloc.cc @/upstream/src/snmalloc/override/new.cc",
    },
    Source {
        name: "rpmalloc",
        package: "rpmalloc-sys",
        command: "cc -O3 -DNDEBUG -D_GNU_SOURCE -fPIC -shared -w -fvisibility=hidden -ftls-model=initial-exec \
            -DENABLE_PRELOAD=1 -DENABLE_OVERRIDE=1 @/rpmalloc/rpmalloc/rpmalloc.c -lpthread -ldl",
    },
];

/// A package of Debian's, and its library.
const JEMALLOC: (&str, &str) = ("libjemalloc2", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2");

/// The library of a peer, which is built, or installed, unless it is there.
pub(crate) fn peer(name: &str) -> Result<PathBuf> {
    if name == "jemalloc" {
        let (package, library) = JEMALLOC;
        if !Path::new(library).exists() {
            install(&[package])?;
        }
        return Ok(PathBuf::from(library));
    }
    let source = SOURCES.iter().find(|source| source.name == name);
    let source = source.with_context(|| format!("there is no library of {name}"))?;
    let folder = folder_of(source.package)?;
    let crate_name = folder.file_name().unwrap_or_default().to_string_lossy();
    // Its version is in its name, so another version is built anew.
    let built = target_dir()
        .join("peers")
        .join(format!("{name}-of-{crate_name}.so"));
    if !built.exists() {
        eprintln!("building {name}'s library");
        std::fs::create_dir_all(target_dir().join("peers"))?;
        let line = source.command.replace("@mimalloc", MIMALLOC);
        let mut build = words(&line.replace('@', &folder.to_string_lossy()));
        build.arg("-o").arg(&built);
        output(build).context("a compiler for C and one for C++ are needed, of GCC 12 at least")?;
    }
    Ok(built)
}

/// Where cargo has put a package's source.
fn folder_of(package: &str) -> Result<PathBuf> {
    let text = output(words("cargo metadata --format-version 1 --all-features"))?;
    let begins = format!("/{package}-");
    let manifest = text
        .split('"')
        .find(|part| part.ends_with("/Cargo.toml") && part.contains(&begins));
    let manifest = manifest.with_context(|| format!("no package needs {package} any more"))?;
    Ok(Path::new(manifest).with_file_name(""))
}

/// Installs packages of Debian's.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    ensure!(
        on_path("apt-get"),
        "there is no apt-get: install {list} by hand, by the names that this system has for them"
    );
    eprintln!("installing {list}");
    let install = || {
        output(words(&format!(
            "apt-get install --yes --no-install-recommends {list}"
        )))
    };
    install()
        .or_else(|_| output(words("apt-get update")).and_then(|_| install()))
        .map(|_| ())
}
