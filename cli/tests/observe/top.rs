//! `theap top` under a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};

use crate::{Running, text, theap};

const ROWS: NonZero<u16> = NonZero::new(40).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(120).unwrap();

/// The screen as a person would see it.
struct Screen {
    child: Child,
    keys: File,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Screen {
    fn top(pid: &str, options: &[&str]) -> Self {
        let size = Winsize {
            ws_row: ROWS.get(),
            ws_col: COLUMNS.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let slave = || Stdio::from(slave.try_clone().unwrap());
        let child = theap()
            .args(["top", pid])
            .args(options)
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        Self {
            child,
            keys: master.try_clone().unwrap().into(),
            output: reader(master),
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }
    }

    /// Reads the output until the screen shows the text.
    fn wait(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !wanted(&self.screen.screen().contents()) {
            let shown = self.screen.screen().contents();
            assert!(Instant::now() < deadline, "{what} is not shown:\n{shown}");
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
                self.screen.process(&bytes);
            }
        }
    }

    /// Waits for the end, and returns the screen as it is then.
    fn end(mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                break;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(20));
        }
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
            self.screen.process(&bytes);
        }
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen(), "the terminal is left as it was");
        assert!(!screen.hide_cursor());
        screen.contents()
    }
}

fn reader(terminal: OwnedFd) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut terminal = File::from(terminal);
        let mut buffer = [0; 4096];
        while let Ok(n) = terminal.read(&mut buffer)
            && n > 0
        {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The number after a name at the start of a line's cell.
fn number(screen: &str, name: &str) -> Option<u64> {
    let at = screen.find(name)? + name.len();
    screen[at..].split_whitespace().next()?.parse().ok()
}

#[test]
fn it_shows_the_figures_and_q_ends_it() {
    let mut running = Running::start(&[]);
    let mut screen = Screen::top(&running.pid, &["--interval", "100"]);
    screen.wait("the title", |screen| {
        screen.contains("theap top  observed-progra")
    });
    screen.wait("the node", |screen| screen.contains("node 0"));
    let refills = |screen: &str| number(screen, "refills ");
    screen.wait("a counter", |screen| refills(screen).is_some());
    let before = refills(&screen.screen.screen().contents()).unwrap();
    running.work();
    screen.wait("what was done", |screen| refills(screen) > Some(before));
    screen.wait("the class", |screen| screen.contains("3072"));
    screen.wait("the thread", |screen| {
        screen.contains("observed-progra") && screen.contains(&running.pid)
    });
    let shown = screen.screen.screen().contents();
    assert!(
        shown.contains("allocated") && !shown.contains("resident"),
        "{shown}"
    );
    screen.keys.write_all(b"q").unwrap();
    screen.end();
}

#[test]
fn it_asks_the_kernel_on_request() {
    let running = Running::start(&[]);
    let mut screen = Screen::top(&running.pid, &["--interval", "100", "--resident"]);
    screen.wait("what is resident", |screen| {
        screen.contains("resident") && screen.contains("of res.")
    });
    screen.keys.write_all(b"q").unwrap();
    screen.end();
}

#[test]
fn it_ends_with_the_process() {
    let running = Running::start(&[]);
    let mut screen = Screen::top(&running.pid, &["--interval", "100"]);
    screen.wait("the title", |screen| screen.contains("theap top"));
    drop(running);
    screen.end();
}

#[test]
fn it_ends_with_the_program() {
    let mut running = Running::start(&[]);
    let mut screen = Screen::top(&running.pid, &["--interval", "100"]);
    screen.wait("the title", |screen| screen.contains("theap top"));
    running.input.as_mut().unwrap().write_all(b"e").unwrap();
    let shown = screen.end();
    assert!(shown.contains("runs another program now"), "{shown}");
}

#[test]
fn it_needs_a_terminal() {
    let running = Running::start(&[]);
    let output = theap().args(["top", &running.pid]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("needs a terminal; theap stats"), "{said}");
}
