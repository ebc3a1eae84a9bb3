//! Runs real programs on the system's allocator and on theap in every page mode, and compares what
//! they do.

use super::{Hugepages, command, preloaded, scratch, succeed};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// Hugetlb pages for the largest of them and for the copies that its forks make.
const PAGES: usize = 400;
pub const DEADLINE: u32 = 240;

/// Runs a program on the system's allocator, or on theap in a page mode.
#[derive(Clone, Copy)]
pub struct Runner {
    pub mode: Option<&'static str>,
    /// Whether the mode is hugetlb and there are pages for it.
    pub hugetlb: bool,
}

impl Runner {
    pub fn command(self, program: &str) -> Command {
        match self.mode {
            None => command(DEADLINE, program),
            Some(mode) => {
                let mut command = preloaded(DEADLINE, program);
                // A heap that falls back to other pages writes a message, and these programs'
                // children read each other's standard error.
                command.env("THEAP_PAGES", mode).env("THEAP_MESSAGES", "0");
                command
            }
        }
    }

    pub fn run(self, program: &str, arguments: &[&str], directory: &Path) -> Output {
        succeed(self.command(program).args(arguments).current_dir(directory))
    }

    /// Checks that a running process has the library and, of a pool, hugetlb pages that are its
    /// own, and has no memory of the break, which the system's allocator begins with; and the
    /// reverse on the system's allocator.
    pub fn check(self, process: u32) {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        assert!(!maps.is_empty(), "process {process} has ended");
        let has = |wanted: &dyn Fn(&str) -> bool| maps.lines().any(wanted);
        let library = has(&|line| line.ends_with("/libtheap.so"));
        assert_eq!(library, self.mode.is_some(), "{maps}");
        let system = has(&|line| line.ends_with("[heap]"));
        assert_eq!(system, self.mode.is_none(), "{maps}");
        let pages = has(&|line| line.contains(" rw-p ") && line.contains("/anon_hugepage"));
        assert_eq!(pages, self.hugetlb, "{maps}");
    }
}

/// Whether these programs, names or paths, are there; in CI they must be.
pub fn installed(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&str| std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    let missing: Vec<_> = programs.iter().filter(|p| !found(p)).collect();
    if !missing.is_empty() {
        absent(&format!("{missing:?} not installed"));
    }
    missing.is_empty()
}

/// Says that a test skips as something is missing; fails in CI.
pub fn absent(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what}");
    eprintln!("skipped: {what}");
}

/// Checks that the program loads the library, which then writes a message about a wrong option. A
/// program without functions of these names of its own has the library's.
pub fn is_ours(program: &str, arguments: &[&str]) {
    let output = succeed(
        preloaded(DEADLINE, program)
            .args(arguments)
            .env("THEAP_PAGES", "wrong"),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("theap: THEAP_PAGES=wrong"),
        "{program}: {said}"
    );
}

/// Runs `work` in a directory of its own on the system's allocator and on theap in every page mode,
/// and compares the results.
pub fn same_everywhere(name: &str, work: impl Fn(Runner, &Path) -> Vec<u8> + Sync) {
    let run = &|mode: Option<&'static str>, hugetlb| {
        let directory = scratch(&format!("{name}-{}", mode.unwrap_or("system")));
        work(Runner { mode, hugetlb }, &directory)
    };
    // These run side by side, as some of the work is mostly waiting.
    let (expected, small, thp) = thread::scope(|scope| {
        let [expected, small, thp] =
            [None, Some("small"), Some("thp")].map(|mode| scope.spawn(move || run(mode, false)));
        let done = |work: thread::ScopedJoinHandle<'_, Vec<u8>>| work.join().unwrap();
        (done(expected), done(small), done(thp))
    });
    let pages = Hugepages::take(PAGES);
    let hugetlb = run(Some("hugetlb"), pages.is_some());
    assert!(!expected.is_empty());
    for (mode, found) in [("small", small), ("thp", thp), ("hugetlb", hugetlb)] {
        assert!(
            found == expected,
            "{name} on {mode} pages\n{}\nbut on the system's allocator\n{}",
            excerpt(&found),
            excerpt(&expected)
        );
    }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// A port of the loopback interface at which nobody listens.
pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// A server that ends with the test, also if the test panics.
pub struct Server(Child);

impl Server {
    /// Starts a server whose output goes to `log` in the directory, and waits until it is ready.
    pub fn start(command: &mut Command, directory: &Path, ready: impl Fn() -> bool) -> Server {
        let log = directory.join("log");
        let output = fs::File::create(&log).unwrap();
        let errors = output.try_clone().unwrap();
        command.current_dir(directory).stdout(output).stderr(errors);
        let mut server = Server(command.spawn().unwrap());
        for _ in 0..1500 {
            if ready() {
                return server;
            }
            let ended = server.0.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended: {}", read(&log));
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{command:?} does not answer: {}", read(&log));
    }

    /// Waits for the server's end, which must be a good one and comes within half a minute.
    pub fn ends(mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "the server ended with {status}");
                return;
            }
            assert!(start.elapsed().as_secs() < 30, "the server does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // `timeout`, which started the server, passes the signal on, and then kills.
            signal("TERM", self.0.id());
            let _ = self.0.wait();
        }
    }
}

pub fn signal(name: &str, process: u32) {
    let process = process.to_string();
    let _ = Command::new("kill").args(["-s", name, &process]).output();
}

/// Whether somebody listens at this port of the loopback interface.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The process whose number is the file's first line, once a server has written it.
pub fn process_in(file: &Path) -> u32 {
    for _ in 0..500 {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some((number, _)) = text.split_once('\n') {
            return number.trim().parse().unwrap();
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("no process in {}", file.display());
}
