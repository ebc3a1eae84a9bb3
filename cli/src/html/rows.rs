//! `theap bench --html`: a chart a category, then all figures and the host.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use theap_bench::row::Category;
use theap_bench::suite::{Suite, Summary};
use theap_bench::{Column, Record};

use super::charts::{self, Bars};
use super::{Page, STYLE};
use crate::findings::Findings;

/// Writes the page.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write(suite: &Suite, records: &[Record], path: &Path) -> Result<()> {
    let findings = Findings {
        records: records.to_vec(),
        latencies: Vec::new(),
        memory: Vec::new(),
    };
    let sides = suite.sides.iter().map(|side| Column {
        allocator: side.name.clone(),
        pages: "default".into(),
    });
    let mut page = Page {
        findings: &findings,
        sides: sides.collect(),
        text: String::new(),
    };
    page.add(format_args!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width\"/><title>theap bench</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>theap and its peers on this host, row by row</h1>\n"
    ));
    page.paragraph(
        "Each run had a process of its own; allocators took turns in every round. A bar is the median as a multiple of \
         the best peer's: longer is better, but on rows about memory, where it is bytes.",
    );
    page.key();
    page.add(format_args!("<div class=\"charts\">\n"));
    let summary = Summary::new(&suite.sides, records);
    for category in Category::ALL {
        let bars = bars(&page, &summary, category);
        if !bars.is_empty() {
            let svg = charts::bars(&bars, false, &|ratio| format!("{ratio:.2}"))?;
            page.figure(&format!("{category:?}"), category.title(), &svg, "");
        }
    }
    page.add(format_args!("</div>\n"));
    page.figures();
    page.host()?;
    page.add(format_args!("</body></html>\n"));
    fs::write(path, page.text).with_context(|| format!("cannot write {}", path.display()))
}

/// The medians of a category's rows as multiples of the best peer's.
fn bars(page: &Page, summary: &Summary, category: Category) -> Vec<Bars> {
    let verdicts = summary.verdicts().into_iter();
    let bars = verdicts
        .filter(|verdict| verdict.category == category)
        .filter_map(|verdict| {
            let best = verdict.median / verdict.to_best?;
            let metric = theap_bench::row::row(verdict.row)?.metric();
            let value = |side| Some((side, page.record(verdict.row, side, metric)?.median / best));
            Some(Bars {
                name: verdict.row.into(),
                values: (0..page.sides.len()).filter_map(value).collect(),
            })
        });
    bars.collect()
}
