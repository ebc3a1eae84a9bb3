//! The parts of the contract that concern the process, threads, topology and messages, on the real
//! system.
//!
//! Where a case needs a process of its own, the test starts its own executable again with `ROLE`
//! set.
#![allow(unsafe_code, missing_docs)] // Forks and thread hooks.

use std::ffi::c_void;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use theap_platform::{
    Cpu, Error, HUGE, Line, NodeId, Os, PAGE, PageMode, Topology, fork, thread_exit,
};

const OS: Os = Os::LINUX;
const ROLE: &str = "THEAP_TEST_ROLE";

/// In the parent, runs `test` of this executable in a child and returns the child's output. In the
/// child the answer is `None`.
fn in_child(test: &str) -> Option<Output> {
    if std::env::var_os(ROLE).is_some() {
        return None;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, "child");
    Some(child.output().unwrap())
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(ran, "the child found no such test");
}

#[test]
fn the_environment_is_read() {
    let Some(output) = in_child("the_environment_is_read") else {
        OS.env(ROLE.as_bytes(), |value| {
            assert_eq!(value, Some(&b"child"[..]))
        });
        for unset in ["THEAP_TEST_ROL", "THEAP_TEST_ROLE_2", ""] {
            OS.env(unset.as_bytes(), |value| assert_eq!(value, None));
        }
        return;
    };
    assert_success(&output);
}

/// Only the first file of descriptor 2 gets remarks; every one gets what must be said.
#[test]
fn remarks_are_for_the_file_of_the_start() {
    let test = "remarks_are_for_the_file_of_the_start";
    let Some(output) = in_child(test) else {
        OS.note_stderr();
        Line::new().str("first").remark(OS);
        let mut pipe = [0; 2];
        // SAFETY: the array has two places; the descriptors are this process's own.
        unsafe {
            assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
            let kept = libc::dup(2);
            assert_eq!(libc::dup2(pipe[1], 2), 2);
            OS.note_stderr();
            Line::new().str("second").remark(OS);
            Line::new().str("third").send(OS);
            libc::close(2);
            Line::new().str("fourth").remark(OS);
            assert_eq!(libc::dup2(kept, 2), 2);
            Line::new().str("fifth").remark(OS);
            let mut text = [0u8; 100];
            let bytes = libc::read(pipe[0], text.as_mut_ptr().cast(), text.len());
            assert_eq!(&text[..bytes as usize], b"third\n");
        }
        return;
    };
    assert_success(&output);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "first\nfifth\n");
}

#[test]
fn a_limit_on_addresses_is_an_error() {
    let Some(output) = in_child("a_limit_on_addresses_is_an_error") else {
        let limit = libc::rlimit {
            rlim_cur: 1 << 30,
            rlim_max: 1 << 30,
        };
        // SAFETY: this process is a child that only this test uses.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        assert_eq!(OS.reserve(64 << 30, HUGE), Err(Error::NoMemory));
        OS.reserve(64 << 20, HUGE).unwrap();
        return;
    };
    assert_success(&output);
}

/// A process that has as many mappings as it may have gets errors, and keeps its reservation.
#[test]
fn too_many_mappings_is_an_error() {
    let Some(output) = in_child("too_many_mappings_is_an_error") else {
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        let addr = OS.reserve(4 * HUGE + 2 * limit * PAGE, HUGE).unwrap();
        let pages = addr + 4 * HUGE;
        // SAFETY: the pages are every second one of our reservation, which is reserved or
        // committed.
        let refused =
            (0..limit).find(|i| unsafe { OS.commit(pages + 2 * i * PAGE, PAGE) }.is_err());
        let refused = refused.expect("the limit is reached");
        // SAFETY: the range is still reserved.
        unsafe {
            assert_eq!(
                OS.commit(pages + 2 * refused * PAGE, PAGE),
                Err(Error::NoMemory)
            );
            assert_eq!(
                OS.map(addr + HUGE, HUGE, PageMode::Small, None),
                Err(Error::NoMemory)
            );
            // This makes room for a few more mappings.
            OS.unreserve(pages + 2 * (refused - 8) * PAGE, 16 * PAGE);
            OS.map(addr + HUGE, HUGE, PageMode::Small, None).unwrap();
            *((addr + HUGE) as *mut u8) = 1;
        }
        return;
    };
    assert_success(&output);
}

#[test]
fn locked_memory_is_purged_too() {
    let Some(output) = in_child("locked_memory_is_purged_too") else {
        let addr = OS.reserve(HUGE, HUGE).unwrap();
        // SAFETY: this test reserved the range, and uses the memory only here.
        unsafe {
            OS.map(addr, HUGE, PageMode::Small, None).unwrap();
            *(addr as *mut u8) = 1;
            if libc::mlockall(libc::MCL_CURRENT) != 0 {
                return eprintln!("skipped: memory cannot be locked here");
            }
            OS.purge(addr, HUGE).unwrap();
            assert_eq!(*(addr as *const u8), 0);
        }
        return;
    };
    assert_success(&output);
}

#[test]
fn errno_is_kept() {
    // SAFETY: the call has no precondition.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: `errno` is this thread's own and always valid.
    unsafe { errno.write(77) };
    assert!(OS.node_of(PAGE).is_err());
    assert!(OS.reserve(1 << 50, HUGE).is_err());
    // SAFETY: `errno` is this thread's own and always valid.
    assert_eq!(unsafe { errno.read() }, 77);
}

#[test]
fn the_clock_goes_forward() {
    let first = OS.now();
    std::thread::sleep(std::time::Duration::from_millis(2));
    let passed = OS.now() - first;
    assert!((2_000_000..60_000_000_000).contains(&passed), "{passed}");
}

#[test]
fn pressure_can_be_watched_where_the_kernel_measures_it() {
    let pressure = OS.watch_pressure();
    if !pressure.is_some() {
        return eprintln!("skipped: the kernel tells nothing of pressure, or not to this process");
    }
    // The machine may be short of memory now; the next look asks for what came since.
    OS.is_pressed(&pressure);
    assert!(!OS.is_pressed(&pressure));
}

#[test]
fn the_room_is_plausible() {
    let room = OS.room();
    assert!(
        (1 << 20..=OS.total_memory()).contains(&room.bytes),
        "{room:?}"
    );
}

#[test]
fn the_memory_is_plausible() {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = info.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(OS.total_memory(), kib << 10);
    assert!((1 << 20..=kib << 10).contains(&OS.memory_limit()));
}

#[test]
fn the_topology_has_every_cpu() {
    let topology = OS.topology();
    assert!(topology.nodes() >= 1);
    assert!((OS.current_cpu().0 as usize) < topology.cpus());
    assert!(topology.cpus() >= std::thread::available_parallelism().unwrap().get());
    for cpu in 0..topology.cpus() as u32 {
        let online = std::fs::exists(format!("/sys/devices/system/cpu/cpu{cpu}/topology")).unwrap();
        let home = topology.node_of_cpu(Cpu(cpu));
        assert!(
            !online || home.is_some_and(|home| home < topology.nodes()),
            "CPU {cpu}: {home:?}"
        );
    }
}

#[test]
fn pages_are_found_where_they_are() {
    let addr = OS.reserve(HUGE, HUGE).unwrap();
    // SAFETY: this test reserved the range, and uses the memory only here.
    unsafe {
        OS.map(addr, HUGE, PageMode::Small, None).unwrap();
        ((addr + 3 * PAGE) as *mut u8).write(1);
        ((addr + 100 * PAGE) as *mut u8).write(1);
    }
    let mut nodes = [None; 128];
    OS.nodes_of(addr, PAGE, &mut nodes).unwrap();
    let there: Vec<_> = (0..128).filter(|&i| nodes[i].is_some()).collect();
    assert_eq!(there, [3, 100], "asking touches nothing");
    assert_eq!(nodes[3], Some(OS.node_of(addr + 3 * PAGE).unwrap()));
    // SAFETY: nobody refers to the reservation any more.
    unsafe { OS.unreserve(addr, HUGE) };
    OS.nodes_of(addr, PAGE, &mut nodes).unwrap();
    assert_eq!(nodes, [None; 128]);
}

#[test]
fn the_place_is_a_cpu_and_its_node() {
    let (cpu, node) = OS.current_place().unwrap();
    assert!((cpu.0 as usize) < OS.topology().cpus());
    assert!(std::fs::exists(format!("/sys/devices/system/node/node{}", node.0)).unwrap());
}

#[test]
fn a_topology_is_built_from_parts() {
    let topology = Topology::from_parts(&[(0, 3, 2), (8, 11, 0), (4, 7, 2), (9000, 9001, 5)]);
    assert_eq!(topology.nodes(), 2);
    assert_eq!(topology.cpus(), 12);
    assert_eq!(
        (topology.kernel_node(0), topology.kernel_node(1)),
        (NodeId(2), NodeId(0))
    );
    assert_eq!(
        [0, 7, 8, 11, 12, 5000].map(|cpu| topology.node_of_cpu(Cpu(cpu))),
        [Some(0), Some(0), Some(1), Some(1), None, None]
    );
    assert_eq!(
        [0, 2, 5].map(|node| topology.home_of(NodeId(node))),
        [1, 0, 0]
    );
    assert_eq!(Topology::from_parts(&[]).nodes(), 1);
    assert_eq!(Topology::single().nodes(), 1);
}

static EXITS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_exit(value: *mut c_void) {
    if EXITS.fetch_add(value as usize, SeqCst) % 1000 < 2 {
        // Code that frees after this hook arms it again, so the hook must run again.
        // SAFETY: the hook takes any value.
        unsafe { thread_exit::arm(on_exit, value) }.unwrap();
    }
}

#[test]
fn the_exit_hook_runs_and_arms_again() {
    let arm = |value: usize| {
        // SAFETY: the hook takes any value.
        move || unsafe { thread_exit::arm(on_exit, value as *mut c_void) }.unwrap()
    };
    // Eight threads create the key at the same time.
    let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(arm(1000))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    // Each thread ran the hook as often as the C library allows: the last call found 0 in the low
    // digits and armed the hook again.
    let runs = EXITS.swap(0, SeqCst);
    assert!(runs.is_multiple_of(8000) && runs >= 16_000, "{runs}");
    std::thread::spawn(arm(1)).join().unwrap();
    assert_eq!(EXITS.load(SeqCst), 3);
    std::thread::spawn(|| {}).join().unwrap();
    assert_eq!(EXITS.load(SeqCst), 3, "a thread that has not armed");
}

static FORKS: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

extern "C" fn prepare() {
    FORKS[0].fetch_add(1, SeqCst);
}

extern "C" fn parent() {
    FORKS[1].fetch_add(1, SeqCst);
}

extern "C" fn child() {
    FORKS[2].fetch_add(1, SeqCst);
}

#[test]
fn fork_runs_the_hooks() {
    let Some(output) = in_child("fork_runs_the_hooks") else {
        let counts = || FORKS.each_ref().map(|count| count.load(SeqCst));
        fork::register(prepare, parent, child).unwrap();
        // SAFETY: the child only compares numbers and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = if counts() == [1, 0, 1] { 0 } else { 1 };
            // SAFETY: the call ends the child at once.
            unsafe { libc::_exit(code) };
        }
        let mut status = -1;
        // SAFETY: the call waits for our child, and `status` is live and writable.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0);
        assert_eq!(counts(), [1, 1, 0]);
        return;
    };
    assert_success(&output);
}

#[test]
fn lines_are_built_without_allocation() {
    let line = Line::new()
        .str("a ")
        .dec(0)
        .str(" ")
        .dec(u64::MAX)
        .str(" ")
        .hex(0xbeef)
        .raw(b"!");
    assert_eq!(line.as_bytes(), b"a 0 18446744073709551615 0xbeef!");
    let line = Line::new()
        .bytes(0)
        .str(",")
        .bytes(1000)
        .str(",")
        .bytes(64 << 10)
        .str(",")
        .bytes(1 << 30);
    assert_eq!(line.as_bytes(), b"0 bytes,1000 bytes,64 KiB,1024 MiB");
    assert_eq!(
        Line::<4>::sized().str("truncated").dec(1).as_bytes(),
        b"trun"
    );
    let shown = Line::new()
        .show(Error::Other(12))
        .str("; ")
        .show(Error::NoHugepages);
    assert_eq!(shown.as_bytes(), b"errno 12; no hugetlb pages left");
}

#[test]
fn lines_are_sent_whole() {
    let Some(output) = in_child("lines_are_sent_whole") else {
        Line::new().str("theap: ").dec(7).send(OS);
        Line::<4>::sized().str("truncated").send(OS);
        return;
    };
    assert_success(&output);
    assert_eq!(output.stderr, b"theap: 7\ntru\n");
}
