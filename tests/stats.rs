//! The figures agree with each other and with the work that a test did, in every format.
#![allow(unsafe_code)] // Frees what it allocates through `theap::raw`.

use prometheus_parse::{Sample, Scrape, Value};
use serde_json::Value as Json;
use std::sync::Mutex;
use theap::{Shown, Stats, ThreadName, raw};

/// Lets the tests of this process run one at a time: they share one heap, and each reads the
/// figures of its own work.
static ALONE: Mutex<()> = Mutex::new(());

fn class(stats: &Stats, size: u64) -> theap::ClassStats {
    // There are no classes before the first allocation.
    let found = stats.classes.iter().find(|c| c.size == size);
    found.copied().unwrap_or_default()
}

fn text(write: impl Fn(&mut String) -> std::fmt::Result) -> String {
    let mut text = String::new();
    write(&mut text).unwrap();
    text
}

fn after_some_work() -> Stats {
    let blocks: Vec<_> = (0..5000).map(|i| raw::alloc(1 + i % 3000)).collect();
    let run = raw::alloc(5 << 20);
    for block in blocks {
        // SAFETY: the block is live, and freed once.
        unsafe { raw::free(block) };
    }
    theap::collect();
    let stats = theap::stats();
    // SAFETY: the run is live, and freed once.
    unsafe { raw::free(run) };
    stats
}

#[test]
fn parts_make_up_the_whole() {
    let _alone = ALONE.lock().unwrap();
    let stats = after_some_work();
    let mapped = stats.mapped();
    assert!(mapped > 5 << 20);
    assert_eq!(stats.active + stats.empty + stats.fresh, mapped);
    assert!(stats.active >= 5 << 20, "the run is in use");
    let by_node: u64 = stats
        .nodes
        .iter()
        .map(|n| n.active + n.empty + n.fresh)
        .sum();
    assert_eq!(by_node, mapped);
    let of_spans: u64 = stats.classes.iter().map(|c| c.span_bytes).sum();
    assert!(of_spans <= stats.active);
    let parts = stats.allocated + stats.cached + stats.free;
    if cfg!(feature = "stats") {
        assert_eq!(parts, stats.active + stats.outside);
        assert!(stats.allocated >= 5 << 20, "the program holds the run");
        assert!(stats.metadata > 0);
        let refilled: u64 = stats.classes.iter().map(|c| c.refilled_blocks).sum();
        let drained: u64 = stats.classes.iter().map(|c| c.drained_blocks).sum();
        assert_eq!(refilled, stats.totals.refilled_blocks);
        assert_eq!(drained, stats.totals.drained_blocks);
    } else {
        assert_eq!((parts, stats.kept), (0, 0), "nobody counts");
    }
}

#[test]
fn a_class_counts_what_happens_to_it() {
    let _alone = ALONE.lock().unwrap();
    const SIZE: usize = 20 << 10;
    let before = class(&theap::stats(), SIZE as u64);
    let blocks: Vec<_> = (0..100).map(|_| raw::alloc(SIZE)).collect();
    let held = class(&theap::stats(), SIZE as u64);
    assert!(held.spans > before.spans && held.span_bytes >= (100 * SIZE) as u64);
    for block in blocks {
        // SAFETY: the block is live, and freed once.
        unsafe { raw::free(block) };
    }
    theap::collect();
    let after = class(&theap::stats(), SIZE as u64);
    assert!(after.spans < held.spans, "wholly free spans are given back");
    if cfg!(feature = "stats") {
        assert!(after.refilled_blocks - before.refilled_blocks >= 100);
        assert_eq!(
            after.drained_blocks - before.drained_blocks,
            after.refilled_blocks - before.refilled_blocks
        );
    }
}

#[test]
fn json_has_every_figure() {
    let _alone = ALONE.lock().unwrap();
    let stats = after_some_work();
    let json: Json = serde_json::from_str(&text(|out| stats.write_json(out))).unwrap();
    for (name, bytes) in stats.sizes() {
        assert_eq!(json[name], bytes, "{name}");
    }
    assert_eq!(json["heaps"], stats.heaps);
    assert_eq!(json["refusals"], stats.refusals);
    for (name, count) in stats.totals.list() {
        assert_eq!(json["counters"][name], count, "{name}");
    }
    assert_eq!(json["nodes"][0]["active"], stats.nodes[0].active);
    for shown in json["classes"].as_array().unwrap() {
        let class = class(&stats, shown["size"].as_u64().unwrap());
        assert_eq!(shown["spans"], class.spans);
        assert_eq!(shown["refilled_blocks"], class.refilled_blocks);
    }
}

#[test]
fn prometheus_reads_the_metrics() {
    let _alone = ALONE.lock().unwrap();
    let stats = after_some_work();
    let written = text(|out| stats.write_prometheus(out));
    let lines = written.lines().map(|line| Ok(line.to_owned()));
    let scrape = Scrape::parse(lines).unwrap();
    let number = |sample: &Sample| match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
        ref other => panic!("{}: {other:?}", sample.metric),
    };
    let sum = |metric: &str, label: Option<(&str, &str)>| -> f64 {
        let samples: Vec<_> = scrape
            .samples
            .iter()
            .filter(|s| s.metric == metric)
            .filter(|s| label.is_none_or(|(name, value)| s.labels.get(name) == Some(value)))
            .collect();
        assert!(!samples.is_empty(), "{metric} {label:?}");
        samples.into_iter().map(number).sum()
    };
    for (name, count) in stats.totals.list() {
        // A figure that can fall is no counter to Prometheus, which takes a fall for a restart.
        let (metric, kind) = match name {
            "spans_kept" => ("theap_spans_kept".to_owned(), "gauge"),
            _ => (format!("theap_{name}_total"), "counter"),
        };
        assert_eq!(sum(&metric, None), count as f64);
        assert!(scrape.docs.contains_key(&metric), "{metric} has no help");
        assert!(written.contains(&format!("# TYPE {metric} {kind}\n")));
    }
    let slots = |state| sum("theap_slot_bytes", Some(("state", state)));
    assert_eq!(slots("active"), stats.active as f64);
    assert_eq!(slots("empty"), stats.empty as f64);
    assert_eq!(slots("fresh"), stats.fresh as f64);
    let small = Some(("pages", "small"));
    assert_eq!(sum("theap_mapped_bytes", small), stats.mapped_small as f64);
    assert_eq!(sum("theap_heaps_total", None), stats.heaps as f64);
    let sizes = stats.sizes().into_iter();
    for (name, bytes) in sizes.filter(|(name, _)| ["allocated", "cached", "free"].contains(name)) {
        assert_eq!(sum(&format!("theap_{name}_bytes"), None), bytes as f64);
        let by_class = format!("theap_class_{name}_bytes");
        let class =
            |class: &theap::ClassStats| class.list().iter().find(|it| it.0 == name).unwrap().1;
        if stats.classes.iter().any(|class| class.spans > 0) {
            let all: u64 = stats.classes.iter().map(class).sum();
            assert_eq!(sum(&by_class, None), all as f64);
        }
    }
    for class in stats.classes.iter().filter(|class| class.spans > 0) {
        let size = class.size.to_string();
        let spans = sum("theap_class_spans", Some(("size", &size)));
        assert_eq!(spans, class.spans as f64);
    }
    let types = written.lines().filter(|l| l.starts_with("# TYPE")).count();
    let mut names: Vec<_> = scrape.samples.iter().map(|s| &s.metric).collect();
    names.sort();
    names.dedup();
    assert_eq!(types, names.len(), "one type for each metric");
}

#[test]
fn heaps_and_resident_memory_are_shown_with_the_figures() {
    let _alone = ALONE.lock().unwrap();
    let stats = after_some_work();
    let block = raw::alloc(100);
    // SAFETY: the block is new and has as many bytes.
    unsafe { block.write_bytes(1, 100) };
    let mut heaps: Vec<_> = theap::heaps().collect();
    assert!(!heaps.is_empty());
    heaps[0].name = ThreadName::new(b"a \"name\"");
    let resident = theap::resident().unwrap();
    assert!(resident.resident > resident.resident_metadata && resident.resident_metadata > 0);
    let shown = Shown {
        stats: &stats,
        heaps: heaps.iter().copied(),
        resident: Some(resident),
    };
    let json: Json = serde_json::from_str(&text(|out| shown.write_json(out))).unwrap();
    assert_eq!(json["allocated"], stats.allocated);
    for (name, bytes) in resident.sizes() {
        assert_eq!(json[name], bytes, "{name}");
    }
    assert_eq!(json["threads"].as_array().unwrap().len(), heaps.len());
    assert_eq!(json["threads"][0]["name"], "a ?name?");
    for (shown, heap) in json["threads"].as_array().unwrap().iter().zip(&heaps) {
        assert_eq!(
            (&shown["heap"], &shown["thread"]),
            (&heap.heap.into(), &heap.thread.into())
        );
        for (name, bytes) in heap.list() {
            assert_eq!(shown[name], bytes, "{name}");
        }
    }
    let written = text(|out| shown.write_prometheus(out));
    let lines = written.lines().map(|line| Ok(line.to_owned()));
    let samples = Scrape::parse(lines).unwrap().samples;
    let of = |metric: &str| {
        samples
            .iter()
            .filter(|s| s.metric == metric)
            .collect::<Vec<_>>()
    };
    for (name, _) in resident.sizes() {
        assert_eq!(of(&format!("theap_{name}_bytes")).len(), 1, "{name}");
    }
    for name in [
        "span_bytes",
        "kept_bytes",
        "cached_bytes",
        "refilled_bytes_total",
    ] {
        let samples = of(&format!("theap_heap_{name}"));
        assert_eq!(samples.len(), heaps.len(), "{name}");
        assert_eq!(samples[0].labels.get("name"), Some("a ?name?"));
    }
    let table = text(|out| shown.write_text(out));
    for row in ["resident ", "allocated / resident ", "allocated / active "] {
        assert!(
            table.lines().any(|line| line.starts_with(row)),
            "{row}: {table}"
        );
    }
    assert!(table.contains("a ?name?"), "{table}");
    // SAFETY: the block is live, and freed once.
    unsafe { raw::free(block) };
}
