//! Scenarios: a scenario is the part of a test that runs in a process of its own, because it sets
//! limits, reads the process's figures, or ends by a signal.
//!
//! The test binary runs itself again with the one ignored test `scenario`, which asks [`role`] for
//! the name of the scenario. The parent compares what the scenario writes to standard error;
//! libtest writes to standard output.

use std::env;
use std::process::{Command, Output};

const ROLE: &str = "SCENARIO_OF_THEAP_TESTS";

/// The scenario that this process is to run; `None` in the parent.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Runs a scenario with these `THEAP_*` variables and no others.
#[allow(dead_code, reason = "some tests prepare the command")]
pub fn run(scenario: &str, variables: &[(&str, &str)]) -> Output {
    command(scenario, variables).output().unwrap()
}

/// The command that `run` runs.
pub fn command(scenario: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([
        "--exact",
        "scenario",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("THEAP_"))
    {
        command.env_remove(name);
    }
    command.env(ROLE, scenario).envs(variables.iter().copied());
    command
}

/// The output of a process.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a scenario, which must pass without a word.
#[allow(dead_code, reason = "some tests expect messages")]
pub fn passes(scenario: &str, variables: &[(&str, &str)]) {
    let output = run(scenario, variables);
    let said = text(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{scenario} {variables:?}: {said}"
    );
}

/// A figure of this process's memory in bytes, by its name in /proc/self/status.
#[allow(dead_code, reason = "some tests need none")]
pub fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() << 10
}
