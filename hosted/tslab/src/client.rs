//! Asking an exporter.

use anyhow::{Context, Result, bail, ensure};
use core::time::Duration;
use std::io::Read;
use std::io::Write;
use temporal_slab_hosted::export::{Address, connect};

/// The longest answer that is taken.
const LONGEST: u64 = 64 << 20;

/// What takes long to answer, and how long a read of it waits: to say where objects were allocated a program reads its own debug information,
/// which takes seconds on a busy machine.
const FINDINGS: (&str, Duration) = ("/findings.txt", Duration::from_secs(60));

/// Gets what is at a path.
pub(crate) fn get(address: &Address, path: &str) -> Result<String> {
    let mut stream = connect(address).with_context(|| format!("nobody serves at {address}"))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    if path == FINDINGS.0 {
        stream.set_timeout(FINDINGS.1)?;
    }
    let mut answer = Vec::new();
    let read = stream.take(LONGEST + 1).read_to_end(&mut answer);
    read.with_context(|| format!("{address} does not answer"))?;
    ensure!(
        answer.len() as u64 <= LONGEST,
        "{address}: the answer has no end"
    );
    let answer = String::from_utf8(answer).context("the answer is not text")?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{address}: this is no HTTP");
    };
    let status = head.lines().next().unwrap_or("");
    ensure!(
        status.starts_with("HTTP/1.") && status.contains(" 200 "),
        "{address}{path}: {status}"
    );
    Ok(body.to_owned())
}
