//! Reports: every encoding is what it says it is, by parsers that are not ours, and all say the same.

mod common;

use common::reports::{SCHEMA, check_json, check_prometheus, schema};
use core::alloc::Layout;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::VecDeque;
use temporal_slab::Heap;
use temporal_slab::config::Standard;
use temporal_slab_hosted::MmapProvider;
use temporal_slab_report::{Labels, Latency, Report, Sampler};

type TestHeap = Heap<Standard<MmapProvider>>;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// A heap in which something of everything happened; its labels are as awkward as labels can be.
fn used() -> TestHeap {
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    for (round, label) in [
        "plain",
        "other",
        "\"quoted\" \\ and\nbroken",
        "tab\tand \u{1}",
        "Ünïcode 🦀",
        "",
    ]
    .iter()
    .enumerate()
    {
        let epoch = heap.open_epoch().unwrap();
        heap.set_label(epoch, label).unwrap();
        for n in 0..100 * (round + 1) {
            let object = local.alloc_in(epoch, layout(16 + n % 900)).unwrap();
            if n % 3 != 0 {
                // SAFETY: it was just allocated.
                unsafe { local.free(object, layout(16 + n % 900)) }.unwrap();
            }
        }
        let _kept = heap.alloc_in(epoch, layout(100_000)).unwrap();
        let handle = heap.alloc_raw(layout(64)).unwrap();
        heap.free_raw(handle).unwrap();
        let _refused = heap.free_raw(handle);
        if round % 2 == 0 {
            heap.close(epoch).unwrap();
            let _closed = local.alloc_in(epoch, layout(64));
        }
    }
    heap.set_limit(heap.bytes().taken);
    let _refused = heap.alloc(layout(64 << 20));
    drop(local);
    heap
}

fn text_of(write: impl FnOnce(&mut String) -> core::fmt::Result) -> String {
    let mut text = String::new();
    write(&mut text).unwrap();
    text
}

/// The schema is that of the tables; `UPDATE=1` writes it. Catches a figure that is added and not documented.
#[test]
fn the_schema_is_of_the_tables() {
    let heap = used();
    let epoch = heap.epoch_stats(heap.epoch_at(0).unwrap()).unwrap();
    let made = schema(&heap.stats(), &heap.class_stats(0).unwrap(), &epoch);
    let made = serde_json::to_string_pretty(&made).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(SCHEMA, &made).unwrap();
    }
    let kept = std::fs::read_to_string(SCHEMA).unwrap_or_default();
    assert!(
        kept == made,
        "{SCHEMA} is not of these tables: run this test with UPDATE=1"
    );
}

/// JSON that the schema allows, for a heap that was never used, too. Catches a missing comma, an unescaped
/// label, a figure that is not a number.
#[test]
fn json_is_of_the_schema() {
    let heap = used();
    let report = check_json(&text_of(|to| Report::new(&heap).json(to)));
    assert_eq!(report["heap"]["live_bytes"], heap.stats().live_bytes);
    let labels: Vec<&str> = report["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["label"].as_str().unwrap())
        .collect();
    for label in [
        "root",
        "plain",
        "\"quoted\" \\ and\nbroken",
        "tab\tand \u{1}",
        "Ünïcode 🦀",
        "",
    ] {
        assert!(labels.contains(&label), "{label:?} in {labels:?}");
    }
    assert!(report["heap"]["handles_refused"]["stale"].as_u64() == Some(6));
    assert!(report["heap"]["allocs_refused"]["limit"].as_u64() == Some(1));
    let fresh = TestHeap::new(MmapProvider::new());
    let report = check_json(&text_of(|to| Report::new(&fresh).json(to)));
    assert_eq!(
        report["heap"]["committed_bytes"], 0,
        "a report takes nothing"
    );
}

/// Prometheus' format by a parser of it, and the same values as in JSON. Catches names that repeat, samples that
/// are torn apart, and labels that break out of their quotes.
#[test]
fn prometheus_can_be_parsed() {
    let heap = used();
    let samples = check_prometheus(&text_of(|to| Report::new(&heap).prometheus(to)));
    let json = check_json(&text_of(|to| Report::new(&heap).json(to)));
    let same = |name: &str, value: &serde_json::Value| {
        let name = format!("temporal_slab_{name}");
        assert_eq!(samples.get(&name).copied(), value.as_f64(), "{name}");
    };
    same("live_bytes", &json["heap"]["live_bytes"]);
    same(
        "resident_part_bytes{part=\"pinned\"}",
        &json["heap"]["resident_part_bytes"]["pinned"],
    );
    same(
        "allocs_refused_total{kind=\"epoch_closed\"}",
        &json["heap"]["allocs_refused"]["epoch_closed"],
    );
    let used = json["classes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|class| class["slabs_made"].as_u64() > Some(0));
    for class in used {
        let labels = format!(
            "class=\"{}\",handles=\"{}\"",
            class["size"], class["handles"]
        );
        same(
            &format!("class_slots_live{{{labels}}}"),
            &class["slots_live"],
        );
        same(
            &format!("class_slow_path_total{{{labels},cause=\"depot\"}}"),
            &class["slow_path"]["depot"],
        );
        same(
            &format!("class_fragmentation{{{labels}}}"),
            &class["fragmentation"],
        );
    }
    same(
        "label_bytes{label=\"plain\",rest=\"false\"}",
        &json["labels"]
            .as_array()
            .unwrap()
            .iter()
            .find(|l| l["label"] == "plain")
            .unwrap()["bytes"],
    );
    let fresh = TestHeap::new(MmapProvider::new());
    check_prometheus(&text_of(|to| Report::new(&fresh).prometheus(to)));
}

/// The labels that hold the most, as many as were asked for, and the sum of the rest. Catches a rest that is lost
/// or counted twice, and more series than were asked for.
#[test]
fn labels_are_ranked_and_the_rest_is_one() {
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    for n in 0..60usize {
        let epoch = heap.open_epoch().unwrap();
        heap.set_label(epoch, &format!("phase {}", n % 20)).unwrap();
        for _ in 0..=(n % 20) {
            let _kept = local.alloc_in(epoch, layout(30_000)).unwrap();
        }
    }
    for top in [0, 1, 3, 20, 21, 100] {
        let report = check_json(&text_of(|to| Report::new(&heap).labels(top).json(to)));
        let labels = report["labels"].as_array().unwrap();
        // Twenty of ours and the root's, which holds the least.
        assert_eq!(labels.len(), top.min(21));
        for (rank, label) in labels.iter().take(20).enumerate() {
            assert_eq!(label["label"], format!("phase {}", 19 - rank));
            assert_eq!(label["epochs"], 3);
            assert_eq!(label["live_objects"], 3 * (20 - rank));
        }
        let sum = |field: &str| -> u64 {
            let listed: u64 = labels
                .iter()
                .map(|label| label[field].as_u64().unwrap())
                .sum();
            listed + report["other_labels"][field].as_u64().unwrap()
        };
        assert_eq!(sum("live_objects"), 3 * 210);
        assert_eq!(sum("epochs"), 61);
        assert_eq!(sum("bytes"), heap.stats().live_bytes);
    }
}

/// Epochs of a few labels come and go while reports are written: no series is there twice. Catches a label that is
/// ranked again when the epoch is gone that it was ranked by.
#[test]
fn labels_that_come_and_go_are_told_once() {
    let heap = TestHeap::new(MmapProvider::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (heap, stop) = (&heap, &stop);
        scope.spawn(move || {
            let mut open = VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                let epoch = heap.open_epoch().unwrap();
                heap.set_label(epoch, "request").unwrap();
                open.push_back((epoch, heap.alloc_in(epoch, layout(64)).unwrap()));
                if open.len() > 6
                    && let Some((epoch, object)) = open.pop_front()
                {
                    // SAFETY: it is live and freed once.
                    unsafe { heap.free(object, layout(64)) }.unwrap();
                    heap.close(epoch).unwrap();
                }
            }
        });
        for _ in 0..1500 {
            let labels = Labels::read(heap, 10);
            let mut names: Vec<_> = labels
                .top()
                .iter()
                .map(|label| label.label.as_str())
                .collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "{names:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Sampled times are under the causes that there were, in all encodings.
#[test]
fn sampled_times_are_told() {
    static LATENCY: Latency = Latency::new();
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let mut sampler = Sampler::new(&LATENCY, NonZeroU32::new(1).unwrap());
    for _ in 0..100_000 {
        let _kept = sampler.alloc(&mut local, layout(64)).unwrap();
    }
    let _large = sampler.alloc(&mut local, layout(1 << 20)).unwrap();
    heap.set_limit(0);
    let _refused = sampler.alloc(&mut local, layout(1 << 22));
    let report = Report::new(&heap).latency(&LATENCY);
    let json = check_json(&text_of(|to| report.json(to)));
    let count = |cause: &str| json["latency"][cause]["count"].as_u64().unwrap_or(0);
    assert_eq!(
        count("new_slab") + count("new_chunk"),
        100_000u64.div_ceil(64)
    );
    assert!(count("new_chunk") >= 2);
    assert_eq!((count("large"), count("refused")), (1, 1));
    let all: u64 = ["fast", "stash", "depot", "new_slab", "new_chunk"]
        .map(count)
        .iter()
        .sum();
    assert_eq!(all, 100_000);
    let samples = check_prometheus(&text_of(|to| report.prometheus(to)));
    let fast = samples["temporal_slab_alloc_seconds_count{cause=\"fast\"}"];
    assert_eq!(fast, count("fast") as f64);
    // One in eight is one in eight.
    static SOME: Latency = Latency::new();
    heap.set_limit(usize::MAX);
    let mut sampler = Sampler::new(&SOME, NonZeroU32::new(8).unwrap());
    for _ in 0..8000 {
        let _kept = sampler.alloc(&mut local, layout(64)).unwrap();
    }
    let counted: u64 = temporal_slab_report::Cause::ALL
        .map(|cause| SOME.of(cause).count())
        .iter()
        .sum();
    assert_eq!(counted, 1000);
}

/// The text for people fits a terminal and names what a person would look for.
#[test]
fn text_is_for_people() {
    let heap = used();
    let text = text_of(|to| Report::new(&heap).text(to));
    for word in [
        "resident",
        "pinned",
        "slow paths",
        "classes",
        "epochs",
        "labels",
        "plain",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let widest = text
        .lines()
        .filter(|line| !line.starts_with("    "))
        .map(|line| line.chars().count())
        .max();
    println!("{text}");
    assert!(widest < Some(160));
}
