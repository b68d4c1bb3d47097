//! Requests over the loopback interface: a server for each contender, in a process of its own, and clients here.
//!
//! A worker of a server serves one connection at a time, and there are as many connections as workers. In each round
//! each contender has a new server: where the system puts threads, and which of them wake each other, lasts for as long
//! as they do, and can double the time of all requests.

use super::way::{self, Way};
use super::{Rounds, Times, no_times, note, report};
use crate::child::{self, Work};
use crate::context::Context;
use crate::results::Measured;
use anyhow::{Context as _, Result, anyhow, ensure};
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::time::Instant;

/// The largest request or answer, its head included.
const MOST: usize = 64 << 10;
/// How long a client waits before something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    threads: usize,
}

/// A server of one contender's.
pub(crate) const WORK: Work = Work {
    name: "serve",
    run: |contender, parameters| part(contender, &serde_json::from_str(parameters)?),
};

/// What a server prints when it can be asked.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    port: u16,
}

/// In the child: serves until it is killed.
fn part(contender: &str, asked: &Asked) -> Result<()> {
    let way = Way::named(contender).ok_or_else(|| anyhow!("{contender} is nobody"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ready = Ready {
        port: listener.local_addr()?.port(),
    };
    println!("{}", serde_json::to_string(&ready)?);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..asked.threads)
            .map(|_| {
                scope.spawn(|| {
                    way::with(way, |serve| -> Result<()> {
                        loop {
                            let (stream, _) = listener.accept()?;
                            // Whoever left has left.
                            let _left = connection(stream, serve);
                        }
                    })
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(())
    })
}

/// Serves all requests of a connection.
fn connection(mut stream: TcpStream, serve: &mut way::Serve<'_>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut message = Message::new();
    let mut answer = Vec::with_capacity(MOST);
    while let Some((begin, end)) = message.read(&mut stream, Head::Request)? {
        let text = core::str::from_utf8(&message.buffer[begin..end])?;
        answer.clear();
        serve(text, &mut |body| {
            // To a vector nothing fails.
            let _written = write!(
                answer,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            answer.extend_from_slice(body);
        });
        stream.write_all(&answer)?;
        message.forget(end);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Head {
    Request,
    Response,
}

/// A message as it comes in.
struct Message {
    buffer: Vec<u8>,
    filled: usize,
}

impl Message {
    fn new() -> Self {
        Self {
            buffer: vec![0; MOST],
            filled: 0,
        }
    }

    /// Where the body of the next message is; nothing, if the other side has left.
    fn read(&mut self, stream: &mut TcpStream, head: Head) -> Result<Option<(usize, usize)>> {
        loop {
            if let Some((begin, end)) = body(&self.buffer[..self.filled], head)?
                && end <= self.filled
            {
                return Ok(Some((begin, end)));
            }
            ensure!(self.filled < MOST, "a message is longer than {MOST} bytes");
            let count = stream.read(&mut self.buffer[self.filled..])?;
            if count == 0 {
                return Ok(None);
            }
            self.filled += count;
        }
    }

    /// The message that ends there was dealt with.
    fn forget(&mut self, end: usize) {
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
    }
}

/// Where the body begins, and where it is to end, once the head is there.
fn body(bytes: &[u8], head: Head) -> Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let (status, headers) = match head {
        Head::Request => {
            let mut request = httparse::Request::new(&mut headers);
            (request.parse(bytes)?, request.headers)
        }
        Head::Response => {
            let mut response = httparse::Response::new(&mut headers);
            (response.parse(bytes)?, response.headers)
        }
    };
    let httparse::Status::Complete(begin) = status else {
        return Ok(None);
    };
    let length = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("a message does not tell its length")?.value;
    let length: usize = core::str::from_utf8(length)?.trim().parse()?;
    Ok(Some((begin, begin.saturating_add(length))))
}

/// A server and the connections to it. Killed when it is dropped.
struct Server {
    child: Child,
    clients: Vec<Client>,
    /// What was resident before the first request.
    resident: u64,
}

struct Client {
    stream: TcpStream,
    message: Message,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Server {
    fn start(way: Way, threads: usize) -> Result<Self> {
        let mut child = child::command(&WORK, way.name(), &Asked { threads })?.spawn()?;
        let output = child.stdout.take().context("a server has no output")?;
        let mut server = Self {
            child,
            clients: Vec::new(),
            resident: 0,
        };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let ready: Ready = serde_json::from_str(&line)
            .with_context(|| format!("the server {} did not begin", way.name()))?;
        server.resident = server.memory("VmRSS:")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ready.port));
        for _ in 0..threads {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            server.clients.push(Client {
                stream,
                message: Message::new(),
            });
        }
        Ok(server)
    }

    /// A line of what the system says of the process, in bytes.
    fn memory(&self, name: &str) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("the system does not tell {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// All clients ask for so long: nanoseconds for each request of all together, and the times of each.
    fn turn(&mut self, requests: &[Vec<u8>], slice: Duration) -> Result<(f64, Times)> {
        let begin = Instant::now();
        let times: Result<Vec<Times>> = std::thread::scope(|scope| {
            let asking: Vec<_> = self
                .clients
                .iter_mut()
                .map(|client| scope.spawn(move || client.ask(requests, begin + slice)))
                .collect();
            let joined = asking
                .into_iter()
                .map(|asking| asking.join().map_err(|_| anyhow!("a client panicked"))?);
            joined.collect()
        });
        let elapsed = begin.elapsed();
        let mut all = no_times();
        for times in times? {
            all.add(times)?;
        }
        Ok((elapsed.as_nanos() as f64 / all.len().max(1) as f64, all))
    }
}

impl Client {
    fn ask(&mut self, requests: &[Vec<u8>], end: Instant) -> Result<Times> {
        let mut times = no_times();
        for request in requests.iter().cycle() {
            let begin = Instant::now();
            if begin >= end {
                break;
            }
            self.stream.write_all(request)?;
            let answer = self.message.read(&mut self.stream, Head::Response)?;
            let (_, end) = answer.context("a server has left")?;
            self.message.forget(end);
            note(&mut times, begin);
        }
        Ok(times)
    }
}

pub(super) fn measure(
    context: &mut Context<'_>,
    ways: &[Way],
    threads: usize,
    variant: &str,
) -> Result<()> {
    let requests: Vec<Vec<u8>> = way::texts()
        .into_iter()
        .map(|text| {
            let length = text.len();
            format!(
                "POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{text}"
            )
            .into_bytes()
        })
        .collect();
    let slice = context.slice * 8;
    let mut rounds: Vec<Rounds> = ways.iter().map(|_| Rounds::default()).collect();
    let mut peaks: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for round in 0..context.rounds.min(9) {
        for step in 0..ways.len() {
            let place = (round + step) % ways.len();
            let mut server = Server::start(ways[place], threads)?;
            server.turn(&requests, slice / 4)?;
            let (ns, times) = server.turn(&requests, slice)?;
            rounds[place].add(ns, &times);
            let peak = server.memory("VmHWM:")?.saturating_sub(server.resident);
            peaks[place].push(peak as f64 / 1024.0);
        }
    }
    report(context, ways, variant, &rounds);
    let all: Vec<Measured> = ways
        .iter()
        .zip(peaks)
        .map(|(way, rounds)| Measured {
            contender: way.name(),
            is_ours: way.is_ours(),
            rounds,
        })
        .collect();
    let name = format!("{variant}/peak");
    if context.wants("requests", &name) {
        context.results.add("requests", &name, "KiB", &all);
    }
    Ok(())
}
