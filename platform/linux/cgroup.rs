//! How much memory the control groups of this process leave it.
//!
//! A limit holds for a group and all below it, so the least on the way up counts. In a container the path that the
//! kernel tells may lie beyond what is mounted; then the mount's root is the container's group.

use super::file;

/// Where the controller is mounted on every system that mounts it, and its limit, in version 1 and 2.
const FIRST: (&[u8], &[u8]) = (b"/sys/fs/cgroup/memory", b"/memory.limit_in_bytes");
const SECOND: (&[u8], &[u8]) = (b"/sys/fs/cgroup", b"/memory.max");

/// The least limit in bytes; `u64::MAX` without one.
pub fn memory_limit() -> u64 {
    let mut buffer = [0; 4096];
    let groups = file::read(b"/proc/self/cgroup", &mut buffer).unwrap_or(&[]);
    let limits = groups.split(|&byte| byte == b'\n').filter_map(|line| {
        // A number, the controllers, the path; of version 2 without controllers.
        let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let mut names = controllers.split(|&byte| byte == b',');
        if controllers.is_empty() {
            Some(least(SECOND, path))
        } else {
            names
                .any(|name| name == b"memory")
                .then(|| least(FIRST, path))
        }
    });
    limits.min().unwrap_or(u64::MAX)
}

/// The least limit of a group and those above it.
fn least((root, limit): (&[u8], &[u8]), mut path: &[u8]) -> u64 {
    let mut least = u64::MAX;
    loop {
        let group = path.strip_suffix(b"/").unwrap_or(path);
        least = least.min(limit_at([root, group, limit]).unwrap_or(u64::MAX));
        match group.iter().rposition(|&byte| byte == b'/') {
            Some(end) => path = &group[..end],
            None => return least,
        }
    }
}

/// The number in a file, whose path is these parts; `None` if there is no such file, or "max" in it.
fn limit_at(parts: [&[u8]; 3]) -> Option<u64> {
    let (mut path, mut len) = ([0; 1024], 0);
    for part in parts {
        path.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    let mut buffer = [0; 32];
    let text = file::read(&path[..len], &mut buffer)?;
    core::str::from_utf8(text).ok()?.trim_end().parse().ok()
}
