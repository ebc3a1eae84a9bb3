//! `theap top` shows the figures of a running process as they change.

use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Row, Table};
use theap::Stats;

use super::Observed;

/// Show the heap of a running process as it changes
///
/// The process must have been started with the option `publish` (see theap stats --help). The key q
/// ends the view.
#[derive(Args)]
pub struct Top {
    /// The ID of the process
    #[arg(value_name = "PID")]
    pid: i32,
    /// Milliseconds between two readings
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    interval: u64,
}

/// Two readings of the figures, whose difference tells what happened in between.
struct View {
    title: String,
    now: Stats,
    before: Stats,
    /// Seconds between the two.
    elapsed: f64,
}

impl Top {
    pub fn run(self) -> Result<()> {
        let observed = Observed::open(self.pid)?;
        ensure!(
            stdout().is_terminal(),
            "theap top needs a terminal; theap stats {} prints once",
            self.pid
        );
        let mut terminal = ratatui::try_init()?;
        let shown = self.show(&mut terminal, &observed);
        ratatui::restore();
        shown?;
        if !observed.is_alive() {
            eprintln!("process {} has ended", self.pid);
        } else if observed.is_left_behind() {
            eprintln!("process {} runs another program now", self.pid);
        }
        Ok(())
    }

    fn show(&self, terminal: &mut ratatui::DefaultTerminal, observed: &Observed) -> Result<()> {
        let interval = Duration::from_millis(self.interval);
        let first = observed.stats()?;
        let mut view = View {
            title: format!(" theap top  {}  pid {} ", observed.name(), self.pid),
            now: first,
            before: first,
            elapsed: 0.0,
        };
        let mut read = Instant::now();
        while observed.is_alive() && !observed.is_left_behind() {
            terminal.draw(|frame| view.draw(frame))?;
            let next = read + interval;
            while let left = next.saturating_duration_since(Instant::now())
                && !left.is_zero()
            {
                if event::poll(left)? {
                    match event::read()? {
                        Event::Key(key) if ends(key) => return Ok(()),
                        _ => terminal.draw(|frame| view.draw(frame)).map(drop)?,
                    }
                }
            }
            view.before = std::mem::replace(&mut view.now, observed.stats()?);
            view.elapsed = read.elapsed().as_secs_f64();
            read = Instant::now();
        }
        Ok(())
    }
}

fn ends(key: KeyEvent) -> bool {
    let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

impl View {
    fn draw(&self, frame: &mut Frame) {
        let nodes = self.now.nodes.len() as u16;
        let [memory, below] =
            Layout::vertical([Constraint::Length(nodes + 4), Constraint::Fill(1)])
                .areas(frame.area());
        let [counters, classes] =
            Layout::horizontal([Constraint::Length(46), Constraint::Fill(1)]).areas(below);
        frame.render_widget(self.memory(), memory);
        frame.render_widget(self.counters(), counters);
        frame.render_widget(self.classes(), classes);
    }

    fn memory(&self) -> Table<'_> {
        let names = [
            "small",
            "thp",
            "hugetlb",
            "hugetlb-1g",
            "active",
            "empty",
            "fresh",
        ];
        let sizes = |node: &theap::NodeStats| node.sizes().map(|(_, bytes)| bytes);
        let mut rows: Vec<Row> = self
            .now
            .nodes
            .iter()
            .map(|node| row(format!("node {}", node.node), sizes(node).map(mebibytes)))
            .collect();
        let all = &self.now.sizes()[1..];
        rows.push(
            row(
                "all".to_owned(),
                all.iter().map(|&(_, bytes)| mebibytes(bytes)),
            )
            .bold(),
        );
        Table::new(rows, [Constraint::Length(10); 8])
            .header(row("MiB".to_owned(), names.map(str::to_owned)).dim())
            .block(Block::bordered().title(Line::from(self.title.as_str()).bold()))
    }

    fn counters(&self) -> Table<'_> {
        let rows = self.now.totals.list().zip(self.before.totals.list());
        let rows = rows.map(|((name, now), (_, before))| {
            let rate = self.rate(now, before);
            let style = if now == before {
                Style::new().dim()
            } else {
                Style::new()
            };
            row(name.to_owned(), [now.to_string(), rate]).style(style)
        });
        let heaps = row("heaps".to_owned(), [self.now.heaps.to_string()]);
        let refusals = row("refusals".to_owned(), [self.now.refusals.to_string()]);
        let widths = [16, 15, 11].map(Constraint::Length);
        Table::new(rows.chain([heaps, refusals]), widths)
            .header(
                row(
                    "counter".to_owned(),
                    ["total", "a second"].map(str::to_owned),
                )
                .dim(),
            )
            .block(Block::bordered())
    }

    /// The classes by the bytes of their spans, the largest first.
    fn classes(&self) -> Table<'_> {
        let mut used: Vec<_> = self
            .now
            .classes
            .iter()
            .zip(self.before.classes.iter())
            .collect();
        used.retain(|(class, _)| class.is_used());
        used.sort_by_key(|(class, _)| std::cmp::Reverse(class.span_bytes));
        let rows = used.into_iter().map(|(now, before)| {
            row(
                now.size.to_string(),
                [
                    now.spans.to_string(),
                    mebibytes(now.span_bytes),
                    self.rate(now.refilled_blocks, before.refilled_blocks),
                    self.rate(now.drained_blocks, before.drained_blocks),
                ],
            )
        });
        let names = ["spans", "MiB", "refilled/s", "drained/s"];
        Table::new(rows, [8, 8, 10, 12, 12].map(Constraint::Length))
            .header(row("class".to_owned(), names.map(str::to_owned)).dim())
            .block(Block::bordered())
    }

    fn rate(&self, now: u64, before: u64) -> String {
        if self.elapsed == 0.0 {
            return String::new();
        }
        // The difference is signed, because some of these numbers fall too.
        format!(
            "{:.0}",
            now.wrapping_sub(before) as i64 as f64 / self.elapsed
        )
    }
}

/// A row of a table: a name, and numbers that are aligned to the right.
fn row(name: String, numbers: impl IntoIterator<Item = String>) -> Row<'static> {
    let numbers = numbers
        .into_iter()
        .map(|text| Line::from(text).right_aligned());
    Row::new([Line::from(name)].into_iter().chain(numbers))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}
