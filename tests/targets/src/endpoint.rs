//! The export endpoint's answers to arbitrary bytes, on a connection that gives them in pieces of any length, ends where
//! it likes, and takes the answer as slowly as it likes.

use crate::reports::{Many, is_json, is_prometheus};
use crate::{Bytes, Known};
use core::alloc::Layout;
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use temporal_slab::Heap;
use temporal_slab_actions::host::HostProvider;
use temporal_slab_hosted::export::{LONGEST_REQUEST, Stream, serve_one};

/// What requests are made of.
const WORDS: [&[u8]; 18] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"/",
    b"/metrics",
    b"/stats.json",
    b"/stats.txt",
    b"/findings.txt",
    b"/process.json",
    b"?",
    b"#",
    b" ",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"\r\n",
    b"\r\n\r\n",
    b"Host: localhost",
    &[b'x'; 1000],
];

/// Answers one request.
pub(crate) fn endpoint(bytes: &mut Bytes<'_>) -> Known<()> {
    let mut client = Client::new(bytes)?;
    let sent: Vec<u8> = client.pieces.iter().flatten().flatten().copied().collect();
    let heap = Heap::<Many<_>>::new(HostProvider::<65536>::default());
    let epoch = heap.open_epoch().expect("the host has memory");
    let layout = Layout::new::<[u64; 20]>();
    let object = heap.alloc_in(epoch, layout).expect("the host has memory");
    let served = serve_one(&mut client, &heap, None);
    // SAFETY: it was just allocated.
    unsafe { heap.free(object, layout) }.expect("it is live");
    let Client {
        taken,
        ending,
        room,
        ..
    } = client;
    let is_whole = room.is_none();
    assert!(
        served.is_ok() || !is_whole,
        "{served:?} of a client who takes all"
    );
    if !is_whole {
        return Ok(());
    }
    let head_ends = sent.windows(4).position(|four| four == b"\r\n\r\n");
    match head_ends.filter(|at| at + 4 <= LONGEST_REQUEST) {
        Some(end) => is_answer(sent.get(..end).unwrap_or_default(), &taken),
        None if sent.len() >= LONGEST_REQUEST => is_status(&taken, 431),
        None if ending == Ending::Slow => is_status(&taken, 408),
        None => assert!(taken.is_empty(), "a client who is gone gets nothing"),
    }
    Ok(())
}

/// The parts of an answer, by a parser that is not ours.
fn parse(answer: &[u8]) -> (u16, String, &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(answer).expect("the answer is HTTP");
    let httparse::Status::Complete(end) = parsed else {
        panic!("the answer's head ends");
    };
    let of = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name));
        String::from_utf8(found.expect(name).value.to_vec()).expect("a header is text")
    };
    let body = answer.get(end..).unwrap_or_default();
    let length: usize = of("Content-Length").parse().expect("a length is a number");
    assert!(
        body.is_empty() || body.len() == length,
        "{} of {length} bytes",
        body.len()
    );
    (
        response.code.expect("it has a status"),
        of("Content-Type"),
        body,
    )
}

fn is_status(answer: &[u8], status: u16) {
    assert_eq!(parse(answer).0, status);
}

/// Whether an answer is right for the head of a request.
fn is_answer(head: &[u8], answer: &[u8]) {
    let (status, kind, body) = parse(answer);
    let body = core::str::from_utf8(body).expect("all answers are text");
    let line: &[u8] = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let is_request = core::str::from_utf8(line).is_ok()
        && words.len() == 3
        && words
            .get(2)
            .is_some_and(|version| version.starts_with(b"HTTP/1."));
    if !is_request {
        return assert_eq!(status, 400, "{line:?}");
    }
    let (method, target) = (words[0], words[1]);
    if method != b"GET" && method != b"HEAD" {
        return assert_eq!(status, 405, "{line:?}");
    }
    let path = target
        .split(|byte| b"?#".contains(byte))
        .next()
        .unwrap_or_default();
    let expected = match path {
        b"/metrics" => Some("text/plain; version=0.0.4; charset=utf-8"),
        b"/stats.json" | b"/process.json" => Some("application/json"),
        b"/" | b"/stats.txt" | b"/findings.txt" => Some("text/plain; charset=utf-8"),
        _ => None,
    };
    let Some(expected) = expected else {
        return assert_eq!(status, 404, "{line:?}");
    };
    assert_eq!((status, kind.as_str()), (200, expected), "{line:?}");
    if method == b"HEAD" {
        return assert_eq!(body, "", "{line:?}");
    }
    match path {
        b"/metrics" => drop(is_prometheus(body, false)),
        b"/stats.json" => drop(is_json(body)),
        b"/process.json" => {
            let _: serde_json::Value = serde_json::from_str(body).expect("it is JSON");
        }
        _ => assert!(!body.is_empty(), "{line:?}"),
    }
}

/// What comes behind the last piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The client goes.
    Gone,
    /// Nothing comes for longer than anybody waits.
    Slow,
    /// The connection breaks.
    Broken,
}

/// A client that does what its input says.
#[derive(Debug)]
struct Client {
    /// What it sends; `None` is an interruption.
    pieces: VecDeque<Option<Vec<u8>>>,
    ending: Ending,
    /// How many bytes it takes at a time.
    sip: usize,
    /// How many bytes it takes before it goes, if not all.
    room: Option<usize>,
    taken: Vec<u8>,
}

impl Client {
    fn new(bytes: &mut Bytes<'_>) -> Known<Self> {
        let ending = [Ending::Gone, Ending::Slow, Ending::Broken];
        let ending = ending[bytes.int_in_range(0..=2usize)?];
        let sip = 1 + usize::from(bytes.arbitrary::<u16>()?);
        let room: Option<u16> = bytes.arbitrary()?;
        let mut pieces = VecDeque::new();
        while !bytes.is_empty() && pieces.len() < 64 {
            pieces.push_back(match bytes.int_in_range(0..=23u8)? {
                0 => None,
                1..=5 => {
                    let len = bytes.int_in_range(0..=64usize)?.min(bytes.len());
                    Some(bytes.bytes(len)?.to_vec())
                }
                number => Some(WORDS[usize::from(number) - 6].to_vec()),
            });
        }
        Ok(Self {
            pieces,
            ending,
            sip,
            room: room.map(usize::from),
            taken: Vec::new(),
        })
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.front_mut() else {
            return match self.ending {
                Ending::Gone => Ok(0),
                Ending::Slow => Err(io::ErrorKind::WouldBlock.into()),
                Ending::Broken => Err(io::ErrorKind::ConnectionReset.into()),
            };
        };
        let Some(piece) = piece else {
            self.pieces.pop_front();
            return Err(io::ErrorKind::Interrupted.into());
        };
        let len = piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&piece[..len]);
        piece.drain(..len);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        // Nothing would be the end.
        if len == 0 { self.read(buffer) } else { Ok(len) }
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut len = bytes.len().min(self.sip);
        if let Some(room) = &mut self.room {
            if *room == 0 {
                return if self.ending == Ending::Gone {
                    Ok(0)
                } else {
                    Err(io::ErrorKind::BrokenPipe.into())
                };
            }
            len = len.min(*room);
            *room -= len;
        }
        self.taken.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Client {
    fn set_timeout(&self, time: Duration) -> io::Result<()> {
        assert!(!time.is_zero(), "a wait has a bound, which is not 0");
        Ok(())
    }
}
