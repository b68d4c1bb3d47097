//! The export endpoint: what it serves, to whom, and what it does with those who do not speak as they should.
#![cfg(all(target_os = "linux", feature = "export"))]

mod common;

use common::alone;
use core::num::NonZeroU32;
use core::time::Duration;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Instant;
use temporal_slab_hosted::TemporalSlab;
use temporal_slab_hosted::export::{Address, Exporter, LONGEST_REQUEST, Options, connect};

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

/// Longer than anything takes that ends, on a computer that has other things to do.
const TOO_LONG: Duration = Duration::from_secs(60);

fn start(address: &str) -> Exporter {
    TemporalSlab::export(address).unwrap()
}

/// Sends bytes and gives what comes back until the end.
fn ask(address: &Address, request: &[u8]) -> String {
    let mut stream = connect(address).unwrap();
    // The other side may have had enough before the end.
    let _sent = stream.write_all(request);
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(address: &Address, path: &str) -> (String, String) {
    let answer = ask(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tslab-{}-{name}", std::process::id()))
}

/// Every path over both kinds of address, with the length that was promised.
#[test]
fn it_serves_what_it_says() {
    TemporalSlab::sample_thread(NonZeroU32::new(3));
    let kept: Vec<Vec<u8>> = (0..1000).map(|n| vec![1; n]).collect();
    TemporalSlab::sample_thread(None);
    let path = socket("serves");
    for exporter in [
        start("127.0.0.1:0"),
        start("[::1]:0"),
        start(&format!("unix:{}", path.display())),
    ] {
        for (path, word) in [
            ("/", "/metrics"),
            ("/metrics", "temporal_slab_process_resident_bytes"),
            ("/metrics?x=1", "temporal_slab_alloc_seconds_count"),
            ("/stats.json", "\"schema\":1"),
            ("/stats.txt", "slow paths"),
            ("/findings.txt", "\n"),
            ("/process.json", "\"mappings\""),
        ] {
            let (head, body) = get(exporter.address(), path);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
            assert!(body.contains(word), "{path}: {body}");
            assert!(
                head.contains(&format!("Content-Length: {}", body.len())),
                "{head}"
            );
            let head_only = ask(
                exporter.address(),
                format!("HEAD {path} HTTP/1.0\r\n\r\n").as_bytes(),
            );
            assert!(head_only.ends_with("\r\n\r\n"), "{head_only}");
        }
        assert!(
            get(exporter.address(), "/nothing")
                .0
                .starts_with("HTTP/1.1 404")
        );
    }
    assert!(!path.exists(), "the socket goes with the exporter");
    assert_eq!(kept.iter().map(Vec::len).sum::<usize>(), 999 * 500);
}

/// Malformed, hostile and endless requests: an error or nothing, and the next client is served as if nothing had
/// been. Catches a panic in the exporter's thread and a request that makes it wait or grow.
#[test]
fn malformed_requests_get_errors() {
    let exporter = start("127.0.0.1:0");
    let address = exporter.address();
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(LONGEST_REQUEST));
    let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(LONGEST_REQUEST));
    for (request, status) in [
        (&b"POST /metrics HTTP/1.1\r\n\r\n"[..], "405"),
        (b"DELETE / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", "405"),
        (b"GET /metrics\r\n\r\n", "400"),
        (b"GET /metrics HTTP/2\r\n\r\n", "400"),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", "400"),
        (b"GET /a b HTTP/1.1\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
        (b"\xff\xfe\x00\x01\r\n\r\n", "400"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"GET http://127.0.0.1/metrics HTTP/1.1\r\n\r\n", "404"),
        (b"GET %00 HTTP/1.1\r\n\r\n", "404"),
        (b"GET /metrics\0 HTTP/1.1\r\n\r\n", "404"),
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (&[b'A'; 100_000], "431"),
    ] {
        let answer = ask(address, request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        // Where more was sent than is read the answer may be lost with the connection.
        let is_lost = answer.is_empty() && request.len() > LONGEST_REQUEST;
        assert!(
            is_lost || answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{shown:?}: {answer}"
        );
    }
    // Gone at once, gone in the middle, gone before the answer.
    for request in [&b""[..], b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n"] {
        let mut stream = connect(address).unwrap();
        stream.write_all(request).unwrap();
        drop(stream);
    }
    // A byte at a time, for ever: the patience is for all of it, and ends long before the longest request is there.
    let mut stream = connect(address).unwrap();
    let (begin, mut sent) = (Instant::now(), 0);
    while sent < LONGEST_REQUEST && stream.write_all(b"x").is_ok() {
        sent += 1;
        std::thread::sleep(Duration::from_millis(50));
        assert!(begin.elapsed() < TOO_LONG, "the exporter waits for ever");
    }
    assert!(sent < LONGEST_REQUEST / 2, "{sent} bytes");
    assert!(get(address, "/stats.json").0.starts_with("HTTP/1.1 200"));
}

/// Random bytes, and requests with bytes of theirs changed, from a fixed seed.
#[test]
fn random_requests_do_no_harm() {
    let exporter = start(&format!("unix:{}", socket("random").display()));
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize
    };
    for _ in 0..2000 {
        let mut request = b"GET /stats.json HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        for _ in 0..1 + random() % 4 {
            let at = random() % request.len();
            request[at] = random() as u8;
        }
        // So that it ends, whatever became of its end.
        request.extend_from_slice(b"\r\n\r\n");
        let mut stream = connect(exporter.address()).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        let _read = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "));
    }
    assert!(get(exporter.address(), "/").0.starts_with("HTTP/1.1 200"));
}

/// Addresses that other machines reach are refused unless that is asked for; what is no address says what one is; a
/// dead socket is replaced, and one that lives or a file is not.
#[test]
fn addresses_are_checked() {
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let error = TemporalSlab::export(open).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{open}");
        assert!(error.to_string().contains("any_machine"), "{error}");
    }
    for wrong in ["", "somewhere", "127.0.0.1", "127.0.0.1:99999", "http://"] {
        let error = TemporalSlab::export(wrong).unwrap_err();
        assert!(error.to_string().contains("unix:PATH"), "{error}");
    }
    let options = Options {
        any_machine: true,
        ..Options::default()
    };
    let everywhere =
        Exporter::start(TemporalSlab::heap(), &"0.0.0.0:0".parse().unwrap(), options).unwrap();
    let Address::Tcp(bound) = everywhere.address() else {
        panic!("{everywhere:?}");
    };
    let here = Address::Tcp(([127, 0, 0, 1], bound.port()).into());
    assert!(get(&here, "/").0.starts_with("HTTP/1.1 200"));
    let path = socket("checked");
    let address = format!("unix:{}", path.display());
    let first = start(&address);
    assert!(
        TemporalSlab::export(&address).is_err(),
        "somebody serves there"
    );
    drop(first);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(start(&address));
    std::fs::write(&path, "precious").unwrap();
    assert!(TemporalSlab::export(&address).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

/// A socket whose file somebody removed, or put another's in its place: the exporter ends all the same, and removes
/// only what is its own.
#[test]
fn an_exporter_ends_without_its_file() {
    let path = socket("removed");
    let exporter = start(&format!("unix:{}", path.display()));
    std::fs::remove_file(&path).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let begin = Instant::now();
    drop(exporter);
    assert!(begin.elapsed() < TOO_LONG, "{:?}", begin.elapsed());
    assert!(path.exists(), "the other's is the other's");
    drop(other);
    std::fs::remove_file(&path).unwrap();
}

/// Only its user may connect, from the first moment on, whatever the mask says; a path that is too long is an error.
#[test]
fn a_socket_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let path = socket("private");
    let exporter = start(&format!("unix:{}", path.display()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o177, 0, "{mode:o}");
    drop(exporter);
    let error = TemporalSlab::export(&format!("unix:/tmp/{}", "x".repeat(200))).unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
}

/// A child that lives on does not keep the port, nor clients waiting for nobody. In a process of its own, where nobody
/// else gets the port.
#[test]
fn a_child_does_not_keep_the_port() {
    if alone("a_child_does_not_keep_the_port") {
        return;
    }
    let exporter = start("127.0.0.1:0");
    let address = exporter.address().clone();
    // SAFETY: the child only sleeps, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::sleep(600);
            libc::_exit(0);
        }
    }
    assert!(
        get(&address, "/").0.starts_with("HTTP/1.1 200"),
        "the parent goes on"
    );
    drop(exporter);
    // The child may not have run yet.
    let end = Instant::now() + TOO_LONG;
    while connect(&address).is_ok() {
        assert!(Instant::now() < end, "somebody listens still");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(start(&address.to_string()));
    // SAFETY: the child is ours.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, core::ptr::null_mut(), 0);
    }
}

/// A client that reads a little now and then does not hold the exporter for longer than its patience.
#[test]
fn a_slow_reader_is_left() {
    let path = socket("slow");
    let exporter = start(&format!("unix:{}", path.display()));
    let mut slow = connect(exporter.address()).unwrap();
    // More than the system keeps on its way: several answers are asked for, one at a time is given.
    slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut little = [0; 10];
    let _read = slow.read(&mut little);
    let begin = Instant::now();
    let (head, _) = get(exporter.address(), "/");
    assert!(head.starts_with("HTTP/1.1 200") && begin.elapsed() < TOO_LONG);
    drop(exporter);
    assert!(begin.elapsed() < TOO_LONG);
}
