//! An HTML page with charts and tables. A [`Page`] has everything in it, loads nothing, and is
//! well-formed XML.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::{Column, charts, figures, shown_unit};
use crate::error::{Error, cannot};
use crate::rounds::Record;

const STYLE: &str = include_str!("page.css");

/// A page in the making.
pub struct Page {
    /// The sides of its figures, in the order of their colours.
    pub sides: Vec<Column>,
    text: String,
}

impl Page {
    /// A page with this title and heading.
    pub fn new(title: &str, heading: &str, sides: Vec<Column>) -> Self {
        let mut page = Self {
            sides,
            text: String::new(),
        };
        let (title, heading) = (escaped(title), escaped(heading));
        page.add(format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width\"/><title>{title}</title>\n\
             <style>{STYLE}</style></head><body>\n<h1>{heading}</h1>\n"
        ));
        page
    }

    /// Adds text that is XML already.
    pub fn add(&mut self, text: std::fmt::Arguments) {
        self.text.write_fmt(text).expect("a String takes all");
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.add(format_args!("<p>{}</p>\n", escaped(text)));
    }

    /// Adds the key of the sides' colours, which stays in sight.
    pub fn key(&mut self) {
        self.add(format_args!("<p class=\"key\">"));
        for side in 0..self.sides.len() {
            let (color, title) = (charts::color(side), escaped(&self.sides[side].title()));
            self.add(format_args!(
                "<span><i style=\"background:{color}\"></i>{title}</span>"
            ));
        }
        self.add(format_args!("</p>\n"));
    }

    /// Adds a chart; `svg` and the caption `below` are XML already.
    pub fn figure(&mut self, id: &str, title: &str, svg: &str, below: &str) {
        let (id, title) = (escaped(id), escaped(title));
        self.add(format_args!(
            "<figure id=\"{id}\"><h3>{title}</h3>\n{svg}<figcaption>{below}</figcaption></figure>\n"
        ));
    }

    /// Adds a table whose first line is its heading.
    pub fn table(&mut self, lines: impl IntoIterator<Item = Vec<String>>) {
        self.add(format_args!("<div class=\"wide\"><table>"));
        for (nth, cells) in lines.into_iter().enumerate() {
            let tag = if nth == 0 { "th" } else { "td" };
            self.add(format_args!("<tr>"));
            for cell in cells {
                self.add(format_args!("<{tag}>{}</{tag}>", escaped(&cell)));
            }
            self.add(format_args!("</tr>\n"));
        }
        self.add(format_args!("</table></div>\n"));
    }

    /// Adds a table of every figure of the records, with a line for each metric.
    pub fn figures(&mut self, records: &[Record]) {
        self.add(format_args!(
            "<h2>All figures</h2>\n<p>Median [smallest–largest] of the rounds.</p>\n\
             <div class=\"wide\"><table class=\"all\"><tr><th>workload</th><th>metric</th><th>unit</th>"
        ));
        for side in 0..self.sides.len() {
            let title = escaped(&self.sides[side].title());
            self.add(format_args!("<th>{title}</th>"));
        }
        self.add(format_args!("</tr>\n"));
        let rows = records.iter();
        let rows = rows.map(|record| (&*record.workload, &*record.metric, &*record.unit));
        for (workload, metric, unit) in distinct(rows) {
            let shown = shown_unit(unit);
            self.add(format_args!(
                "<tr><td>{}</td><td>{metric}</td><td>{}</td>",
                escaped(workload),
                shown.0
            ));
            for side in 0..self.sides.len() {
                let record = self.record(records, workload, side, metric);
                let cell = record.map_or("–".into(), |record| figures(record, shown.1));
                self.add(format_args!("<td>{cell}</td>"));
            }
            self.add(format_args!("</tr>\n"));
        }
        self.add(format_args!("</table></div>\n"));
    }

    /// The side's record of a metric, if there is one.
    pub fn record<'a>(
        &self,
        records: &'a [Record],
        workload: &str,
        side: usize,
        metric: &str,
    ) -> Option<&'a Record> {
        records.iter().find(|record| {
            record.workload == workload
                && record.metric == metric
                && Column::of(record) == self.sides[side]
        })
    }

    /// Adds the facts about the host that the figures were measured on, under a paragraph `about`.
    pub fn facts<S: AsRef<str>, F: AsRef<str>>(
        &mut self,
        about: &str,
        facts: impl IntoIterator<Item = (S, F)>,
    ) {
        self.add(format_args!("<h2>The host</h2>\n"));
        self.paragraph(about);
        self.add(format_args!("<table class=\"facts\">\n"));
        for (subject, found) in facts {
            let (subject, found) = (escaped(subject.as_ref()), escaped(found.as_ref()));
            self.add(format_args!(
                "<tr><td>{subject}</td><td>{found}</td></tr>\n"
            ));
        }
        self.add(format_args!("</table>\n"));
    }

    /// Ends the page and writes it.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write(mut self, path: &Path) -> Result<(), Error> {
        self.add(format_args!("</body></html>\n"));
        fs::write(path, self.text).map_err(|error| cannot("write", path, &error))
    }
}

/// The items without repetitions, in order of first appearance.
pub fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

/// The text with XML's special characters escaped.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
