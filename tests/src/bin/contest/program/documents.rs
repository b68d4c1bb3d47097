//! A document of about a megabyte: parsed, changed, written.

use super::Pattern;
use super::objects::Rng;
use std::hint::black_box;

pub(super) const PATTERNS: [Pattern; 1] = [("documents", documents)];

fn documents() -> usize {
    const TIMES: usize = 20;
    let mut rng = Rng(11);
    let records: Vec<String> = (0..6000)
        .map(|id| {
            let tags: Vec<String> = (0..rng.below(6)).map(|n| format!("\"tag-{n}\"")).collect();
            format!(
                "{{\"id\":{id},\"name\":\"record number {id}\",\"score\":{},\"tags\":[{}],\"more\":{{\"a\":\"{}\",\"b\":null,\"c\":[{},{}]}}}}",
                rng.below(1_000_000) as f64 / 64.0,
                tags.join(","),
                "x".repeat(rng.below(40)),
                rng.below(1000),
                rng.below(1000),
            )
        })
        .collect();
    let text = format!("[{}]", records.join(","));
    drop(records);
    for _ in 0..TIMES {
        let mut document: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let list = document.as_array_mut().expect("a list");
        list.retain(|record| record["id"].as_u64().is_some_and(|id| id % 3 != 0));
        for record in list.iter_mut() {
            record["seen"] = serde_json::json!({ "by": "the contest", "times": [1, 2, 3] });
        }
        black_box(serde_json::to_string(&document).expect("it can be written"));
    }
    TIMES * text.len() / 1000
}
