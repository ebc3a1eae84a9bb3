//! Pressure on memory, as the kernel measures it (PSI): the part of the time for which tasks wait
//! for memory that was reclaimed. A trigger is a line written to a file of pressure; as long as the
//! file is open, `poll` tells whether the trigger's threshold was exceeded since the last look.
#![allow(unsafe_code)] // Writes to a file and polls it, by system calls.

use rustix::fd::IntoRawFd;
use rustix::fs::{Mode, OFlags};

use super::call::call;
use super::{cgroup, file};
use crate::Pressure;

/// Some task waits for 200 ms within 2 s: the shortest window that needs no privilege.
const TRIGGER: &[u8] = b"some 200000 2000000\0";

/// See [`crate::Os::watch_pressure`].
pub fn watch() -> Pressure {
    let group = file::with_room(|room| {
        let (text, path) = room.split_at_mut(room.len() / 2);
        cgroup::pressure_file(text, path).and_then(trigger)
    });
    group
        .or_else(|| trigger(c"/proc/pressure/memory"))
        .map_or(Pressure::NONE, Pressure)
}

/// The descriptor of a file to which the trigger was written; `None` if the file takes none.
fn trigger(path: &core::ffi::CStr) -> Option<i32> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    rustix::io::write(&file, TRIGGER).ok()?;
    Some(file.into_raw_fd())
}

/// See [`crate::Os::is_pressed`].
pub fn is_pressed(pressure: &Pressure) -> bool {
    let mut poll = libc::pollfd {
        fd: pressure.0,
        events: libc::POLLPRI,
        revents: 0,
    };
    // SAFETY: one structure, which lives during the call; the call does not wait. A descriptor that
    // the program has given another file is asked for nothing but this.
    let told = unsafe { call(libc::SYS_poll, [(&raw mut poll).addr(), 1, 0]) };
    told.is_ok() && poll.revents & libc::POLLPRI != 0 && poll.revents & libc::POLLERR == 0
}
