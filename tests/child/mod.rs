//! Scenarios: what a test does in a process of its own, because it sets limits or variables, or ends by a signal.
//!
//! The test binary runs itself again with the one ignored test `scenario`, which asks [`role`] what to do. Whatever the
//! scenario writes to stderr is the parent's to compare; libtest writes to stdout only.

use std::env;
use std::process::{Command, Output};

const ROLE: &str = "THEAP_TESTS_SCENARIO";

/// The scenario that this process is to run; `None` in the parent.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Runs a scenario with no `THEAP_*` variables but these, and gives its outcome.
pub fn run(scenario: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([
        "--exact",
        "scenario",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("THEAP_") {
            command.env_remove(name);
        }
    }
    command.env(ROLE, scenario).envs(variables.iter().copied());
    command.output().unwrap()
}

/// What the process wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
