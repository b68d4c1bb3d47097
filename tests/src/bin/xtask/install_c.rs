//! `cargo xtask install-c`: the libraries for C with their headers, where a program finds them by `pkg-config`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{output, root, target_dir, words};
use crate::libraries;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The folder that gets `lib` and `include`.
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    output(words(
        "cargo build --quiet --profile dist -p temporal-slab-capi",
    ))?;
    let (checked, unchecked) = (libraries::ours()?, libraries::ours_unchecked()?);
    let (built, sources) = (target_dir().join("dist"), root().join("hosted/capi"));
    let library = options.prefix.join("lib");
    for name in ["libtemporal_slab_c.so", "libtemporal_slab_c.a"] {
        copy(&built.join(name), &library.join(name))?;
    }
    copy(&checked, &library.join("libtemporal_slab_malloc.so"))?;
    copy(
        &unchecked,
        &library.join("libtemporal_slab_malloc_unchecked.so"),
    )?;
    let header = "include/temporal_slab.h";
    copy(&sources.join(header), &options.prefix.join(header))?;
    let prefix = std::path::absolute(&options.prefix)?;
    let text = std::fs::read_to_string(sources.join("temporal-slab.pc.in"))?
        .replace("@prefix@", &prefix.to_string_lossy())
        .replace("@version@", env!("CARGO_PKG_VERSION"));
    let file = library.join("pkgconfig/temporal-slab.pc");
    folder_of(&file)?;
    std::fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    println!("installed in {}", prefix.display());
    Ok(())
}

fn folder_of(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(file);
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    folder_of(to)?;
    std::fs::copy(from, to).with_context(|| format!("{} cannot be written", to.display()))?;
    Ok(())
}
