//! Scenarios: what a test does in a process of its own, because it sets limits, asks for the
//! process's figures, or ends by a signal.
//!
//! The test binary runs itself again with the one ignored test `scenario`, which asks [`role`] what
//! to do. What a scenario writes to stderr is the parent's to compare; libtest writes to stdout.

use std::env;
use std::process::{Command, Output};

const ROLE: &str = "SCENARIO_OF_THEAP_TESTS";

/// The scenario that this process is to run; `None` in the parent.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Runs a scenario with no `THEAP_*` variables but these.
#[allow(dead_code, reason = "some tests prepare the command")]
pub fn run(scenario: &str, variables: &[(&str, &str)]) -> Output {
    command(scenario, variables).output().unwrap()
}

/// The scenario that `run` runs.
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
