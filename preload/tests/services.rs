//! Services and script engines, unmodified, on small, transparent and hugetlb pages, as
//! `programs.rs` has it: nginx through reloads under requests, memcached, postgresql under pgbench,
//! php and node. They listen on the loopback interface only. Programs that are large to install are
//! not in `tests/install.sh`; each test says which package it needs:
//! `cargo test -p theap-preload --test services -- --ignored java chromium`.
#![allow(missing_docs)]

mod library;

use library::programs::{
    Runner, Server, absent, free_port, installed, is_ours, listens, process_in, same_everywhere,
    signal,
};
use library::{succeed, text};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const CLIENTS: usize = 4;

/// A connection on which nothing waits for longer than [`PATIENCE`].
fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

const NGINX: &str = "/usr/sbin/nginx";

/// The pages are put together of parts, compressed for those who want it, and read into buffers.
const NGINX_SETTINGS: &str = "
    user root root;
    worker_processes 2;
    daemon off;
    pid pid;
    events { worker_connections 256; }
    http {
        access_log access;
        client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
        uwsgi_temp_path uwsgi; scgi_temp_path scgi;
        types { text/html html; }
        sendfile off;
        output_buffers 4 64k;
        gzip on;
        server {
            listen 127.0.0.1:PORT;
            root files;
            ssi on;
            add_header X-Worker $pid;
        }
    }
";

/// Requests a page, and answers the number of the worker process and the page.
fn page(port: u16, path: &str, fields: &str) -> (u32, Vec<u8>) {
    let mut stream = connect(port);
    write!(stream, "GET {path} HTTP/1.0\r\nHost: here\r\n{fields}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.expect("no header") + 4);
    let header = String::from_utf8(answer).unwrap();
    assert!(header.starts_with("HTTP/1.1 200 "), "{header}");
    let worker = header.lines().find_map(|l| l.strip_prefix("X-Worker: "));
    (worker.expect("no worker").parse().unwrap(), body)
}

/// Writes the settings and the files, and answers the files' paths and contents. The last has the
/// second included many times.
fn nginx_site(directory: &Path, port: u16) -> [(&'static str, Vec<u8>); 3] {
    let settings = NGINX_SETTINGS.replace("PORT", &port.to_string());
    fs::write(directory.join("settings"), settings).unwrap();
    let files = directory.join("files");
    fs::create_dir(&files).unwrap();
    let lines = |count: usize| (0..count).map(|i| format!("{i} {}\n", i * i % 8191));
    let [large, part] = [60_000, 300].map(|count| lines(count).collect::<String>());
    fs::write(files.join("large"), &large).unwrap();
    fs::write(files.join("part.html"), &part).unwrap();
    let include = "<p><!--#include virtual=\"/part.html\" --></p>\n";
    fs::write(files.join("page.html"), include.repeat(30)).unwrap();
    let whole = format!("<p>{part}</p>\n").repeat(30);
    [
        ("/large", large.into()),
        ("/part.html", part.into()),
        ("/page.html", whole.into()),
    ]
}

/// Clients request pages, and check them, while the server reloads its settings: every reload
/// starts new workers, and the old ones end after their last answer.
#[test]
fn nginx() {
    if !installed(&[NGINX]) {
        return;
    }
    is_ours(NGINX, &["-v"]);
    same_everywhere("nginx", |runner, directory| {
        let port = free_port();
        let site = nginx_site(directory, port);
        let place = [
            "-p",
            directory.to_str().unwrap(),
            "-c",
            "settings",
            "-e",
            "errors",
        ];
        let mut server = runner.command(NGINX);
        let server = Server::start(server.args(place), directory, || listens(port));
        let master = process_in(&directory.join("pid"));
        let (worker, compressed) = page(port, "/page.html", "Accept-Encoding: gzip\r\n");
        runner.check(master);
        runner.check(worker);
        let (workers, done) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
        thread::scope(|scope| {
            let client = || {
                while !done.load(Relaxed) {
                    for (path, content) in &site {
                        let (worker, body) = page(port, path, "");
                        assert!(body == *content, "{path} has {} bytes", body.len());
                        workers.lock().unwrap().insert(worker);
                    }
                }
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            let reloads = scope.spawn(|| {
                for _ in 0..5 {
                    reload(runner, directory, &place, &workers);
                }
            });
            let reloaded = reloads.join();
            done.store(true, Relaxed);
            clients.into_iter().for_each(|c| c.join().unwrap());
            reloaded.unwrap();
        });
        signal("QUIT", master);
        server.ends();
        let errors = fs::read_to_string(directory.join("errors")).unwrap();
        assert!(!errors.contains("[alert]"), "{errors}");
        [compressed, site[2].1.clone()].concat()
    });
}

/// Reloads nginx, and waits for a worker that was not there before to answer.
fn reload(runner: Runner, directory: &Path, place: &[&str], workers: &Mutex<BTreeSet<u32>>) {
    let before = workers.lock().unwrap().clone();
    runner.run(NGINX, &[place, &["-s", "reload"]].concat(), directory);
    let start = Instant::now();
    while workers.lock().unwrap().is_subset(&before) {
        assert!(start.elapsed() < PATIENCE, "no new worker answers");
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(50));
}

/// A client of memcached.
struct Cache(BufReader<TcpStream>);

impl Cache {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn order(&mut self, order: &str) -> String {
        let order = format!("{order}\r\n");
        self.0.get_mut().write_all(order.as_bytes()).unwrap();
        self.line()
    }

    fn set(&mut self, key: &str, value: &[u8]) {
        let mut order = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
        order.extend_from_slice(value);
        order.extend_from_slice(b"\r\n");
        self.0.get_mut().write_all(&order).unwrap();
        assert_eq!(self.line(), "STORED", "{key}");
    }

    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let head = self.order(&format!("get {key}"));
        if head == "END" {
            return None;
        }
        let bytes = head.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
        let mut value = vec![0; bytes + 2];
        self.0.read_exact(&mut value).unwrap();
        value.truncate(bytes);
        assert_eq!(self.line(), "END");
        Some(value)
    }

    /// The statistics that tell what was done.
    fn figures(&mut self) -> String {
        let mut line = self.order("stats");
        let mut figures = String::new();
        while line != "END" {
            let wanted = [
                "cmd_set",
                "get_hits",
                "get_misses",
                "curr_items",
                "evictions",
            ];
            if wanted
                .iter()
                .any(|name| line.starts_with(&format!("STAT {name} ")))
            {
                figures += &format!("{line}\n");
            }
            line = self.line();
        }
        figures
    }
}

/// A value of up to 700 KiB; most are much smaller.
fn value(client: usize, item: usize, round: usize) -> Vec<u8> {
    let limit =
        [100, 1000, 10_000, 100_000, 700_000][(item % 64).checked_sub(59).unwrap_or(item % 3)];
    let bytes = 1 + (item * 7919 + round * 104_729) % limit;
    (0..bytes)
        .map(|at| (at * (client + 3) + item + round) as u8)
        .collect()
}

/// Sets, replaces, deletes and gets values.
fn fill(port: u16, client: usize) {
    let mut cache = Cache(BufReader::new(connect(port)));
    let key = |item: usize| format!("key-{client}-{item}");
    for round in 0..3 {
        for item in (0..800).filter(|item| item % (round + 1) == 0) {
            cache.set(&key(item), &value(client, item, round));
        }
    }
    for item in (0..800).step_by(5) {
        assert_eq!(cache.order(&format!("delete {}", key(item))), "DELETED");
    }
    for item in 0..800 {
        let round = (0..3).rfind(|round| item % (round + 1) == 0).unwrap();
        let expected = (item % 5 != 0).then(|| value(client, item, round));
        assert!(cache.get(&key(item)) == expected, "{}", key(item));
    }
}

#[test]
fn memcached() {
    if !installed(&["memcached"]) {
        return;
    }
    is_ours("memcached", &["--version"]);
    same_everywhere("memcached", |runner, directory| {
        let port = free_port();
        let mut server = runner.command("memcached");
        server
            .args(["-l", "127.0.0.1", "-p", &port.to_string(), "-u", "root"])
            .args(["-m", "256", "-t", "4", "-P"])
            .arg(directory.join("pid"));
        let server = Server::start(&mut server, directory, || listens(port));
        let process = process_in(&directory.join("pid"));
        runner.check(process);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || fill(port, client));
            }
        });
        let figures = Cache(BufReader::new(connect(port))).figures();
        signal("TERM", process);
        server.ends();
        figures.into_bytes()
    });
}

/// Runs a script of `tests/scripts`: its output must be the same. On standard error the script says
/// whether it has memory of the break, with which the C library's allocator begins.
fn script(engine: &str, arguments: &[&str], name: &str) {
    let script = format!("{}/tests/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    let directory = format!("{engine}{}", arguments.len());
    same_everywhere(&directory, |runner, directory| {
        let mut command = runner.command(engine);
        // php would have an allocator of its own, as Python has.
        command.env("USE_ZEND_ALLOC", "0").args(arguments);
        let output = succeed(command.arg(&script).current_dir(directory));
        let memory = if runner.mode.is_none() {
            "break"
        } else {
            "none"
        };
        assert_eq!(String::from_utf8_lossy(&output.stderr), memory, "{engine}");
        output.stdout
    });
}

/// With the extensions of the machine's settings, which php loads with RTLD_DEEPBIND, and which
/// free php's blocks and the reverse.
#[test]
fn php() {
    if installed(&["php"]) {
        is_ours("php", &["--version"]);
        script("php", &["-dmemory_limit=-1"], "work.php");
    }
}

#[test]
fn node() {
    if installed(&["node"]) {
        is_ours("node", &["--version"]);
        script("node", &[], "work.js");
    }
}

/// The directory of postgres's programs, the newest if there are several.
fn postgres_programs() -> Option<String> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let programs = versions.map(|version| version.unwrap().path().join("bin"));
    let newest = programs.filter(|bin| bin.join("pgbench").exists()).max();
    Some(newest?.to_str().unwrap().to_owned())
}

/// The user `nobody`, as postgres refuses to be root.
const NOBODY: &str = "65534";

/// Postgres in a directory, with one runner.
struct Postgres<'a> {
    runner: Runner,
    programs: &'a str,
    directory: &'a Path,
    port: String,
}

impl Postgres<'_> {
    /// One of postgres's programs, run by somebody who is not root.
    fn command(&self, program: &str) -> Command {
        let program = format!("{}/{program}", self.programs);
        let mut command = match fs::metadata("/proc/self").unwrap().uid() {
            0 => {
                let mut command = self.runner.command("setpriv");
                let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
                command.args(user).args(["--clear-groups", &program]);
                command
            }
            _ => self.runner.command(&program),
        };
        command
            .current_dir(self.directory)
            .env("HOME", self.directory)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", &self.port)
            .env("PGUSER", "postgres")
            .env("LC_ALL", "C");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        text(self.command(program).args(arguments))
    }

    fn start(&self) -> Server {
        let initdb = [
            "-D",
            "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ];
        self.run("initdb", &initdb);
        let huge_pages = if self.runner.hugetlb { "try" } else { "off" };
        let mut server = self.command("postgres");
        server.args(["-D", "data", "-p", &self.port]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_buffers=64MB",
            "fsync=off",
            &format!("huge_pages={huge_pages}"),
        ] {
            server.args(["-c", setting]);
        }
        Server::start(&mut server, self.directory, || {
            self.command("pg_isready")
                .output()
                .unwrap()
                .status
                .success()
        })
    }
}

/// What was paid is the same in all tables; then sorting, hashing and code that is compiled as the
/// queries run.
const QUERIES: &str = "
    SELECT count(*) FROM pgbench_history;
    SELECT (SELECT sum(delta) FROM pgbench_history) = (SELECT sum(abalance) FROM pgbench_accounts),
        (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches);
    CREATE TABLE item AS SELECT i, md5(i::text) AS name, i * 31 % 997 AS part, repeat('x', i % 3000) AS pad
        FROM generate_series(1, 30000) i;
    CREATE INDEX ON item (name);
    SELECT md5(string_agg(name, ',' ORDER BY name DESC)), sum(length(pad)) FROM item;
    SET jit_above_cost = 0;
    SET jit_inline_above_cost = 0;
    SET jit_optimize_above_cost = 0;
    SELECT part, count(*), min(name), jsonb_agg(jsonb_build_object('i', i, 'name', name) ORDER BY i)
        FROM item WHERE i % 7 < 3 GROUP BY part ORDER BY part LIMIT 50;
    SELECT count(*), sum(a.i) FROM item a JOIN item b ON a.name < b.name AND a.part = b.part;
    SELECT regexp_replace(string_agg(name, ' ' ORDER BY i), '[0-9]+', '#', 'g') FROM item WHERE i < 300;
";

/// A new cluster, its load and transactions of pgbench, and queries whose answers are known.
#[test]
fn postgresql() {
    let Some(programs) = postgres_programs() else {
        return absent("postgresql not installed");
    };
    if !installed(&["setpriv"]) {
        return;
    }
    for program in ["postgres", "initdb", "pgbench", "psql"] {
        is_ours(&format!("{programs}/{program}"), &["--version"]);
    }
    same_everywhere("postgresql", |runner, directory| {
        if fs::metadata(directory).unwrap().uid() == 0 {
            let nobody = NOBODY.parse().ok();
            std::os::unix::fs::chown(directory, nobody, nobody).unwrap();
        }
        let postgres = Postgres {
            runner,
            programs: &programs,
            directory,
            port: free_port().to_string(),
        };
        let server = postgres.start();
        let process = process_in(&directory.join("data/postmaster.pid"));
        runner.check(process);
        assert_eq!(shares_pool(process), runner.hugetlb);
        postgres.run("pgbench", &["-i", "-q", "-s", "2", "postgres"]);
        let clients = CLIENTS.to_string();
        let load = ["-c", &clients, "-j", "2", "-t", "750", "-n", "postgres"];
        let said = postgres.run("pgbench", &load);
        assert!(said.contains("actually processed: 3000/3000"), "{said}");
        let failures = ["-v", "ON_ERROR_STOP=1", "-X", "-q", "-A", "-t"];
        let query = [&failures[..], &["-c", QUERIES, "postgres"]].concat();
        let answers = postgres.run("psql", &query);
        assert!(answers.starts_with("3000\nt|t\n"), "{answers}");
        postgres.run("pg_ctl", &["-D", "data", "-m", "fast", "-w", "stop"]);
        server.ends();
        answers.into_bytes()
    });
}

/// Whether the memory that the process shares is of the hugetlb pool.
fn shares_pool(process: u32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let shared = |line: &str| line.contains(" rw-s ") && line.contains("/anon_hugepage");
    maps.lines().any(shared)
}

#[test]
#[ignore = "needs a JDK: apt-get install --no-install-recommends default-jdk-headless; then \
            cargo test -p theap-preload --test services -- --ignored java"]
fn java() {
    if installed(&["java", "javac"]) {
        is_ours("java", &["-version"]);
        script("java", &[], "Work.java");
    }
}

/// The browser has an allocator of its own, which wins over a preloaded one: the library must do no
/// harm to its processes.
#[test]
#[ignore = "needs a browser: apt-get install --no-install-recommends chromium; then \
            cargo test -p theap-preload --test services -- --ignored chromium"]
fn chromium() {
    if !installed(&["chromium"]) {
        return;
    }
    let source =
        "<p>here</p><script>document.body.append([...Array(40).keys()].map(i => i * i))</script>";
    same_everywhere("chromium", |runner, directory| {
        fs::write(directory.join("page.html"), source).unwrap();
        let page = format!("file://{}", directory.join("page.html").display());
        let profile = format!("--user-data-dir={}", directory.join("profile").display());
        let plain = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-crash-reporter",
        ];
        let arguments = [&plain[..], &[&profile, "--dump-dom", &page]].concat();
        let shown = runner.run("chromium", &arguments, directory).stdout;
        assert!(String::from_utf8_lossy(&shown).contains("1369,1444,1521"));
        shown
    });
}
