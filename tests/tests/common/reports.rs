//! What reads reports: a JSON Schema made of the tables of figures, and a parser of Prometheus' format.

use openmetrics_parser::prometheus::parse_prometheus;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use temporal_slab::snapshot::{ClassStats, ErrorStats, HeapStats, VERSION};
use temporal_slab_report::metric::{self, Kind, Metric};
use temporal_slab_report::{Cause, LabelStats};

/// Where the schema is.
pub const SCHEMA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../core/report/docs/stats.schema.json"
);

/// The properties of an object that is made of figures.
fn properties(visit: impl FnOnce(metric::Sink<'_>)) -> Map<String, Value> {
    let mut found: Map<String, Value> = Map::new();
    visit(&mut |metric: Metric| {
        let number = match metric.value {
            metric::Value::Count(_) => json!({"type": "integer", "minimum": 0}),
            metric::Value::Share(_) => json!({"type": "number", "minimum": 0, "maximum": 1}),
        };
        let grows = if metric.kind == Kind::Counter {
            " It only grows."
        } else {
            ""
        };
        let help = format!("{}.{grows}", metric.help);
        let entry = found
            .entry(metric.name)
            .or_insert_with(|| match metric.part {
                None => {
                    let mut number = number.clone();
                    number["description"] = json!(help);
                    number
                }
                Some((label, _)) => json!({
                    "description": format!("{help} By {label}."),
                    "type": "object",
                    "properties": {},
                    "required": [],
                    "additionalProperties": false,
                }),
            });
        if let Some((_, part)) = metric.part {
            entry["properties"][part] = number;
            let required = entry["required"].as_array_mut().expect("it was just made");
            required.push(json!(part));
        }
    });
    found
}

fn object(what: &str, properties: Map<String, Value>) -> Value {
    let required: Vec<&String> = properties.keys().collect();
    json!({
        "description": what,
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

fn text(what: &str) -> Value {
    json!({"type": "string", "description": what})
}

fn count(what: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": what})
}

fn maybe(what: &str) -> Value {
    json!({"type": ["integer", "null"], "minimum": 0, "description": what})
}

fn fields(fields: &[(&str, Value)]) -> Map<String, Value> {
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

/// The schema of a report, from the tables that reports are written by. The samples only say which figures there
/// are.
pub fn schema(
    heap: &HeapStats,
    class: &ClassStats,
    epoch: &temporal_slab::snapshot::EpochStats,
) -> Value {
    let flag = |what: &str| json!({"type": "boolean", "description": what});
    let mut of_class = fields(&[
        ("size", count("Bytes of an object.")),
        ("handles", flag("Whether its objects have handles.")),
        ("slots_per_slab", count("Slots of a slab.")),
        ("slab_bytes", count("Bytes of a slab.")),
    ]);
    of_class.extend(properties(|to| metric::of_class(class, to)));
    let mut of_epoch = fields(&[
        ("position", count("The position in the ring.")),
        (
            "era",
            count("The era, which no other epoch of the heap has."),
        ),
        ("label", text("What it was called.")),
        ("open", flag("Whether it accepts allocations.")),
        ("current", flag("Whether it is the current one.")),
        (
            "age_ns",
            maybe("How long ago it was opened, or null without a clock."),
        ),
        (
            "resident_before_close",
            maybe("Resident bytes before the last close."),
        ),
        ("resident_after_close", maybe("Resident bytes after it.")),
    ]);
    of_epoch.extend(properties(|to| metric::of_epoch(epoch, to)));
    let label = LabelStats::default();
    let figures = properties(|to| metric::of_label(&label, to));
    let mut of_label = fields(&[("label", text("The label; empty for epochs that have none."))]);
    of_label.extend(figures.clone());
    let finding = object(
        "Something that is wrong.",
        fields(&[
            ("kind", text("Which kind.")),
            ("severity", json!({"enum": ["note", "warning", "error"]})),
            ("bytes", count("The bytes that it is about, or 0.")),
            ("evidence", text("What was seen.")),
            ("action", text("What to do.")),
        ]),
    );
    let times = object(
        "Sampled times of allocations.",
        fields(&[
            ("count", count("How many were timed.")),
            ("sum_ns", count("Their sum.")),
            ("p50_ns", count("The median.")),
            ("p99_ns", count("99 of 100 took no longer.")),
            ("p999_ns", count("999 of 1000 took no longer.")),
            ("max_ns", count("The longest.")),
        ]),
    );
    let causes: Map<String, Value> = Cause::ALL
        .iter()
        .map(|cause| (cause.name().to_owned(), times.clone()))
        .collect();
    let list =
        |what: &str, items: Value| json!({"type": "array", "description": what, "items": items});
    let mut whole = object(
        "A report of a heap.",
        fields(&[
            (
                "schema",
                json!({"const": VERSION, "description": "The version of this format."}),
            ),
            (
                "heap",
                object("The heap.", properties(|to| metric::of_heap(heap, to))),
            ),
            (
                "classes",
                list(
                    "Every class.",
                    object("A class, over all epochs.", of_class),
                ),
            ),
            (
                "epochs",
                list(
                    "Every epoch of which something is there.",
                    object("An epoch.", of_epoch),
                ),
            ),
            (
                "labels",
                list(
                    "The labels that hold the most bytes, in this order.",
                    object("A label.", of_label),
                ),
            ),
            (
                "other_labels",
                object("All other labels together.", figures),
            ),
            (
                "latency",
                json!({
                    "description": "Sampled times by what an allocation had to do, for causes that there were.",
                    "type": "object",
                    "properties": causes,
                    "additionalProperties": false,
                }),
            ),
            ("findings", list("What is wrong, the worst first.", finding)),
        ]),
    );
    whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    whole["title"] = json!("temporal-slab: a report of a heap");
    assert_eq!(ErrorStats::ALLOC.len(), 6);
    whole
}

/// Checks a report against the schema in the repository, and gives it.
pub fn check_json(report: &str) -> Value {
    let report: Value =
        serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {report}"));
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    let schema = compiler
        .compile(SCHEMA, &mut schemas)
        .unwrap_or_else(|error| panic!("{error}"));
    if let Err(error) = schemas.validate(&report, schema) {
        panic!("{error}");
    }
    report
}

/// Parses a report in Prometheus' format, and gives each sample's value by its name and labels.
pub fn check_prometheus(report: &str) -> BTreeMap<String, f64> {
    let parsed = parse_prometheus(report).unwrap_or_else(|error| panic!("{error}: {report}"));
    assert!(
        parsed
            .families
            .values()
            .all(|family| !family.help.is_empty())
    );
    // Samples of one name stand together, which not every parser demands.
    let mut names: Vec<&str> = report
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a name has one type line");
    let samples = report.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            (name.to_owned(), value.parse().expect("a value is a number"))
        })
        .collect()
}
