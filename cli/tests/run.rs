//! `theap run` as a person or a script runs it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs `theap run` with these arguments and a cache of its own.
fn run(cache: &TempDir, arguments: &[&str]) -> Output {
    command(cache).args(arguments).output().unwrap()
}

fn command(cache: &TempDir) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("theap"));
    command
        .arg("run")
        .env("XDG_CACHE_HOME", cache.path())
        .env_remove("LD_PRELOAD")
        .env_remove("THEAP_PAGES")
        .env_remove("THEAP_RESERVE")
        .env_remove("THEAP_RESERVE_PID");
    command
}

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn file(path: PathBuf, content: &[u8], mode: u32) -> PathBuf {
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Fails unless the command is refused with this code and one line that says this.
fn refused(output: &Output, code: i32, complaint: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(complaint), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(text(&output.stdout), "");
}

/// A program without a loader: it does nothing but exit with 0.
fn static_program(directory: &Path) -> PathBuf {
    let program = directory.join("static");
    let source = directory.join("static.s");
    fs::write(
        &source,
        ".globl _start\n_start: mov $60, %eax\nxor %edi, %edi\nsyscall\n",
    )
    .unwrap();
    let built = Command::new("cc")
        .args(["-static", "-nostdlib", "-o"])
        .args([&program, &source])
        .status();
    assert!(built.unwrap().success());
    program
}

#[test]
fn the_command_runs_in_place_on_the_library_of_the_program() {
    let cache = scratch();
    let script = "echo $$; grep -o '/.*libtheap-.*so' /proc/self/maps | sort -u";
    let child = command(&cache)
        .args(["--", "sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stdout);
    let (first, library) = said.split_once('\n').unwrap();
    assert_eq!(first, pid.to_string());
    let library = Path::new(library.trim());
    assert!(library.starts_with(cache.path()), "{said}");
    let placed = fs::metadata(library).unwrap().ino();
    assert!(run(&cache, &["--", "/bin/true"]).status.success());
    assert_eq!(
        fs::metadata(library).unwrap().ino(),
        placed,
        "written again"
    );
}

#[test]
fn input_output_exit_code_and_signals_are_the_commands() {
    let cache = scratch();
    let script = "read line; echo got $line; echo said >&2; exit 3";
    let output = assert_cmd::Command::from_std(command(&cache))
        .args(["--", "sh", "-c", script])
        .write_stdin("a line\n")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "got a line\n");
    assert_eq!(text(&output.stderr), "said\n");
    let output = run(&cache, &["--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.signal(), Some(15));
}

/// The library's path in a command that `theap run` runs with this home.
fn library_with_home(home: &Path, temporary: &TempDir) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_theap"))
        .args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"])
        .env("HOME", home)
        .env("TMPDIR", temporary.path())
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_home_that_cannot_be_named_is_passed_over() {
    let temporary = scratch();
    let home = temporary.path().join("my home");
    fs::create_dir(&home).unwrap();
    let library = library_with_home(&home, &temporary);
    let other = temporary.path().join("theap-");
    assert!(library.starts_with(other.to_str().unwrap()), "{library}");
}

#[test]
fn nothing_is_made_in_another_users_home() {
    let temporary = scratch();
    let home = temporary.path().join("home");
    fs::create_dir(&home).unwrap();
    if chown(&home, Some(1), None).is_err() {
        eprintln!("skipped: only root can make another user's home");
        return;
    }
    let library = library_with_home(&home, &temporary);
    let other = temporary.path().join("theap-");
    assert!(library.starts_with(other.to_str().unwrap()), "{library}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}

#[test]
fn a_signal_that_the_caller_ignores_stays_ignored() {
    let cache = scratch();
    let told = |trap: &str| {
        let script = format!("{trap}; exec \"$0\" run -- grep SigIgn: /proc/self/status");
        let output = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_theap")])
            .env("XDG_CACHE_HOME", cache.path())
            .output();
        let said = text(&output.unwrap().stdout);
        u64::from_str_radix(said.trim_start_matches("SigIgn:").trim(), 16).unwrap()
    };
    let pipe = 1 << (nix::sys::signal::SIGPIPE as u64 - 1);
    assert_eq!(told("trap '' PIPE") & pipe, pipe);
    assert_eq!(told("trap - PIPE") & pipe, 0);
}

#[test]
fn options_are_passed_and_told() {
    let cache = scratch();
    let asked = [
        "--verbose",
        "--pages",
        "small",
        "--reserve",
        "4MiB",
        "--retain",
        "1M",
        "--set",
        "THEAP_MAGAZINE=8K",
        "--",
        "sh",
        "-c",
        "echo $0 $THEAP_PAGES $THEAP_RESERVE $THEAP_RETAIN $THEAP_MAGAZINE",
    ];
    let output = run(&cache, &asked);
    assert_eq!(
        text(&output.stdout),
        "sh small 4194304 1048576 8192\n",
        "{}",
        text(&output.stderr)
    );
    let said = text(&output.stderr);
    assert!(
        said.contains("THEAP_PAGES=small\n") && said.contains("LD_PRELOAD=/"),
        "{said}"
    );
}

#[test]
fn what_is_preloaded_already_stays_behind_the_library() {
    let cache = scratch();
    let output = command(&cache)
        .env("LD_PRELOAD", "libm.so.6")
        .args(["--", "sh", "-c", "echo $LD_PRELOAD"])
        .output()
        .unwrap();
    let value = text(&output.stdout);
    let (library, rest) = value.trim_end().split_once(':').unwrap();
    assert!(library.contains("libtheap"), "{value}");
    assert_eq!(rest, "libm.so.6");
}

#[test]
fn a_library_can_be_named() {
    let cache = scratch();
    let output = run(&cache, &["--library", "/no-such.so", "--", "true"]);
    refused(&output, 1, "cannot use /no-such.so");

    run(&cache, &["--", "true"]);
    let embedded = fs::read_dir(cache.path().join("theap")).unwrap().next();
    let other = cache.path().join("other.so");
    fs::copy(embedded.unwrap().unwrap().path(), &other).unwrap();
    let asked = ["--library", other.to_str().unwrap(), "--", "sh", "-c"];
    let output = run(&cache, &[&asked[..], &["echo $LD_PRELOAD"]].concat());
    assert_eq!(text(&output.stdout).trim_end(), other.to_str().unwrap());
}

#[test]
fn what_cannot_run_has_a_shells_exit_code() {
    let cache = scratch();
    let plain = file(cache.path().join("plain"), b"#!/bin/sh\n", 0o644);
    let lost = file(cache.path().join("lost"), b"#!/no/such\n", 0o755);
    let named = |name: &str| run(&cache, &["--", name]);
    refused(&named("no-such-command"), 127, "command not found");
    refused(&named("/no/such"), 127, "command not found");
    refused(&named(""), 127, "command not found");
    refused(&named("/tmp"), 126, "is a directory");
    refused(
        &named(plain.to_str().unwrap()),
        126,
        "plain: permission denied",
    );
    refused(&named(lost.to_str().unwrap()), 126, "interpreter");

    let searched = |path: &Path| {
        command(&cache)
            .env("PATH", path)
            .args(["--", "plain"])
            .output()
            .unwrap()
    };
    refused(&searched(cache.path()), 126, "permission denied");
    refused(&searched(Path::new("/no/such")), 127, "command not found");
}

#[test]
fn a_program_that_no_library_reaches_is_refused() {
    let cache = scratch();
    let fixed = static_program(cache.path());
    let name = fixed.to_str().unwrap();
    refused(&run(&cache, &["--", name]), 125, "statically linked");
    let script = file(
        cache.path().join("script"),
        format!("#!{name}\n").as_bytes(),
        0o755,
    );
    refused(
        &run(&cache, &["--", script.to_str().unwrap()]),
        125,
        "statically linked",
    );

    let mut foreign = fs::read(&fixed).unwrap();
    foreign[18] = 0xb7; // e_machine: aarch64
    let foreign = file(cache.path().join("foreign"), &foreign, 0o755);
    refused(
        &run(&cache, &["--", foreign.to_str().unwrap()]),
        125,
        "no x86_64",
    );
}

#[test]
fn a_set_uid_program_is_refused() {
    let cache = scratch();
    let program = cache.path().join("other");
    fs::copy("/bin/true", &program).unwrap();
    if chown(&program, Some(1), None).is_err() {
        eprintln!("skipped: only root can make another user's program");
        return;
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    refused(
        &run(&cache, &["--", program.to_str().unwrap()]),
        125,
        "ignores LD_PRELOAD",
    );
}

#[test]
fn a_script_without_an_interpreter_is_the_shells() {
    let cache = scratch();
    let script = file(cache.path().join("script"), b"echo ran\n", 0o755);
    let output = run(&cache, &["--", script.to_str().unwrap()]);
    assert_eq!(text(&output.stdout), "ran\n", "{}", text(&output.stderr));
}

#[test]
fn wrong_options_are_wrong_usage() {
    let cache = scratch();
    for (option, complaint) in [
        ("--set=no-such=1", "theap has no option no-such"),
        ("--set=numa=remote", "numa takes local, interleave, off"),
        ("--set=pages", "give NAME=VALUE"),
        ("--retain=much", "much is no unit"),
        ("--pages=enormous", "possible values"),
    ] {
        let output = run(&cache, &[option, "--", "true"]);
        assert_eq!(output.status.code(), Some(2), "{option}");
        assert!(text(&output.stderr).contains(complaint), "{option}");
    }
    assert_eq!(run(&cache, &["--"]).status.code(), Some(2));
}

/// The MiB that a shell has under `theap run` with these options, that a program has which the
/// shell starts, and that one has which the shell becomes.
fn resident(options: &[&str]) -> [usize; 3] {
    let cache = scratch();
    let script = "grep VmRSS: /proc/$$/status; grep VmRSS: /proc/self/status; exec grep VmRSS: /proc/self/status";
    let command = ["--", "sh", "-c", script];
    let output = run(&cache, &[&["--pages", "small"], options, &command].concat());
    let said = text(&output.stdout);
    assert_eq!(text(&output.stderr), "", "{said}");
    let figures = said.lines().map(|line| {
        let kib = line.split_whitespace().nth(1).unwrap();
        kib.parse::<usize>().unwrap() >> 10
    });
    figures.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn what_is_reserved_is_the_commands_alone() {
    let [shell, child, successor] = resident(&["--reserve", "64MiB"]);
    assert!(shell >= 64 && successor >= 64, "{shell} {successor}");
    assert!(child < 40, "{child}");
    let [_, child, _] = resident(&["--set", "reserve=64M"]);
    assert!(child < 40, "{child}");
    let all = resident(&["--reserve", "64MiB", "--inherit"]);
    assert!(all.iter().all(|&mib| mib >= 64), "{all:?}");
    let none = resident(&["--inherit"]);
    assert!(none.iter().all(|&mib| mib < 40), "{none:?}");
}

#[test]
fn a_variable_of_the_users_is_everybodys() {
    let cache = scratch();
    let script = "grep VmRSS: /proc/self/status; true";
    let resident = |number: Option<&str>| {
        let mut command = command(&cache);
        command.args(["--pages", "small", "--", "sh", "-c", script]);
        command.env("THEAP_RESERVE", "64M");
        number.map(|number| command.env("THEAP_RESERVE_PID", number));
        let said = text(&command.output().unwrap().stdout);
        let kib = said.split_whitespace().nth(1).unwrap();
        kib.parse::<usize>().unwrap() >> 10
    };
    assert!(resident(None) >= 64);
    assert!(resident(Some("1")) < 40, "it is another process's");
}
