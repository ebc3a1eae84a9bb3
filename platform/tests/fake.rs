//! The fake injects the failures that a test orders, and no others.
#![cfg(feature = "fake")]
#![allow(unsafe_code, missing_docs)] // The contract's functions are unsafe.

use theap_platform::{Call, Cpu, Error, Fake, HUGE, Line, NodeId, Os, PAGE, PageMode, Topology};

fn fake() -> (&'static Fake, Os) {
    let fake = Box::leak(Box::new(Fake::new()));
    (fake, Os::faked(fake))
}

#[test]
fn without_orders_it_changes_nothing() {
    let (fake, os) = fake();
    let addr = os.reserve(4 * HUGE, HUGE).unwrap();
    // SAFETY: the range was reserved above, and only this test uses the memory.
    unsafe {
        os.commit(addr, PAGE).unwrap();
        os.map(addr + HUGE, 2 * HUGE, PageMode::Small, None)
            .unwrap();
        os.populate(addr + HUGE, HUGE).unwrap();
        *((addr + HUGE) as *mut u8) = 4;
        os.move_pages(addr + HUGE, addr + 2 * HUGE, HUGE).unwrap();
        assert_eq!(*((addr + 2 * HUGE) as *const u8), 4);
        os.purge(addr + HUGE, 2 * HUGE).unwrap();
        os.unmap(addr + HUGE, 2 * HUGE, PageMode::Small).unwrap();
        os.unreserve(addr, 4 * HUGE);
    }
    assert_eq!((fake.calls(), fake.failed()), (7, 0));
    assert_eq!(os.topology().nodes(), Os::LINUX.topology().nodes());
    assert!(os.now() >= Os::LINUX.now() - 60_000_000_000);
    let path = |os: Os| os.env(b"PATH", |value| value.map(<[u8]>::to_vec));
    assert_eq!(path(os), path(Os::LINUX));
}

#[test]
fn the_nth_call_fails_once() {
    let (fake, os) = fake();
    let addr = os.reserve(HUGE, HUGE).unwrap();
    // SAFETY: the range was reserved above.
    let commit = || unsafe { os.commit(addr, PAGE) };
    fake.fail_nth(1);
    assert_eq!(
        [commit(), commit(), commit()],
        [Ok(()), Err(Error::NoMemory), Ok(())]
    );
    fake.fail_nth(0);
    assert_eq!([commit(), commit()], [Err(Error::NoMemory), Ok(())]);
    fake.fail_from(1);
    let failed = Err(Error::NoMemory);
    assert_eq!([commit(), commit(), commit()], [Ok(()), failed, failed]);
    fake.heal();
    assert_eq!(commit(), Ok(()));
    assert_eq!((fake.calls(), fake.failed()), (10, 0));
}

#[test]
fn one_kind_of_call_fails() {
    let (fake, os) = fake();
    fake.fail_only(Call::Map);
    fake.fail_with(Error::Lost);
    fake.fail_nth(1);
    let addr = os.reserve(4 * HUGE, HUGE).unwrap();
    // SAFETY: the range was reserved above.
    unsafe {
        os.map(addr, HUGE, PageMode::Small, None).unwrap();
        os.purge(addr, HUGE).unwrap();
        assert_eq!(
            os.map(addr + HUGE, HUGE, PageMode::Small, None),
            Err(Error::Lost)
        );
        os.map(addr + HUGE, HUGE, PageMode::Small, None).unwrap();
    }
    assert_eq!(fake.failed(), 1);
}

#[test]
fn a_mode_is_refused() {
    let (fake, os) = fake();
    let addr = os.reserve(HUGE, HUGE).unwrap();
    fake.refuse(PageMode::Hugetlb);
    fake.refuse(PageMode::Thp);
    // SAFETY: the range was reserved above, and a refusal leaves it so.
    unsafe {
        let map = |mode| os.map(addr, HUGE, mode, None);
        assert_eq!(map(PageMode::Hugetlb), Err(Error::NoHugepages));
        assert_eq!(map(PageMode::Thp), Err(Error::Unsupported));
        assert_eq!(map(PageMode::Small), Ok(()));
    }
}

#[test]
fn a_binding_fails_or_is_recorded() {
    let (fake, os) = fake();
    let topology = Topology::from_parts(&[(0, 3, 0), (4, 7, 9)]);
    fake.set_topology(Box::leak(Box::new(topology)));
    assert_eq!(os.topology().nodes(), 2);
    assert_eq!(os.topology().kernel_node(1), NodeId(9));
    let addr = os.reserve(4 * HUGE, HUGE).unwrap();
    // SAFETY: the range was reserved above. The fake only records the node 9, which no machine
    // needs to have.
    unsafe {
        fake.fail_only(Call::Bind);
        fake.fail_nth(0);
        let bound = os.map(addr, 2 * HUGE, PageMode::Small, Some(NodeId(9)));
        assert_eq!(bound, Err(Error::Other(libc::EPERM)));
        assert_eq!(fake.bound(addr), None);
        os.map(addr, 2 * HUGE, PageMode::Small, Some(NodeId(9)))
            .unwrap();
        os.map(addr + 2 * HUGE, HUGE, PageMode::Small, None)
            .unwrap();
    }
    assert_eq!(fake.bound(addr + 2 * HUGE - 1), Some(NodeId(9)));
    assert_eq!(fake.bound(addr + 2 * HUGE), None);
    assert_eq!(os.node_of(addr), Ok(NodeId(9)));
    // SAFETY: the range was mapped above, and nobody uses it.
    unsafe { os.unmap(addr, HUGE, PageMode::Small) }.unwrap();
    assert_eq!(
        (fake.bound(addr), fake.bound(addr + HUGE)),
        (None, Some(NodeId(9)))
    );
}

#[test]
fn cpu_clock_and_environment_are_told() {
    let (fake, os) = fake();
    fake.set_cpu(9999);
    assert_eq!(os.current_cpu(), Cpu(9999));
    let elsewhere = std::thread::spawn(move || os.current_cpu()).join().unwrap();
    assert_ne!(elsewhere, Cpu(9999));
    fake.set_now(1000);
    fake.advance(5);
    assert_eq!(os.now(), 1005);
    fake.set_env(b"THEAP_X", Some(b"1"));
    os.env(b"THEAP_X", |value| assert_eq!(value, Some(&b"1"[..])));
    fake.set_env(b"THEAP_X", None);
    fake.set_env(b"PATH", None);
    os.env(b"THEAP_X", |value| assert_eq!(value, None));
    os.env(b"PATH", |value| assert_eq!(value, None));
}

#[test]
fn messages_are_captured() {
    let (fake, os) = fake();
    Line::new().str("first").send(os);
    Line::new().str("second").send(os);
    let mut buffer = [0; 64];
    assert_eq!(fake.read_stderr(&mut buffer), b"first\nsecond\n");
    fake.clear_stderr();
    assert_eq!(fake.read_stderr(&mut buffer), b"");
    for _ in 0..100 {
        os.stderr(&[b'x'; 1000]);
    }
    assert_eq!(fake.read_stderr(&mut [0; 32 << 10]).len(), 16 << 10);
}
