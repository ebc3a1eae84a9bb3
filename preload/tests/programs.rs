//! Real programs, unmodified, on small, transparent and hugetlb pages: each must do what it does on
//! the C library's allocator. Without one of the programs its test says that it skips, and fails in
//! CI; `tests/install.sh` installs all programs.
#![allow(missing_docs)]

mod library;

use library::programs::{
    DEADLINE, Runner, Server, absent, free_port, installed, is_ours, same_everywhere,
};
use library::{command, succeed, text};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

/// The number of tests that ran, and the result.
fn verdict(output: &Output) -> Vec<u8> {
    let said = String::from_utf8_lossy(&output.stderr);
    let ran = said.lines().find_map(|line| line.strip_prefix("Ran "));
    let ran = ran
        .and_then(|line| line.split(" in ").next())
        .unwrap_or("no tests");
    format!("{ran}, {}", said.lines().last().unwrap_or_default()).into_bytes()
}

/// Runs tests of Python's own that are hard on an allocator: containers, threads, forks and
/// mappings.
fn python(module: &str) {
    const PYTHON: &str = "/usr/bin/python3"; // the distribution's, with its test suite
    if !installed(&["python3"]) || !Path::new(PYTHON).exists() {
        return;
    }
    let suite =
        succeed(command(DEADLINE, PYTHON).args(["-c", "import test; print(test.__path__[0])"]));
    let suite = PathBuf::from(String::from_utf8_lossy(&suite.stdout).trim());
    if !suite.join("test_json").exists() {
        absent(&format!("no {}/test_json", suite.display()));
        return;
    }
    is_ours(PYTHON, &["-c", "pass"]);
    same_everywhere(module, |runner, directory| {
        let output = succeed(
            runner
                .command(PYTHON)
                .args(["-m", "unittest", module])
                .env("PYTHONMALLOC", "malloc")
                .env("TMPDIR", directory)
                .current_dir(directory),
        );
        verdict(&output)
    });
}

#[test]
fn python_json() {
    python("test.test_json");
}

#[test]
fn python_dict() {
    python("test.test_dict");
}

#[test]
fn python_mmap() {
    python("test.test_mmap");
}

#[test]
fn python_threading() {
    python("test.test_threading");
}

#[test]
fn python_subprocess() {
    python("test.test_subprocess");
}

/// Starts redis. It listens at `socket` in the directory, and on loopback at the port for the
/// benchmark.
fn start_redis(runner: Runner, directory: &Path, port: &str) -> Server {
    let socket = directory.join("socket");
    let mut server = runner.command("redis-server");
    server
        .args(["--bind", "127.0.0.1", "--port", port, "--save", ""])
        .args(["--enable-debug-command", "yes", "--io-threads", "2"])
        .arg("--unixsocket")
        .arg(&socket);
    Server::start(&mut server, directory, || {
        UnixStream::connect(&socket).is_ok()
    })
}

const REDIS_FILL: &str = "for i = 1, 20000 do redis.call('ZADD', 'z', i * 7 % 1000, i) \
    redis.call('HSET', 'h' .. i % 50, i, i) redis.call('LPUSH', 'l', string.rep('x', i % 900)) end";
const REDIS_THIN: &str = "for i = 0, 49999, 3 do redis.call('DEL', 'key:' .. i) end";

/// Runs redis's benchmark, fills in a known data set, lets a forked child write a snapshot, reloads
/// it, and answers the data's digest.
#[test]
fn redis() {
    if !installed(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    is_ours("redis-server", &["--version"]);
    same_everywhere("redis", |runner, directory| {
        let port = free_port().to_string();
        let server = start_redis(runner, directory, &port);
        let order = |arguments: &[&str]| {
            let mut client = command(60, "redis-cli");
            client.arg("-e").arg("-s").arg(directory.join("socket"));
            text(client.args(arguments))
        };
        let load = ["-p", &port, "-n", "10000", "-P", "16", "-d", "100", "-q"];
        runner.run("redis-benchmark", &load, directory);
        order(&["FLUSHALL"]);
        order(&["DEBUG", "POPULATE", "50000", "key", "300"]);
        order(&["EVAL", REDIS_FILL, "0"]);
        order(&["EVAL", REDIS_THIN, "0"]);
        order(&["BGSAVE"]);
        while order(&["INFO", "persistence"]).contains("rdb_bgsave_in_progress:1") {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(order(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:ok"));
        order(&["DEBUG", "RELOAD"]);
        let digest = order(&["DEBUG", "DIGEST"]);
        // The server answers this by closing the connection.
        let _ = command(60, "redis-cli")
            .arg("-s")
            .arg(directory.join("socket"))
            .arg("SHUTDOWN")
            .output();
        server.ends();
        digest.into_bytes()
    });
}

const SQL: &str = "
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, grp INTEGER, price REAL);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
        INSERT INTO item SELECT i, printf('item %d %s', i, hex(i * 7919 % 65536)), i * 31 % 997, i % 1000 / 7.0 FROM n;
    CREATE INDEX by_name ON item (name);
    CREATE INDEX by_group ON item (grp, price);
    UPDATE item SET name = name || ' old' WHERE id % 5 = 0;
    DELETE FROM item WHERE id % 7 = 0;
    SELECT grp, count(*), sum(price), min(name), max(name) FROM item GROUP BY grp ORDER BY grp;
    SELECT count(*), sum(length(a.name)) FROM item a JOIN item b ON a.id = b.id + 1 WHERE b.grp < 100;
    SELECT group_concat(name) FROM (SELECT name FROM item ORDER BY price DESC, id LIMIT 5000);
    PRAGMA integrity_check;
";

#[test]
fn sqlite() {
    if !installed(&["sqlite3"]) {
        return;
    }
    is_ours("sqlite3", &[":memory:", "SELECT 1"]);
    same_everywhere("sqlite", |runner, directory| {
        runner.run("sqlite3", &["data", SQL], directory).stdout
    });
}

/// Makes a repository of 60 commits, clones and packs it, and shows its history.
#[test]
fn git() {
    if !installed(&["git"]) {
        return;
    }
    is_ours("git", &["--version"]);
    same_everywhere("git", |runner, directory| {
        let git = |arguments: &[&str], at: &Path| {
            let mut command = runner.command("git");
            for (name, value) in [("AUTHOR", "a"), ("COMMITTER", "b")] {
                command.env(format!("GIT_{name}_NAME"), value);
                command.env(format!("GIT_{name}_EMAIL"), value);
                command.env(format!("GIT_{name}_DATE"), "2024-01-01T00:00:00Z");
            }
            command
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_NOSYSTEM", "1");
            succeed(command.args(arguments).current_dir(at)).stdout
        };
        let (first, second) = (directory.join("first"), directory.join("second"));
        git(&["init", "-q", "-b", "main", "first"], directory);
        for commit in 0..60usize {
            for file in 0..20usize {
                let lines = (0..commit + 50).map(|i| format!("{file} {}\n", i * (commit + file)));
                fs::write(first.join(format!("file{file}")), lines.collect::<String>()).unwrap();
            }
            git(&["add", "."], &first);
            git(&["commit", "-q", "-m", &format!("commit {commit}")], &first);
        }
        git(&["clone", "-q", "--no-local", "first", "second"], directory);
        git(&["gc", "-q", "--aggressive"], &second);
        git(&["fsck", "--full", "--strict"], &second);
        git(&["log", "-p", "--stat", "-M", "-C"], &second)
    });
}

const PERL: &str = r#"
    my (%count, @words);
    for my $i (1 .. 300_000) {
        my $word = join '', map { chr(97 + ($i * $_) % 26) } 1 .. 1 + $i % 9;
        $count{$word}++;
        push @words, $word x (1 + $i % 4) if $i % 3;
    }
    printf "%s %d\n", $_, $count{$_} for (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 999];
    my $text = join ' ', @words;
    my $vowels = () = $text =~ /[aeiou]/g;
    $text =~ s/(\w)(\w+)/\u$1-$2/g;
    print length $text, " $vowels ", substr($text, -500), "\n";
    my @children = map { open my $p, '-|' or do { print $_ * scalar @words; exit }; $p } 1 .. 5;
    print map { scalar readline $_ } @children;
"#;

#[test]
fn perl() {
    if !installed(&["perl"]) {
        return;
    }
    is_ours("perl", &["-e", "1"]);
    same_everywhere("perl", |runner, directory| {
        runner.run("perl", &["-e", PERL], directory).stdout
    });
}

/// Runs the compiler on a file full of templates: the assembly code must be the same.
#[test]
fn compiler() {
    if !installed(&["g++"]) {
        return;
    }
    is_ours("g++", &["--version"]);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c/templates.cpp");
    same_everywhere("compiler", |runner, directory| {
        let arguments = ["-std=c++17", "-O1", "-S", "-o", "-", source];
        runner.run("g++", &arguments, directory).stdout
    });
}

/// Runs tar, and xz with two threads: the archive must be the same.
#[test]
fn archive() {
    if !installed(&["tar", "xz"]) {
        return;
    }
    is_ours("tar", &["--version"]);
    is_ours("xz", &["--version"]);
    same_everywhere("archive", |runner, directory| {
        let files = directory.join("files");
        fs::create_dir(&files).unwrap();
        for file in 0..40usize {
            let lines = (0..8000usize).map(|i| format!("{} {}\n", i * file % 9973, i * i % 101));
            fs::write(files.join(format!("{file}")), lines.collect::<String>()).unwrap();
        }
        let plain = [
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ];
        let pack = [
            "-I",
            "xz -3 -T2 --block-size=1MiB",
            "-c",
            "-f",
            "archive",
            "files",
        ];
        runner.run("tar", &[&plain[..], &pack[..]].concat(), directory);
        let archive = fs::read(directory.join("archive")).unwrap();
        fs::remove_dir_all(&files).unwrap();
        runner.run("tar", &["-I", "xz -T2", "-xf", "archive"], directory);
        assert_eq!(fs::read_dir(&files).unwrap().count(), 40);
        archive
    });
}
