//! Real programs, unmodified, on small, transparent and hugetlb pages: each must do what it does on
//! the C library's allocator. Without one of the programs its test says that it skips, and fails in
//! CI; `tests/install.sh` installs all programs.
#![allow(missing_docs)]

mod library;

use library::{Hugepages, command, preloaded, scratch, succeed, text};
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::Duration;

/// Hugetlb pages for the largest of them and for the copies that its forks make.
const PAGES: usize = 400;
const DEADLINE: u32 = 240;

/// Runs a program on the system's allocator, or on theap in a page mode.
#[derive(Clone, Copy)]
struct Runner {
    mode: Option<&'static str>,
}

impl Runner {
    fn command(self, program: &str) -> Command {
        match self.mode {
            None => command(DEADLINE, program),
            Some(mode) => {
                let mut command = preloaded(DEADLINE, program);
                // A heap that falls back to other pages writes a message, and these programs'
                // children read each other's standard error.
                command.env("THEAP_PAGES", mode).env("THEAP_MESSAGES", "0");
                command
            }
        }
    }

    fn run(self, program: &str, arguments: &[&str], directory: &Path) -> Output {
        succeed(self.command(program).args(arguments).current_dir(directory))
    }
}

fn installed(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&str| std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    let missing: Vec<_> = programs.iter().filter(|p| !found(p)).collect();
    if !missing.is_empty() {
        assert!(
            std::env::var_os("CI").is_none(),
            "not installed: {missing:?}"
        );
        eprintln!("skipped: {missing:?} not installed");
    }
    missing.is_empty()
}

/// Checks that the program's memory is theap's: the first allocation writes a message about a wrong
/// option.
fn is_ours(program: &str, arguments: &[&str]) {
    let output = succeed(
        preloaded(DEADLINE, program)
            .args(arguments)
            .env("THEAP_PAGES", "wrong"),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("theap: THEAP_PAGES=wrong"),
        "{program}: {said}"
    );
}

/// Runs `work` in a directory of its own on the system's allocator and on theap in every page mode,
/// and compares the results.
fn same_everywhere(name: &str, work: impl Fn(Runner, &Path) -> Vec<u8> + Sync) {
    let run = &|mode: Option<&'static str>| {
        let directory = scratch(&format!("{name}-{}", mode.unwrap_or("system")));
        work(Runner { mode }, &directory)
    };
    // These run side by side, as some of the work is mostly waiting.
    let (expected, small, thp) = thread::scope(|scope| {
        let [expected, small, thp] =
            [None, Some("small"), Some("thp")].map(|mode| scope.spawn(move || run(mode)));
        let done = |work: thread::ScopedJoinHandle<'_, Vec<u8>>| work.join().unwrap();
        (done(expected), done(small), done(thp))
    });
    let _pages = Hugepages::take(PAGES);
    let hugetlb = run(Some("hugetlb"));
    assert!(!expected.is_empty());
    for (mode, found) in [("small", small), ("thp", thp), ("hugetlb", hugetlb)] {
        assert!(
            found == expected,
            "{name} on {mode} pages\n{}\nbut on the system's allocator\n{}",
            excerpt(&found),
            excerpt(&expected)
        );
    }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

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
        assert!(
            std::env::var_os("CI").is_none(),
            "no {}/test_json",
            suite.display()
        );
        eprintln!("skipped: Python's test suite is not installed");
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

/// A server that ends with the test, also if the test panics.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // `timeout`, which started the server, passes the signal on.
        let _ = Command::new("kill").arg(self.0.id().to_string()).output();
        let _ = self.0.wait();
    }
}

/// Starts redis. It listens at `socket` in the directory, and on loopback at the port for the
/// benchmark.
fn start_redis(runner: Runner, directory: &Path, port: &str) -> Server {
    let socket = directory.join("socket");
    let log = fs::File::create(directory.join("log")).unwrap();
    let server = runner
        .command("redis-server")
        .args(["--bind", "127.0.0.1", "--port", port, "--save", ""])
        .args(["--enable-debug-command", "yes", "--io-threads", "2"])
        .arg("--unixsocket")
        .arg(&socket)
        .current_dir(directory)
        .stdout(log)
        .spawn();
    let server = Server(server.unwrap());
    for _ in 0..1000 {
        if UnixStream::connect(&socket).is_ok() {
            return server;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("redis does not answer");
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
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let mut server = start_redis(runner, directory, &port);
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
        let ended = server.0.wait().unwrap();
        assert!(ended.success(), "redis-server: {ended}");
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
