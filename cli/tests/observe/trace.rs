//! `theap trace`: events of a running process and of a command.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;

use crate::{Running, program, published_by, text, theap};

/// The time until which the process records: see `Header`.
fn tracing(pid: &str) -> u64 {
    let mut word = [0; 8];
    let file = File::open(published_by(pid)).unwrap();
    file.read_exact_at(&mut word, 64).unwrap();
    u64::from_le_bytes(word)
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn trace(pid: &str, options: &[&str]) -> Child {
    let tracer = theap()
        .args(["trace", pid])
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("nothing is recorded", || tracing(pid) != 0);
    tracer
}

/// The first line that a tracer writes to standard error, as soon as it is there. The rest stays
/// unread.
fn first_line(tracer: &mut Child) -> String {
    let mut said = String::new();
    let mut lines = BufReader::new(tracer.stderr.as_mut().unwrap());
    lines.read_line(&mut said).unwrap();
    said
}

/// The events of a file in the Chrome trace format, each of which is checked.
fn events(path: &Path, pid: &str) -> Vec<Json> {
    let file: Json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut found = Vec::new();
    let mut named = Vec::new();
    let mut last = 0.0;
    for event in file["traceEvents"].as_array().unwrap() {
        assert_eq!(event["pid"].to_string(), pid, "{event}");
        let tid = event["tid"].as_u64().unwrap();
        match event["ph"].as_str().unwrap() {
            "M" => {
                assert_eq!(event["name"], "thread_name");
                assert!(event["args"]["name"].is_string(), "{event}");
                named.push(tid);
            }
            "X" => {
                assert!(named.contains(&tid), "{event}");
                assert!(event["name"].is_string() && event["args"].is_object());
                assert!(event["dur"].as_f64().unwrap() >= 0.0);
                let begin = event["ts"].as_f64().unwrap();
                assert!(begin >= last, "events are in the order of time: {event}");
                last = begin;
                found.push(event.clone());
            }
            phase => panic!("phase {phase}"),
        }
    }
    found
}

fn count(events: &[Json], name: &str) -> usize {
    events.iter().filter(|event| event["name"] == name).count()
}

#[test]
fn a_running_process_is_traced_while_somebody_looks() {
    let mut running = Running::start(&[]);
    assert_eq!(tracing(&running.pid), 0, "nothing is recorded before");
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = file.path().to_str().unwrap();
    let tracer = trace(&running.pid, &["--output", output]);
    running.work();
    thread::sleep(Duration::from_millis(100));
    kill(Pid::from_raw(tracer.id() as i32), Signal::SIGINT).unwrap();
    let ended = tracer.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(tracing(&running.pid), 0, "nor after");
    let events = events(file.path(), &running.pid);
    assert!(count(&events, "refill") > 10 && count(&events, "drain") > 10);
    let acquire = events.iter().find(|event| event["name"] == "acquire");
    let arguments = &acquire.expect("4000 blocks take spans")["args"];
    assert_eq!(arguments["class"], 3072);
    assert!(arguments["address"].as_str().unwrap().starts_with("0x"));
    let stages = [
        "stash", "partial", "empty", "fresh", "prepared", "grow", "remote",
    ];
    assert!(
        stages.contains(&arguments["stage"].as_str().unwrap()),
        "{arguments}"
    );
    let shown = text(&ended.stdout);
    let refills = shown
        .lines()
        .filter(|line| line.contains(" heap ") && line.contains(" refill "))
        .count();
    assert_eq!(refills, count(&events, "refill"), "{shown}");
    let sums = format!("refill     {refills:>10} events");
    assert!(shown.contains(&sums), "{shown}");
    assert!(shown.contains("lost                0 events"), "{shown}");
}

#[test]
fn a_tracer_that_is_killed_leaves_nothing_switched_on() {
    let mut running = Running::start(&[]);
    let mut tracer = trace(&running.pid, &["--quiet"]);
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    assert_ne!(tracing(&running.pid), 0);
    thread::sleep(Duration::from_millis(2100));
    running.work();
    assert_eq!(tracing(&running.pid), 0);
}

#[test]
fn a_command_is_traced_from_its_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut tracer = theap()
        .args(["trace", "--quiet", "--output"])
        .arg(file.path())
        .args(["--", program()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    drop(tracer.stdin.take());
    let ended = tracer.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let pid = text(&ended.stdout);
    let events = events(file.path(), pid.trim());
    assert!(count(&events, "map") >= 1, "the first growth is seen");
    assert!(count(&events, "refill") >= 1);
    let map = events.iter().find(|event| event["name"] == "map").unwrap();
    assert_eq!(map["tid"], 0, "the pool's");
    assert_eq!(map["args"]["bytes"], 2 << 20);
    assert!(text(&ended.stderr).contains("refill "));
}

#[test]
fn a_command_keeps_its_exit_code() {
    let ended = theap()
        .args(["trace", "--quiet", "--", "sh", "-c", "sleep 0.3; exit 7"])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    // The test does not depend on whether there was time to read events.
    let ended = theap()
        .args(["trace", "--quiet", "--", "sh", "-c", "exit 7"])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
}

#[test]
fn a_command_is_followed_into_the_program_that_it_executes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = format!("sleep 0.2; exec {}", program());
    let mut tracer = theap()
        .args(["trace", "--quiet", "--output"])
        .arg(file.path())
        .args(["--", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tracer.stdin.as_mut().unwrap().write_all(b".").unwrap();
    thread::sleep(Duration::from_millis(800));
    let ended = tracer.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let pid = text(&ended.stdout);
    let events = events(file.path(), pid.lines().next().unwrap());
    let of_class = |event: &&Json| event["args"]["class"] == 3072;
    assert!(events.iter().filter(of_class).count() > 10);
}

#[test]
fn a_process_that_executes_another_program_ends_the_trace() {
    let mut running = Running::start(&[]);
    let tracer = trace(&running.pid, &["--quiet"]);
    running.input.as_mut().unwrap().write_all(b"e").unwrap();
    let ended = tracer.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let said = text(&ended.stderr);
    assert!(said.contains("runs another program now"), "{said}");
}

#[test]
fn a_command_that_shows_nothing_is_waited_for_but_not_beyond_the_time() {
    let script = "sleep 1; exit 7";
    let command = ["env", "-u", "LD_PRELOAD", "sh", "-c", script];
    let mut tracer = theap()
        .args(["trace", "--quiet", "--seconds", "0.3", "--"])
        .args(command)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = first_line(&mut tracer);
    assert!(said.contains("does not publish its statistics"), "{said}");
    assert!(tracer.try_wait().unwrap().is_none(), "said in time");
    assert_eq!(tracer.wait().unwrap().code(), Some(7));
}

#[test]
fn a_command_of_another_build_is_told_at_once() {
    let mut tracer = theap()
        .args(["trace", "--quiet", "--", program(), "other"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = first_line(&mut tracer);
    assert!(said.contains("another build of theap"), "{said}");
    assert!(
        tracer.try_wait().unwrap().is_none(),
        "the command still runs"
    );
    drop(tracer.stdin.take());
    assert_eq!(tracer.wait().unwrap().code(), Some(0));
}

#[test]
fn a_time_that_is_none_is_refused() {
    for seconds in ["0", "-1", "nan", "inf", "1e300", "x"] {
        let ended = theap()
            .args(["trace", &format!("--seconds={seconds}"), "--", "true"])
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(2), "{seconds}: {ended:?}");
    }
}
