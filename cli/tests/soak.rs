//! `theap soak`: a short one, with a seed.

use assert_cmd::Command;

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
