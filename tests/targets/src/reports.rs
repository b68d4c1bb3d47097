//! Reports of heaps whose labels, figures, times and thresholds are arbitrary, parsed back by parsers that are not ours,
//! and written to where there is too little room.

use crate::{Bytes, Known};
use core::alloc::Layout;
use core::fmt::{self, Write};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use openmetrics_parser::prometheus::parse_prometheus;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab::{Epoch, Heap, Label, Local, Policy, RawHandle};
use temporal_slab_actions::host::HostProvider;
use temporal_slab_report::{Cause, Latency, Report, Thresholds};

/// The most steps of one input.
const STEPS: usize = 64;

temporal_slab_actions::configs! {
    /// More epochs than labels are told apart, and few classes, for what is written of them is always the same.
    pub(crate) struct Many {
        const SIZES: &'static [usize] = &[64, 512, 4096];
        const CHECKED: bool = true;
        const RING: usize = 40;
        const EPOCHS: usize = Self::RING;
    }
}

type TheHeap<'p> = Heap<Many<&'p Clocked>>;

/// Makes a heap as the input says, and writes every report of it.
pub(crate) fn reports(bytes: &mut Bytes<'_>) -> Known<()> {
    let provider = Clocked::default();
    let heap = TheHeap::new(&provider);
    let latency = Latency::new();
    let mut world = World {
        local: heap.local().expect("the host has memory"),
        heap: &heap,
        latency: &latency,
        objects: Vec::new(),
        epochs: vec![heap.current().expect("the host has memory")],
    };
    let thresholds = thresholds(bytes)?;
    let (top, room) = (bytes.arbitrary::<u8>()?, bytes.arbitrary::<u16>()?);
    // Parsing takes longer than all else, so not every input has everything parsed.
    let way = bytes.int_in_range(0..=3usize)?;
    for _ in 0..STEPS {
        if bytes.is_empty() || world.step(bytes).is_err() {
            break;
        }
    }
    let report = Report::new(&heap)
        .labels(usize::from(top))
        .thresholds(thresholds)
        .latency(&latency);
    if way != 1 {
        check_json(&heap, usize::from(top), &whole(|to| report.json(to)));
    }
    if way != 2 {
        let text = whole(|to| report.prometheus(to));
        check_prometheus(&heap, &latency, &text, way == 3);
    }
    if way == 0 {
        check_text(&whole(|to| report.text(to)));
        check_text(&whole(|to| report.findings(to)));
    }
    let writers = [
        Report::json,
        Report::prometheus,
        Report::text,
        Report::findings,
    ];
    let mut short = Short {
        room: usize::from(room),
        is_over: false,
    };
    let written = writers[way](&report, &mut short);
    assert_eq!(
        written.is_err(),
        short.is_over,
        "who was stopped says so, and nobody else"
    );
    world.finish();
    // SAFETY: the only local is gone, and there are no other threads.
    unsafe { heap.walk() }.unwrap_or_else(|violation| panic!("{violation}"));
    Ok(())
}

/// A report that is one by the schema.
pub(crate) fn is_json(report: &str) -> Value {
    let report: Value =
        serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {report}"));
    for part in [
        "schema",
        "heap",
        "classes",
        "epochs",
        "labels",
        "other_labels",
        "latency",
        "findings",
    ] {
        assert!(report.get(part).is_some(), "{part}");
    }
    report
}

/// The labels of a sample, and its value.
type Sample = (BTreeMap<String, String>, f64);

/// A text without carriage returns, which the format allows in a label, and the parser does not. What differs still
/// does.
fn without_returns(text: &str) -> String {
    text.replace('\u{10ffff}', "\u{10ffff}0")
        .replace('\r', "\u{10ffff}1")
}

/// A report in Prometheus' format: its samples by their names, each with its labels and its value. The parser that is not
/// ours reads all of it, or what is not the same in every report.
pub(crate) fn is_prometheus(report: &str, all: bool) -> BTreeMap<String, Vec<Sample>> {
    let report = without_returns(report);
    let varies = |line: &&str| {
        let comment = |line: &&str| {
            ["# HELP ", "# TYPE "]
                .iter()
                .any(|with| line.starts_with(with))
        };
        let name = if comment(line) { &line[7..] } else { line };
        let names = ["temporal_slab_label_epochs", "temporal_slab_alloc_"];
        all || names.iter().any(|of| name.starts_with(of))
    };
    let lines: String = report.split_inclusive('\n').filter(varies).collect();
    let parsed = parse_prometheus(&lines).unwrap_or_else(|error| panic!("{error}: {lines}"));
    assert!(
        parsed
            .families
            .values()
            .all(|family| !family.help.is_empty())
    );
    let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    for line in report.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
        let value: f64 = value.parse().expect("a value is a number");
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let labels = labels_of(labels).unwrap_or_else(|| panic!("{line}"));
        let of_name = samples.entry(name.to_owned()).or_default();
        assert!(
            of_name.iter().all(|(others, _)| *others != labels),
            "twice: {line}"
        );
        of_name.push((labels, value));
    }
    samples
}

/// Reads labels behind the opening brace.
fn labels_of(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while text != "}" {
        let (name, rest) = text.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), rest.chars());
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(match chars.next()? {
                    'n' => '\n',
                    char @ ('\\' | '"') => char,
                    _ => return None,
                }),
                char => value.push(char),
            }
        }
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        text = chars.as_str();
    }
    Some(labels)
}

fn whole(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut text = String::new();
    write(&mut text).expect("a text has room");
    text
}

/// The labels of all epochs that there are.
fn labels(heap: &TheHeap<'_>) -> BTreeSet<String> {
    let epochs = (0..heap.epoch_records()).filter_map(|index| heap.epoch_at(index));
    let labels = epochs.filter_map(|epoch| heap.label(epoch).ok());
    labels.map(|label| label.as_str().to_owned()).collect()
}

fn check_json(heap: &TheHeap<'_>, top: usize, report: &str) {
    let report = is_json(report);
    let texts = |part: &str, field: &str| -> Vec<String> {
        let list = report[part].as_array().expect("it is a list");
        let texts = list
            .iter()
            .map(|entry| entry[field].as_str().expect("it is a text").to_owned());
        texts.collect()
    };
    let all = labels(heap);
    let epochs: BTreeSet<_> = texts("epochs", "label").into_iter().collect();
    assert_eq!(epochs, all);
    let told = texts("labels", "label");
    assert_eq!(
        told.len(),
        all.len().min(top).min(temporal_slab_report::MAX_LABELS)
    );
    assert!(told.iter().all(|label| all.contains(label)));
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len());
    assert_eq!(report["heap"]["live_bytes"], heap.stats().live_bytes);
    let sum = |part: &Value| part["live_bytes"].as_u64().expect("it is a number");
    let of_labels: u64 = report["labels"]
        .as_array()
        .expect("it is a list")
        .iter()
        .map(sum)
        .sum();
    assert_eq!(
        of_labels + sum(&report["other_labels"]),
        heap.stats().live_bytes
    );
    for finding in report["findings"].as_array().expect("it is a list") {
        assert!(
            ["note", "warning", "error"]
                .contains(&finding["severity"].as_str().expect("it is a text"))
        );
    }
}

fn check_prometheus(heap: &TheHeap<'_>, latency: &Latency, report: &str, all: bool) {
    let samples = is_prometheus(report, all);
    let known = labels(heap);
    let of_labels = &samples["temporal_slab_label_live_bytes"];
    let mut sum = 0.0;
    for (labels, value) in of_labels {
        let is_known = known
            .iter()
            .any(|label| without_returns(label) == labels["label"]);
        assert!(is_known || labels["rest"] == "true", "{labels:?}");
        sum += value;
    }
    assert_eq!(sum, heap.stats().live_bytes as f64);
    for cause in Cause::ALL
        .into_iter()
        .filter(|cause| latency.of(*cause).count() > 0)
    {
        let times = latency.of(cause);
        let is_it = |labels: &BTreeMap<String, String>| labels["cause"] == cause.name();
        let buckets = samples["temporal_slab_alloc_seconds_bucket"]
            .iter()
            .filter(|(labels, _)| is_it(labels));
        let buckets: Vec<f64> = buckets.map(|(_, value)| *value).collect();
        assert!(
            buckets.is_sorted(),
            "buckets hold those before them: {buckets:?}"
        );
        assert_eq!(buckets.last(), Some(&(times.count() as f64)));
        assert!(times.sum_ns() >= times.longest_ns(), "a sum does not wrap");
        let quantiles = [0.0, 0.5, 0.99, 1.0].map(|share| times.quantile_ns(share));
        assert!(quantiles.is_sorted(), "{quantiles:?}");
        assert_eq!(quantiles[3], times.longest_ns());
    }
}

/// Text for people: nothing in it but its own lines.
fn check_text(text: &str) {
    assert!(text.ends_with('\n'));
    assert!(
        text.chars().all(|char| char == '\n' || !char.is_control()),
        "{text:?}"
    );
    assert!(text.lines().all(|line| line.len() < 400), "{text}");
}

fn thresholds(bytes: &mut Bytes<'_>) -> Known<Thresholds> {
    if bytes.arbitrary()? {
        return Ok(Thresholds::default());
    }
    Ok(Thresholds {
        younger: u64::from(bytes.arbitrary::<u8>()?),
        least_age_ns: bytes.arbitrary::<u64>()? >> 32,
        age_ns: bytes.arbitrary::<u64>()? >> 16,
        live_share: bytes.arbitrary()?,
        pinned_bytes: u64::from(bytes.arbitrary::<u16>()?),
        contention: bytes.arbitrary()?,
        visits: u64::from(bytes.arbitrary::<u8>()?),
        churn: u64::from(bytes.arbitrary::<u8>()?),
        exhaustion: bytes.arbitrary()?,
    })
}

/// A heap, and what is in it.
struct World<'h, 'p> {
    heap: &'h TheHeap<'p>,
    local: Local<'h, Many<&'p Clocked>>,
    latency: &'h Latency,
    objects: Vec<(NonNull<u8>, Layout)>,
    epochs: Vec<Epoch>,
}

impl World<'_, '_> {
    fn step(&mut self, bytes: &mut Bytes<'_>) -> Known<()> {
        let heap = self.heap;
        match bytes.int_in_range(0..=13u8)? {
            0 | 1 => {
                if let Ok(epoch) = heap.open_epoch() {
                    heap.set_label(epoch, &label(bytes)?)
                        .expect("it was just opened");
                    self.epochs.push(epoch);
                }
            }
            2 => {
                let (epoch, label) = (self.epoch(bytes)?, label(bytes)?);
                if heap.set_label(epoch, &label).is_ok() {
                    let kept = heap.label(epoch).expect("it was just labelled");
                    assert_eq!(kept, Label::new(&label));
                    assert!(label.starts_with(kept.as_str()));
                }
            }
            3..=5 => {
                let (epoch, size) = (
                    self.epoch(bytes)?,
                    usize::from(bytes.arbitrary::<u16>()?) * 2,
                );
                let layout = Layout::from_size_align(size, 8).expect("it is small");
                for _ in 0..bytes.int_in_range(1..=24u8)? {
                    let Ok(object) = self.local.alloc_in(epoch, layout) else {
                        break;
                    };
                    self.objects.push((object, layout));
                }
            }
            6 => {
                let from = usize::from(bytes.arbitrary::<u8>()?) % self.objects.len().max(1);
                let count = usize::from(bytes.arbitrary::<u8>()?)
                    .min(self.objects.len() - from.min(self.objects.len()));
                for (object, layout) in self.objects.drain(from..from + count) {
                    // SAFETY: it is live, and was allocated with this layout.
                    unsafe { self.local.free(object, layout) }.expect("it is live");
                }
            }
            7 => {
                let epoch = self.epoch(bytes)?;
                self.local.leave(epoch);
                let _over = heap.close(epoch);
            }
            8 => {
                let layout = Layout::new::<[u64; 9]>();
                let handle = heap.alloc_raw(layout).expect("the host has memory");
                heap.free_raw(handle).expect("it is live");
                let _refused = heap.free_raw(handle);
                let _refused = heap.free_raw(RawHandle::from_bits(bytes.arbitrary()?));
            }
            9 => {
                heap.set_limit(heap.bytes().taken);
                let _refused = heap.alloc(Layout::new::<[u8; 1 << 20]>());
                heap.set_limit(usize::MAX);
            }
            10 => heap
                .provider()
                .now
                .store(bytes.arbitrary()?, Ordering::Relaxed),
            11 => {
                let cause = Cause::ALL[bytes.int_in_range(0..=Cause::ALL.len() - 1)?];
                self.latency.of(cause).record(bytes.arbitrary()?);
            }
            12 => {
                let epoch = self.epoch(bytes)?;
                if bytes.arbitrary()? {
                    let _over = heap.enter(epoch);
                } else {
                    if bytes.arbitrary()? {
                        heap.exit_and_close(epoch);
                    } else {
                        heap.exit(epoch);
                    }
                }
            }
            _ => {
                let bytes = usize::from(bytes.arbitrary::<u16>()?);
                heap.set_policy([Policy::EAGER, Policy::NEVER, Policy::keeping(bytes)][bytes % 3]);
                self.local.flush();
                heap.reclaim_to(bytes);
            }
        }
        Ok(())
    }

    fn epoch(&self, bytes: &mut Bytes<'_>) -> Known<Epoch> {
        let index = usize::from(bytes.arbitrary::<u8>()?) % self.epochs.len();
        Ok(self.epochs[index])
    }

    fn finish(mut self) {
        for (object, layout) in self.objects.drain(..) {
            // SAFETY: it is live, and was allocated with this layout.
            unsafe { self.local.free(object, layout) }.expect("it is live");
        }
    }
}

/// Any text, not too long.
fn label(bytes: &mut Bytes<'_>) -> Known<String> {
    let len = bytes.int_in_range(0..=40usize)?.min(bytes.len());
    Ok(String::from_utf8_lossy(bytes.bytes(len)?).into_owned())
}

/// A place with too little room. Whoever is told so stops.
struct Short {
    room: usize,
    is_over: bool,
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        assert!(!self.is_over, "who was stopped went on: {text:?}");
        let left = self.room.checked_sub(text.len());
        self.is_over = left.is_none();
        self.room = left.unwrap_or(0);
        left.map(|_| ()).ok_or(fmt::Error)
    }
}

/// The host's memory, and a clock that shows what it is told to.
#[derive(Debug, Default)]
pub(crate) struct Clocked {
    host: HostProvider<65536>,
    now: AtomicU64,
}

// SAFETY: passed on unchanged to a provider that keeps the contract.
unsafe impl PageProvider for Clocked {
    const CHUNK_SIZE: usize = 65536;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        self.host.acquire(size, align)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.host.release(region) }
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.host.decommit(pages) }
    }
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.host.commit(pages) }
    }
    fn capabilities(&self) -> Capabilities {
        self.host.capabilities()
    }
    fn now_ns(&self) -> Option<u64> {
        // Every other is none.
        Some(self.now.load(Ordering::Relaxed)).filter(|now| now % 2 == 0)
    }
    fn resident_bytes(&self) -> Option<u64> {
        Some(self.now.load(Ordering::Relaxed).rotate_left(17)).filter(|bytes| bytes % 2 == 0)
    }
}

/// What the table of figures says of a heap.
pub(crate) type Snapshot = temporal_slab::snapshot::HeapStats;

/// A heap that was never used, for its snapshot.
pub(crate) fn fresh() -> Snapshot {
    Heap::<Many<_>>::new(HostProvider::<65536>::default()).stats()
}
