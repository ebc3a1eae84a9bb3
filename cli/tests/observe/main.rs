//! `theap stats`, `theap top` and `theap trace` on running processes. They show the figures of a
//! process, and refuse one that shows nothing, has ended, or lies.

mod liar;
mod top;
mod trace;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value as Json;

fn theap() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("theap"));
    command.env_remove("LD_PRELOAD").env_remove("THEAP_PUBLISH");
    command
}

/// The compiled `program.c`.
fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/observe/program.c");
        let program = format!("{}/observed-program", env!("CARGO_TARGET_TMPDIR"));
        let built = Command::new("cc")
            .args(["-O1", "-fno-builtin", "-o", &program, source])
            .status();
        assert!(built.unwrap().success());
        program
    })
}

/// A run of the program, which ends when its input ends.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The process that is observed: the one that was started, or its child.
    pid: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(&["--set", "publish=1"], arguments)
    }

    fn start_with(options: &[&str], arguments: &[&str]) -> Self {
        let mut child = theap()
            .arg("run")
            .args(options)
            .args(["--pages=small", "--", program()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self {
            input: child.stdin.take(),
            child,
            output,
            pid: String::new(),
        };
        running.pid = running.line();
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the program has ended: {line:?}");
        line.trim_end().to_owned()
    }

    /// Has the program work, and waits until it has done so.
    fn work(&mut self) {
        self.input.as_mut().unwrap().write_all(b".").unwrap();
        assert_eq!(self.line(), "done");
    }

    fn stats(&self, format: &str) -> String {
        let output = stats(&self.pid, format);
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.stats("json")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stats(pid: &str, format: &str) -> Output {
    theap()
        .args(["stats", pid, "--format", format])
        .output()
        .unwrap()
}

/// The path of the file that the process publishes.
fn published_by(pid: &str) -> PathBuf {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    descriptors
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            let target = fs::read_link(path).unwrap();
            target.to_string_lossy().contains("memfd:theap-stats")
        })
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Fails unless the command refuses the process with one line that has this text.
fn refused(pid: &str, complaint: &str) {
    let output = stats(pid, "text");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(complaint), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(text(&output.stdout), "");
}

fn class_3k(stats: &Json) -> &Json {
    let classes = stats["classes"].as_array().unwrap();
    classes.iter().find(|class| class["size"] == 3072).unwrap()
}

#[test]
fn a_running_process_shows_what_it_does() {
    let mut running = Running::start(&[]);
    let before = running.json();
    assert!(before["active"].as_u64().unwrap() >= 64 * (100 << 10));
    running.work();
    let after = running.json();
    assert!(class_3k(&after)["refilled_blocks"].as_u64().unwrap() >= 4000);
    assert!(after["counters"]["refills"].as_u64() > before["counters"]["refills"].as_u64());
    // The thread's, and those of the nurseries of the CPUs that it ran on.
    assert!((2..=9).contains(&after["heaps"].as_u64().unwrap()));
    let shown = running.stats("text");
    assert!(shown.contains("\nrefills "), "{shown}");
    let metrics = running.stats("prometheus");
    let refills = format!("theap_refills_total {}\n", after["counters"]["refills"]);
    assert!(metrics.contains(&refills), "{metrics}");
}

#[test]
fn memory_is_shown_by_its_use_and_by_thread() {
    let mut running = Running::start(&[]);
    running.work();
    let output = theap()
        .args(["stats", &running.pid, "--resident", "--format", "json"])
        .output()
        .unwrap();
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    let figure = |name: &str| json[name].as_u64().unwrap();
    // The program keeps 64 blocks of 100 KiB, which it does not touch.
    let held = 64 * (100 << 10);
    assert!(
        (held..held + (1 << 20)).contains(&figure("allocated")),
        "{json}"
    );
    assert!(
        figure("cached") > 0 && figure("kept") <= figure("free"),
        "{json}"
    );
    let parts = figure("allocated") + figure("cached") + figure("free");
    assert_eq!(parts, figure("active") + figure("outside"), "{json}");
    // Small pages: the blocks that were worked with are resident, and no hugepage is.
    let resident = figure("resident");
    assert!(resident > 100 << 10 && resident < 64 << 20, "{json}");
    assert!(
        figure("resident_metadata") > 0 && figure("resident_thp") == 0,
        "{json}"
    );
    let threads = json["threads"].as_array().unwrap();
    let main = threads
        .iter()
        .find(|it| it["thread"] == running.pid.parse::<u64>().unwrap());
    let main = main.unwrap_or_else(|| panic!("{json}"));
    assert_eq!(main["name"], "observed-progra");
    assert!(main["span_bytes"].as_u64().unwrap() > 0, "{main}");
    let plain = running.json();
    assert!(
        plain["resident"].is_null(),
        "the kernel is asked on request alone"
    );
    let shown = running.stats("text");
    assert!(shown.contains("\nallocated / active ") && shown.contains("observed-progra"));
    let metrics = running.stats("prometheus");
    let label = format!("thread=\"{}\",name=\"observed-progra\"", running.pid);
    assert!(metrics.contains(&label), "{metrics}");
}

#[test]
fn a_process_that_closes_all_descriptors_goes_on() {
    let mut running = Running::start(&["close"]);
    running.work();
    if nix::unistd::geteuid().is_root() {
        assert!(running.json()["counters"]["refills"].as_u64().unwrap() > 0);
    } else {
        refused(&running.pid, "try as root");
    }
}

#[test]
fn a_forked_child_counts_for_itself() {
    let mut running = Running::start(&["fork"]);
    let parent = running.child.id().to_string();
    let refills = |pid: &str| -> (u64, u64) {
        let json: Json = serde_json::from_slice(&stats(pid, "json").stdout).unwrap();
        (
            json["counters"]["refills"].as_u64().unwrap(),
            json["active"].as_u64().unwrap(),
        )
    };
    let before = refills(&parent);
    // Parent and child share the input, and a line reaches either of them: the test asks until the
    // child has worked.
    let worked = refills(&running.pid);
    assert_eq!(worked.1, before.1, "the child has what the parent had");
    let input = running.input.as_mut().unwrap();
    for _ in 0..200 {
        input.write_all(b".").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        if refills(&running.pid).0 > worked.0 {
            break;
        }
    }
    assert!(
        refills(&running.pid).0 > worked.0,
        "the child's count rises"
    );
    assert_eq!(refills(&parent), before, "the parent's does not");
}

#[test]
fn who_shows_nothing_is_told_apart() {
    let silent = Running::start_with(&[], &[]);
    refused(&silent.pid, "does not publish its statistics");
    refused(&std::process::id().to_string(), "THEAP_PUBLISH=1");
    refused("2147483646", "there is no process 2147483646");
    let pid = silent.pid.clone();
    drop(silent);
    refused(&pid, &format!("there is no process {pid}"));
}

#[test]
fn a_limit_on_file_sizes_is_respected() {
    let limited = format!("ulimit -f 100; exec {} once", program());
    let output = theap()
        .args(["run", "--set", "publish=1", "--", "sh", "-c", &limited])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains(
        "theap: cannot publish statistics (errno 27); theap stats, top and trace cannot look"
    ));
}
