//! Programs made of well-known crates that allocate heavily. Their output is a text that depends on every
//! value that they computed; it was recorded under the system's allocator.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hashbrown::HashMap;
use petgraph::algo::{dijkstra, kosaraju_scc, toposort};
use petgraph::graph::{Graph, NodeIndex};
use serde_json::{Map, Value, json};

use crate::common::Rng;

fn digest(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn document(rng: &mut Rng, depth: usize) -> Value {
    match rng.below(if depth == 0 { 4 } else { 7 }) {
        0 => json!(rng.next() as i32),
        1 => json!((rng.next() % 1_000_000) as f64 / 64.0),
        2 => Value::Bool(rng.below(2) == 0),
        3 => {
            let length = rng.below(60);
            let text: String = (0..length)
                .map(|_| char::from_u32(32 + rng.below(900) as u32).unwrap_or('?'))
                .collect();
            Value::String(text)
        }
        4 => Value::Array(
            (0..rng.below(8))
                .map(|_| document(rng, depth - 1))
                .collect(),
        ),
        _ => {
            let fields = (0..rng.below(8)).map(|n| {
                let name = format!("field {n} {}", rng.below(1000));
                (name, document(rng, depth - 1))
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

/// Round trips of generated documents.
fn documents() -> String {
    let mut rng = Rng(1);
    let mut out = String::new();
    for _ in 0..60 {
        let document = document(&mut rng, 7);
        let text = serde_json::to_string(&document).unwrap();
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, document);
        let pretty = serde_json::to_string_pretty(&back).unwrap();
        let again: Value = serde_json::from_slice(pretty.as_bytes()).unwrap();
        assert_eq!(again, document);
        write!(out, "{:x} ", digest(pretty.as_bytes())).unwrap();
    }
    out
}

/// Maps that grow, shrink and are rebuilt.
fn maps() -> String {
    let mut rng = Rng(2);
    let mut maps: Vec<HashMap<String, Vec<u64>>> = vec![HashMap::new(); 8];
    for step in 0..60_000u64 {
        let map = &mut maps[rng.below(8)];
        let key = format!("key {}", rng.below(3000));
        match rng.below(4) {
            0 => drop(map.remove(&key)),
            1 if step % 997 == 0 => {
                map.retain(|_, list| list.len() > 1);
                map.shrink_to_fit();
            }
            _ => map.entry(key).or_default().push(step),
        }
    }
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, list) in maps.iter().flatten() {
        *all.entry(key).or_default() ^= list.iter().fold(list.len() as u64, |a, b| a * 31 + b);
    }
    let text: String = all.iter().map(|(k, v)| format!("{k}={v};")).collect();
    format!("{} {:x}", all.len(), digest(text.as_bytes()))
}

/// Buffers that are split, shared between threads and frozen.
fn buffers() -> String {
    let mut rng = Rng(3);
    let mut parts: Vec<Bytes> = Vec::new();
    let mut buffer = BytesMut::new();
    for step in 0..20_000u32 {
        buffer.put_u32(step);
        buffer.put_slice(&vec![step as u8; rng.below(200)]);
        if rng.below(5) == 0 {
            let at = rng.below(buffer.len() + 1);
            parts.push(buffer.split_to(at).freeze());
        }
        if parts.len() > 300 {
            let slice = parts.swap_remove(rng.below(300));
            let middle = slice.len() / 2;
            parts.push(slice.slice(middle..));
            parts.truncate(200);
        }
    }
    let threads: Vec<_> = parts
        .chunks(50)
        .map(|chunk| {
            let chunk: Vec<Bytes> = chunk.to_vec();
            std::thread::spawn(move || {
                let sums = chunk.into_iter().map(|mut part| {
                    let mut sum = 0u64;
                    while part.has_remaining() {
                        sum = sum * 131 + u64::from(part.get_u8());
                        sum %= 1 << 40;
                    }
                    sum
                });
                sums.fold(0u64, |a, b| a.wrapping_mul(7) ^ b)
            })
        })
        .collect();
    let sums: Vec<u64> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    format!("{sums:x?}")
}

/// Graphs that are built, taken apart and searched.
fn graphs() -> String {
    let mut rng = Rng(4);
    let mut out = String::new();
    for _ in 0..20 {
        let mut graph: Graph<String, u32> = Graph::new();
        let nodes: Vec<NodeIndex> = (0..400)
            .map(|n| graph.add_node(format!("node {n}")))
            .collect();
        for _ in 0..2000 {
            let (a, b) = (rng.below(400), rng.below(400));
            graph.add_edge(nodes[a], nodes[b], rng.below(100) as u32);
        }
        for _ in 0..100 {
            let index = NodeIndex::new(rng.below(graph.node_count()));
            graph.remove_node(index);
        }
        let components = kosaraju_scc(&graph);
        let mut far: Vec<(String, u32)> =
            dijkstra(&graph, NodeIndex::new(0), None, |e| *e.weight())
                .into_iter()
                .map(|(node, cost)| (graph[node].clone(), cost))
                .collect();
        far.sort();
        let condensed = petgraph::algo::condensation(graph, true);
        let order = toposort(&condensed, None).unwrap();
        let text = format!("{far:?} {:?}", order.len());
        write!(out, "{} {:x} ", components.len(), digest(text.as_bytes())).unwrap();
    }
    out
}

/// The digests of all programs' outputs.
pub(crate) fn run() -> [(&'static str, u64); 4] {
    let run = |name, program: fn() -> String| (name, digest(program().as_bytes()));
    [
        run("documents", documents),
        run("maps", maps),
        run("buffers", buffers),
        run("graphs", graphs),
    ]
}

/// What the programs put out under the system's allocator.
pub(crate) const RECORDED: [(&str, u64); 4] = [
    ("documents", 0x5f3c_0d31_3a49_48d8),
    ("maps", 0xc2cf_9462_5df8_cfaf),
    ("buffers", 0xd6a5_56af_2891_2957),
    ("graphs", 0xac14_d1ab_8854_3a7f),
];
