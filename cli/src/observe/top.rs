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
use theap::{HeapStats, Resident, Stats};

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
    /// Ask the kernel at each reading how much memory it has for the heap, and on which pages (see
    /// theap stats --help)
    #[arg(long)]
    resident: bool,
}

/// Two readings of the figures, whose difference tells what happened in between.
struct View {
    title: String,
    now: Stats,
    before: Stats,
    heaps: Vec<HeapStats>,
    /// The memory that the kernel has for the heap, if it is asked.
    resident: Option<Resident>,
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
            heaps: observed.heaps()?,
            resident: self.resident.then(|| observed.resident()).transpose()?,
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
            view.heaps = observed.heaps()?;
            // The process may have ended just now.
            view.resident = view.resident.and_then(|_| observed.resident().ok());
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
        let [memory, use_of_it, below] = Layout::vertical([
            Constraint::Length(nodes + 4),
            Constraint::Length(4),
            Constraint::Fill(1),
        ])
        .areas(frame.area());
        let [counters, right] =
            Layout::horizontal([Constraint::Length(46), Constraint::Fill(1)]).areas(below);
        let [classes, heaps] =
            Layout::vertical([Constraint::Fill(2), Constraint::Fill(1)]).areas(right);
        frame.render_widget(self.memory(), memory);
        frame.render_widget(self.use_of_it(), use_of_it);
        frame.render_widget(self.counters(), counters);
        frame.render_widget(self.classes(), classes);
        frame.render_widget(self.heaps(), heaps);
    }

    /// The table says what the memory is used for, and how much of it the program holds: of what is
    /// in use, and of what is resident.
    fn use_of_it(&self) -> Table<'_> {
        let now = &self.now;
        let mut cells = vec![
            ("allocated", mebibytes(now.allocated)),
            ("cached", mebibytes(now.cached)),
            ("free", mebibytes(now.free)),
            ("kept", mebibytes(now.kept)),
            ("outside", mebibytes(now.outside)),
            ("metadata", mebibytes(now.metadata)),
            (
                "of active",
                percent(now.allocated, now.active.wrapping_add(now.outside)),
            ),
        ];
        if let Some(resident) = &self.resident {
            cells.extend([
                ("resident", mebibytes(resident.resident)),
                ("on thp", mebibytes(resident.resident_thp)),
                ("hugetlb", mebibytes(resident.resident_hugetlb)),
                ("of res.", percent(now.allocated, resident.resident)),
            ]);
        }
        let (names, values): (Vec<_>, Vec<_>) = cells.into_iter().unzip();
        Table::new([row("all".to_owned(), values)], [Constraint::Length(9); 12])
            .header(row("MiB".to_owned(), names.into_iter().map(str::to_owned)).dim())
            .block(Block::bordered())
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
        let all = self.now.sizes().into_iter();
        let of_nodes = self.now.nodes.first().map(|node| node.sizes());
        let has = |name| {
            of_nodes
                .iter()
                .flatten()
                .any(|&(of_node, _)| of_node == name)
        };
        let all = all.filter(|&(name, _)| has(name));
        rows.push(row("all".to_owned(), all.map(|(_, bytes)| mebibytes(bytes))).bold());
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
                    mebibytes(now.allocated),
                    mebibytes(now.cached),
                    self.rate(now.refilled_blocks, before.refilled_blocks),
                    self.rate(now.drained_blocks, before.drained_blocks),
                ],
            )
        });
        let names = [
            "spans",
            "MiB",
            "alloc.",
            "cached",
            "refilled/s",
            "drained/s",
        ];
        Table::new(rows, [8, 7, 9, 9, 8, 11, 11].map(Constraint::Length))
            .header(row("class".to_owned(), names.map(str::to_owned)).dim())
            .block(Block::bordered())
    }

    /// The heaps by the bytes of their spans, the largest first.
    fn heaps(&self) -> Table<'_> {
        let mut heaps: Vec<_> = self.heaps.iter().collect();
        heaps.sort_by_key(|heap| std::cmp::Reverse(heap.span_bytes));
        let rows = heaps.into_iter().map(|heap| {
            let numbers = [heap.span_bytes, heap.kept, heap.cached].map(mebibytes);
            let thread = match heap.thread {
                0 => "-".to_owned(),
                thread => thread.to_string(),
            };
            row(heap.name.to_string(), [thread].into_iter().chain(numbers))
        });
        let names = ["thread", "spans MiB", "kept", "cached"];
        Table::new(rows, [16, 10, 10, 9, 9].map(Constraint::Length))
            .header(row("heap of".to_owned(), names.map(str::to_owned)).dim())
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

fn percent(part: u64, of: u64) -> String {
    if of == 0 {
        return String::new();
    }
    format!("{:.1} %", part as f64 * 100.0 / of as f64)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}
