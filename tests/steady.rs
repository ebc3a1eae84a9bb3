//! The proof of the steady state: after a warm-up two threads allocate, free and hand blocks to
//! each other under a filter that kills the process on any system call, and not one page fault
//! happens. Each scenario runs in a process of its own.
#![allow(unsafe_code)] // Calls the allocator directly, and getrusage.

mod child;
mod hugepages;

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use theap::raw;

/// The operations of both threads together: an allocation or a free is one.
const OPERATIONS: usize = 50_000_000;
const STEADY: &str = "operations 50000000 faults 0 refusals 0";
const SLOTS: usize = 8192;

/// From now on the kernel kills the process if this thread makes any system call other than exit
/// and write.
fn forbid_system_calls() {
    let filter = SeccompFilter::new(
        [libc::SYS_exit, libc::SYS_exit_group, libc::SYS_write]
            .map(|call| (call, Vec::new()))
            .into(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
    // theap is not the global allocator of this program, so System frees what std drops here.
    std::mem::forget(program);
}

/// Page faults of the process so far.
fn faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: zero is a valid `rusage`, which is live and writable.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_minflt + usage.ru_majflt
}

/// Page faults so far of the thread with this number.
fn faults_of(thread: &AtomicI32) -> i64 {
    let path = format!("/proc/self/task/{}/stat", thread.load(Ordering::Relaxed));
    let stat = std::fs::read_to_string(path).unwrap();
    // Behind the name come the state and six numbers, then minor faults, and two further the major
    // ones.
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    [7, 9]
        .map(|at: usize| fields[at].parse::<i64>().unwrap())
        .iter()
        .sum()
}

/// The blocks of a thread, and the rings to and from the other thread.
struct Worker {
    slots: Vec<usize>,
    random: u64,
    to: Producer<usize>,
    from: Consumer<usize>,
}

impl Worker {
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn run(&mut self, operations: usize) {
        let mut done = 0;
        while done < operations {
            if let Ok(block) = self.from.pop() {
                // SAFETY: the block is live, and the other thread gave it away.
                unsafe { raw::free(block as *mut u8) };
                done += 1;
            }
            let random = self.next();
            let slot = (random >> 40) as usize % SLOTS;
            let block = std::mem::take(&mut self.slots[slot]);
            if block == 0 {
                let block = raw::alloc(16 + random as usize % 1009);
                assert!(!block.is_null());
                // SAFETY: the block is new and has at least 16 bytes.
                unsafe { block.write(1) };
                self.slots[slot] = block as usize;
                done += 1;
            } else if random & 1 << 32 == 0 || self.to.push(block).is_err() {
                // SAFETY: the block is live, and only this thread has it.
                unsafe { raw::free(block as *mut u8) };
                done += 1;
            }
        }
    }
}

/// Waits until the counter has the value, without a system call.
fn wait_for(counter: &AtomicUsize, value: usize) {
    while counter.load(Ordering::Acquire) < value {
        std::hint::spin_loop();
    }
}

/// What happens beside the two threads.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    /// The heap is sealed.
    Sealed,
    /// The thread in the background gives back what was free for long.
    GivingBack,
    /// It takes from the heaps of threads that rest. Such a heap was not warmed up.
    Reclaiming,
}

/// Makes the kernel provide the pages of the program's code: some of it runs once in a while only.
fn touch_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines().filter(|line| line.contains("r-xp")) {
        let (first, rest) = line.split_once('-').unwrap();
        let end = rest.split_whitespace().next().unwrap();
        let [first, end] = [first, end].map(|at| usize::from_str_radix(at, 16).unwrap());
        // SAFETY: populating keeps contents; a refusal shows as page faults.
        unsafe { libc::madvise(first as *mut _, end - first, libc::MADV_POPULATE_READ) };
    }
}

/// Blocks of 1 MiB that were in use and are free.
fn burst(blocks: usize) {
    let blocks: Vec<_> = (0..blocks).map(|_| raw::alloc(1 << 20)).collect();
    for block in blocks {
        assert!(!block.is_null());
        // SAFETY: a live block of this size, which is freed once.
        unsafe {
            block.write_bytes(1, 1 << 20);
            raw::free(block);
        }
    }
}

/// Starts threads that have a burst of sizes which the two others do not use, keep a block of each
/// span, and rest from the moment on at which `go` is set.
fn rest_beside(go: &'static AtomicUsize) {
    let rested = &*Box::leak(Box::new(AtomicUsize::new(0)));
    for _ in 0..4 {
        thread::spawn(move || {
            for size in (2000..40_000).step_by(1500) {
                let blocks: Vec<_> = (0..(2 << 20) / size).map(|_| raw::alloc(size)).collect();
                for (at, block) in blocks.into_iter().enumerate() {
                    assert!(!block.is_null());
                    // SAFETY: a live block of this size, which is freed once.
                    unsafe {
                        block.write_bytes(1, size);
                        if at % 32 != 0 {
                            raw::free(block);
                        }
                    }
                }
            }
            theap::collect();
            rested.fetch_add(1, Ordering::AcqRel);
            while go.load(Ordering::Acquire) == 0 {
                // A step of the heap: it does not rest yet.
                theap::collect();
                thread::sleep(Duration::from_millis(20));
            }
            loop {
                thread::park();
            }
        });
    }
    while rested.load(Ordering::Acquire) < 4 {
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the thread in the background has done so far: bytes that it gave back, spans that it took.
fn done_beside() -> [u64; 2] {
    let stats = theap::stats();
    [stats.given_back, stats.totals.spans_reclaimed]
}

fn steady(beside: Beside) {
    if beside != Beside::Reclaiming {
        theap::warm_up(256 << 20).unwrap();
    }
    let (a_to_b, b_from_a) = RingBuffer::new(1024);
    let (b_to_a, a_from_b) = RingBuffer::new(1024);
    let worker = |random, to, from| Worker {
        slots: vec![0; SLOTS],
        random,
        to,
        from,
    };
    let workers = [
        worker(88_172_645_463_325_252, a_to_b, a_from_b),
        worker(0x9E37_79B9_7F4A_7C15, b_to_a, b_from_a),
    ];
    static GO: AtomicUsize = AtomicUsize::new(0);
    let (go, [ready, done]) = (&GO, &[const { AtomicUsize::new(0) }; 2]);
    let threads = &[const { AtomicI32::new(0) }; 2];
    thread::scope(|scope| {
        for (mut worker, thread) in workers.into_iter().zip(threads) {
            scope.spawn(move || {
                // SAFETY: the call has no precondition.
                thread.store(unsafe { libc::gettid() }, Ordering::Relaxed);
                worker.run(OPERATIONS / 10);
                forbid_system_calls();
                worker.run(1000);
                ready.fetch_add(1, Ordering::AcqRel);
                wait_for(go, 1);
                worker.run(OPERATIONS / 2);
                done.fetch_add(1, Ordering::AcqRel);
                // The thread must not end: that takes system calls that the filter forbids.
                loop {
                    worker.run(1000);
                }
            });
        }
        let sleep_until = |counter: &AtomicUsize| {
            while counter.load(Ordering::Acquire) < 2 {
                thread::sleep(Duration::from_millis(1));
            }
        };
        sleep_until(ready);
        match beside {
            Beside::Nothing => {}
            Beside::Sealed => theap::seal(),
            Beside::GivingBack => burst(560),
            Beside::Reclaiming => rest_beside(go),
        }
        touch_code();
        // The thread in the background has faults of its own.
        let faults = || match beside {
            Beside::Nothing | Beside::Sealed => faults(),
            _ => threads.iter().map(faults_of).sum(),
        };
        faults();
        let ([given_back, taken], before) = (done_beside(), faults());
        go.store(1, Ordering::Release);
        sleep_until(done);
        // The two threads go on until the thread in the background has had its turn.
        let end = Instant::now() + Duration::from_secs(30);
        let beside_done = || {
            let now = done_beside();
            [now[0] - given_back, now[1] - taken]
        };
        let is_done = || match (beside, beside_done()) {
            (Beside::Nothing | Beside::Sealed, _) => true,
            (Beside::GivingBack, [given_back, _]) => given_back >= 32 << 20,
            (Beside::Reclaiming, [_, taken]) => taken >= 100,
        };
        while !is_done() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        let (after, is_done, [given_back, taken]) = (faults(), is_done(), beside_done());
        println!(
            "operations {OPERATIONS} faults {} refusals {}",
            after - before,
            theap::stats().refusals
        );
        println!(
            "beside: {} MiB given back, {taken} spans taken",
            given_back >> 20
        );
        // A panic would wait for the two threads.
        std::process::exit(i32::from(!is_done));
    });
}

/// One thread prepares blocks of a class, and another one takes all other memory that is free.
fn prepared_class() {
    const BLOCKS: usize = 200_000;
    let (ready, go, done) = (
        &AtomicUsize::new(0),
        &AtomicUsize::new(0),
        &AtomicUsize::new(0),
    );
    assert!(!raw::alloc(40_000).is_null());
    thread::scope(|scope| {
        scope.spawn(move || {
            theap::warm_up_class(300, BLOCKS).unwrap();
            assert!(theap::warm_up_class(usize::MAX, 1).is_err());
            forbid_system_calls();
            ready.fetch_add(1, Ordering::AcqRel);
            wait_for(go, 1);
            for _ in 0..BLOCKS {
                let block = raw::alloc(300);
                assert!(!block.is_null());
                // SAFETY: the block is new and has 300 bytes.
                unsafe { block.write_bytes(1, 300) };
            }
            done.fetch_add(1, Ordering::AcqRel);
            loop {
                std::hint::spin_loop();
            }
        });
        let sleep_until = |counter: &AtomicUsize| {
            while counter.load(Ordering::Acquire) < 1 {
                thread::sleep(Duration::from_millis(1));
            }
        };
        sleep_until(ready);
        theap::seal();
        while !raw::alloc(40_000).is_null() {}
        let refused = theap::stats().refusals;
        faults();
        let before = faults();
        go.store(1, Ordering::Release);
        sleep_until(done);
        println!(
            "class: faults {} refusals {}",
            faults() - before,
            theap::stats().refusals - refused
        );
        std::process::exit(0);
    });
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test steady"]
fn scenario() {
    match child::role().as_deref() {
        Some("steady") => steady(Beside::Nothing),
        Some("sealed") => steady(Beside::Sealed),
        Some("giving back") => steady(Beside::GivingBack),
        Some("reclaiming") => steady(Beside::Reclaiming),
        Some("class") => prepared_class(),
        Some("caught") => {
            forbid_system_calls();
            // SAFETY: the call has no precondition.
            unsafe { libc::getppid() };
        }
        role => panic!("no such scenario: {role:?}"),
    }
}

fn no_fault_and_no_system_call(scenario: &str, line: &str, front: &str, modes: &[&str]) {
    for &pages in modes {
        let mut variables = vec![("THEAP_PAGES", pages), ("THEAP_FRONT", front)];
        if ["giving back", "reclaiming"].contains(&scenario) {
            variables.extend([("THEAP_BACKGROUND", "1"), ("THEAP_DECAY", "500")]);
        }
        let output = child::run(scenario, &variables);
        let (out, err) = (child::text(&output.stdout), child::text(&output.stderr));
        assert!(
            output.status.success(),
            "{pages}: {}\n{out}{err}",
            output.status
        );
        assert!(out.contains(line), "{pages}: {out}");
    }
}

#[test]
fn steady_state_has_no_fault_and_no_system_call() {
    no_fault_and_no_system_call("steady", STEADY, "theap", &["small", "thp"]);
}

#[test]
fn nor_has_it_while_the_background_gives_back() {
    if cfg!(target_env = "musl") {
        return eprintln!("skipped: programs of musl have no warmer");
    }
    no_fault_and_no_system_call("giving back", STEADY, "theap", &["small", "thp"]);
}

#[test]
fn nor_a_call_while_the_background_takes_from_resting_threads() {
    if cfg!(target_env = "musl") {
        return eprintln!("skipped: programs of musl have no warmer");
    }
    // No system call. The two threads touch some pages for the first time still, and again where
    // free pages went: nobody has warmed up the heap, whose memory would then be left alone.
    let line = "operations 50000000 faults";
    no_fault_and_no_system_call("reclaiming", line, "theap", &["small", "thp"]);
}

#[test]
fn nor_has_it_on_pages_of_the_pool() {
    const PAGES: usize = 400;
    if let Some(pool) = hugepages::Pool::take()
        && pool.set(PAGES)
    {
        no_fault_and_no_system_call("steady", STEADY, "theap", &["hugetlb"]);
        if cfg!(not(target_env = "musl")) {
            no_fault_and_no_system_call("giving back", STEADY, "theap", &["hugetlb"]);
        }
        assert!(pool.returns_to(PAGES), "all pages are back in the pool");
    }
}

#[test]
fn a_sealed_heap_has_no_fault_and_no_system_call() {
    no_fault_and_no_system_call("sealed", STEADY, "theap", &["small", "thp"]);
}

#[test]
fn blocks_of_a_prepared_class_take_no_fault_and_no_system_call() {
    let line = "class: faults 0 refusals 0";
    no_fault_and_no_system_call("class", line, "theap", &["small", "thp"]);
}

#[test]
fn nor_has_the_classic_front() {
    no_fault_and_no_system_call("sealed", STEADY, "classic", &["thp"]);
}

#[test]
fn the_filter_catches_a_system_call() {
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(
        child::run("caught", &[]).status.signal(),
        Some(libc::SIGSYS)
    );
}
