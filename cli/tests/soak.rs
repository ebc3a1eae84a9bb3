//! `theap soak`, for a short time and with a given seed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use assert_cmd::Command;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

#[test]
fn a_short_soak_says_its_seed_and_what_it_did() {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("theap"))
        .args([
            "soak",
            "--minutes",
            "0.03",
            "--seed",
            "7",
            "--processes",
            "1",
        ])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout.starts_with("seed 7\n"), "{stdout}");
    for figure in [
        " under a limit, ",
        " of them resting, ",
        " operations, ",
        " refusals, ",
    ] {
        assert!(stdout.contains(figure), "{stdout}");
    }
    assert!(
        output.stderr.is_empty(),
        "no progress on a pipe: {output:?}"
    );
}

/// What the life with this number reports, under a limit.
fn life(number: u32, limit: &str) -> Value {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("theap"))
        .args(["life", &number.to_string()])
        .env("THEAP_LIMIT", limit)
        .env("THEAP_PAGES", "small")
        .env("THEAP_MESSAGES", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The lives go on without what the heap refuses, and all of them end with every byte checked.
#[test]
fn lives_under_a_limit_go_on_without_what_is_refused() {
    let mut resting = 0;
    for number in 1..4 {
        let (free, limited) = (life(number, "0"), life(number, "24M"));
        assert_eq!(
            (&free["limited"], &free["refusals"]),
            (&0.into(), &0.into())
        );
        assert_eq!(limited["limited"], 1);
        assert!(limited["refusals"].as_u64().unwrap() > 0, "{limited}");
        let mapped = limited["peak_mapped"].as_u64().unwrap();
        assert!(mapped <= 24 << 20, "{limited}");
        assert!(limited["threads"].as_u64() > limited["resting"].as_u64());
        resting += limited["resting"].as_u64().unwrap();
    }
    assert!(resting > 0, "some threads rest");
}

/// The children of a process.
fn children(pid: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .map(|child| child.parse().unwrap())
        .collect()
}

#[test]
fn a_life_that_goes_wrong_ends_the_others() {
    let mut soak = std::process::Command::new(env!("CARGO_BIN_EXE_theap"))
        .args(["soak", "--minutes", "2", "--processes", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seed = String::new();
    let mut output = BufReader::new(soak.stdout.take().unwrap());
    output.read_line(&mut seed).unwrap();
    let mut lives = Vec::new();
    while lives.len() < 3 {
        assert_eq!(soak.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(1));
        lives = children(soak.id());
    }
    // The test takes the last life, because the soak waits for the first.
    kill(Pid::from_raw(lives[2]), Signal::SIGKILL).unwrap();
    let mut said = String::new();
    soak.stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(soak.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("a life went wrong (signal: 9"), "{said}");
    assert!(said.contains(" theap life "), "{said}");
    for life in lives {
        assert!(kill(Pid::from_raw(life), None).is_err(), "{life} lives on");
    }
}

#[test]
fn a_life_that_takes_too_long_is_killed() {
    let mut life = std::process::Command::new(env!("CARGO_BIN_EXE_theap"))
        .args(["life", "--limit", "1", "1"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The test stops the life, as soon as it has begun, for longer than the life may take.
    let tasks = format!("/proc/{}/task", life.id());
    while fs::read_dir(&tasks).unwrap().count() < 2 {
        assert_eq!(life.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = Pid::from_raw(life.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    kill(pid, Signal::SIGCONT).unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&life.wait().unwrap());
    assert_eq!(signal, Some(Signal::SIGALRM as i32));
}

/// A reader that has gone is an error, not a panic.
#[test]
fn a_closed_pipe_is_told() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_theap"))
        .args(["soak", "--minutes", "0.01"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: "), "{said}");
}

#[test]
fn nonsense_is_refused() {
    for minutes in ["0", "-1", "x", "inf"] {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("theap"));
        command
            .args(["soak", "--minutes", minutes])
            .assert()
            .code(2);
    }
}
