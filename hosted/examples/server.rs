//! A server on tokio's threads whose requests have an epoch each: a label for each route, and what goes into a cache outside of it.
//!
//! ```sh
//! cargo run --release -p temporal-slab-hosted --features tower,export --example server
//! curl http://127.0.0.1:8080/words/epoch        # and, by route, what lives: http://127.0.0.1:9184/metrics
//! ```

use axum::extract::{MatchedPath, Path, Request, State};
use axum::routing::get;
use axum::{Router, serve};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use temporal_slab::Label;
use temporal_slab_hosted::TemporalSlab;
use temporal_slab_hosted::task::EpochLayer;
use tokio::net::TcpListener;

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

/// How often each word was asked for. It outlives every request.
type Asked = Arc<Mutex<HashMap<String, u64>>>;

/// What the epoch of a request is called: its route, which stands for all requests of it.
fn label(request: &Request) -> Label {
    let route = request.extensions().get::<MatchedPath>();
    Label::new(route.map_or("no route", MatchedPath::as_str))
}

async fn word(State(asked): State<Asked>, Path(word): Path<String>) -> String {
    // Of the request, as all that the framework allocates for it.
    let letters: Vec<String> = word.chars().rev().map(String::from).collect();
    let backwards = letters.concat();
    let Ok(mut asked) = asked.lock() else {
        return backwards;
    };
    // What stays is not of the request: it would keep a block of its epoch.
    let count = TemporalSlab::outside(|| {
        let count = asked.entry(word.clone()).or_default();
        *count += 1;
        *count
    });
    format!("{backwards} ({count})")
}

async fn words(State(asked): State<Asked>) -> String {
    let Ok(asked) = asked.lock() else {
        return String::new();
    };
    let mut lines: Vec<String> = asked
        .iter()
        .map(|(word, count)| format!("{word}: {count}\n"))
        .collect();
    lines.sort_unstable();
    lines.concat()
}

fn app(asked: Asked) -> Router {
    Router::new()
        .route("/words", get(words))
        .route("/words/{word}", get(word))
        // Behind the routing, so that the route is known.
        .route_layer(EpochLayer::new(label))
        .with_state(asked)
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let _exporter = TemporalSlab::export("127.0.0.1:9184")?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("http://127.0.0.1:8080/words/epoch, and figures at http://127.0.0.1:9184");
    serve(listener, app(Asked::default())).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::PoisonError;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// What is counted is the process's, so one test runs at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    /// Sends requests over one connection, one behind the other, and gives the answers' bodies.
    async fn ask(address: std::net::SocketAddr, paths: &[String]) -> Vec<String> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answers = Vec::new();
        for path in paths {
            let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let (mut answer, mut part) = (Vec::new(), [0; 1024]);
            let body = loop {
                let count = stream.read(&mut part).await.unwrap();
                assert!(count > 0, "it hung up");
                answer.extend_from_slice(&part[..count]);
                let text = String::from_utf8_lossy(&answer);
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if length.unwrap().parse() == Ok(body.len()) {
                    break body.to_owned();
                }
            };
            answers.push(body);
        }
        answers
    }

    /// The labels of epochs that there are, open or with something left.
    fn labels() -> HashSet<String> {
        let heap = TemporalSlab::heap();
        let epochs = (0..heap.epoch_records()).filter_map(|index| heap.epoch_at(index));
        let label = |epoch| Some(heap.label(epoch).ok()?.as_str().to_owned());
        epochs.filter_map(label).collect()
    }

    /// Requests of several clients at a time: each is answered, in an epoch that is closed behind it. Catches a route without an
    /// epoch, one that stays open, and a cache whose entries keep epochs.
    #[test]
    fn each_request_has_an_epoch() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        const CLIENTS: usize = 8;
        const REQUESTS: usize = 500;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        let heap = TemporalSlab::heap();
        let asked = Asked::default();
        let (before, after) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, app(asked.clone())).into_future());
            let before = heap.stats().closes.closes;
            let clients = (0..CLIENTS).map(|client| {
                tokio::spawn(async move {
                    let paths: Vec<String> = (0..REQUESTS)
                        .map(|request| format!("/words/word-{client}-{request}"))
                        .collect();
                    ask(address, &paths).await
                })
            });
            for (client, answers) in clients.collect::<Vec<_>>().into_iter().enumerate() {
                let answers = answers.await.unwrap();
                assert_eq!(answers.len(), REQUESTS);
                let reversed: String = format!("word-{client}-0").chars().rev().collect();
                assert_eq!(answers[0], format!("{reversed} (1)"));
            }
            let all = ask(address, &["/words".to_owned()]).await;
            assert_eq!(all[0].lines().count(), CLIENTS * REQUESTS);
            let after = heap.stats().closes.closes;
            server.abort();
            (before, after)
        });
        drop(runtime);
        assert_eq!(after - before, (CLIENTS * REQUESTS + 1) as u64);
        assert_eq!(asked.lock().unwrap().len(), CLIENTS * REQUESTS);
        let left = labels();
        assert!(
            !left.iter().any(|label| label.starts_with("/words")),
            "{left:?}"
        );
    }

    /// While a request waits its epoch is there by the name of its route. Catches a label that is not set, or of another route.
    #[test]
    fn an_epoch_is_called_as_its_route() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let seen = Router::new()
                .route("/seen/{what}", get(async || format!("{:?}", labels())))
                .route_layer(EpochLayer::new(label));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, seen).into_future());
            let answers = ask(address, &["/seen/this".to_owned()]).await;
            assert!(answers[0].contains("/seen/{what}"), "{answers:?}");
            server.abort();
        });
    }
}
