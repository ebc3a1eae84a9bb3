//! `theap soak`, for a short time and with a given seed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use assert_cmd::Command;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    assert!(stdout.contains(" operations, "), "{stdout}");
    assert!(
        output.stderr.is_empty(),
        "no progress on a pipe: {output:?}"
    );
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
