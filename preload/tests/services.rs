//! Services and script engines, unmodified, on small, transparent and hugetlb pages, as
//! `programs.rs` has it: nginx through reloads under requests, memcached, postgresql under pgbench,
//! php and node. They listen on the loopback interface only.
#![allow(missing_docs)]

mod library;

use library::programs::{
    Runner, Server, free_port, installed, is_ours, listens, process_in, same_everywhere, signal,
};
use library::succeed;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
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

/// Runs a script of `tests/scripts`: its output must be the same.
fn script(engine: &str, arguments: &[&str], name: &str) {
    let script = format!("{}/tests/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    let directory = format!("{engine}{}", arguments.len());
    same_everywhere(&directory, |runner, directory| {
        let mut command = runner.command(engine);
        // php would have an allocator of its own, as Python has.
        command.env("USE_ZEND_ALLOC", "0").args(arguments);
        succeed(command.arg(&script).current_dir(directory)).stdout
    });
}

/// Extensions that free nothing of php's own, and opcache. See [`php_with_all_extensions`].
#[test]
fn php() {
    if installed(&["php"]) {
        let arguments = [
            "-n",
            "-dzend_extension=opcache",
            "-dopcache.enable_cli=1",
            "-dextension=ctype",
            "-dextension=iconv",
            "-dmemory_limit=-1",
        ];
        is_ours("php", &["-n", "--version"]);
        script("php", &arguments, "work.php");
    }
}

#[test]
#[ignore = "php loads extensions with RTLD_DEEPBIND: pdo and tokenizer free theap's blocks through \
            the C library, which ends the process; so it is with jemalloc"]
fn php_with_all_extensions() {
    if installed(&["php"]) {
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
