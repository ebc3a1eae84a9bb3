//! The memory, and the hugetlb pages, that the control groups of this process leave it.
//!
//! A limit holds for a group and all groups below it, so the lowest limit on the way up counts. In
//! a container the path that the kernel tells may lie outside of the mounted tree; then the mount's
//! root is the container's group.

use core::ffi::CStr;

use super::file;

/// A controller of control groups.
struct Controller {
    name: &'static [u8],
    /// The directory where every system with version 1 mounts it.
    mount: &'static [u8],
    /// The controller's files in version 1.
    first: Files,
    /// The controller's files in version 2.
    second: Files,
}

/// The files of a group.
struct Files {
    /// The file with the limit.
    limit: &'static [u8],
    /// The file with the bytes in use; without one they count as 0.
    used: Option<&'static [u8]>,
    /// The file with a figure of what caches hold of files, and the figure's name. The kernel drops
    /// it where the group needs memory, so it does not count as used.
    cached: Option<(&'static [u8], &'static [u8])>,
}

/// The directories where systems mount version 2: alone, and beside version 1.
const SECOND: [&[u8]; 2] = [b"/sys/fs/cgroup", b"/sys/fs/cgroup/unified"];

const MEMORY: Controller = Controller {
    name: b"memory",
    mount: b"/sys/fs/cgroup/memory",
    first: Files {
        limit: b"/memory.limit_in_bytes",
        used: None,
        cached: None,
    },
    second: Files {
        limit: b"/memory.max",
        used: None,
        cached: None,
    },
};

/// The memory that the groups have not used yet.
const MEMORY_LEFT: Controller = Controller {
    name: MEMORY.name,
    mount: MEMORY.mount,
    first: Files {
        limit: MEMORY.first.limit,
        used: Some(b"/memory.usage_in_bytes"),
        cached: Some((b"/memory.stat", b"total_inactive_file ")),
    },
    second: Files {
        limit: MEMORY.second.limit,
        used: Some(b"/memory.current"),
        cached: Some((b"/memory.stat", b"inactive_file ")),
    },
};

const HUGETLB: Controller = Controller {
    name: b"hugetlb",
    mount: b"/sys/fs/cgroup/hugetlb",
    first: Files {
        limit: b"/hugetlb.2MB.limit_in_bytes",
        used: Some(b"/hugetlb.2MB.usage_in_bytes"),
        cached: None,
    },
    second: Files {
        limit: b"/hugetlb.2MB.max",
        used: Some(b"/hugetlb.2MB.current"),
        cached: None,
    },
};

/// The second limit of hugetlb pages: it counts pages that mappings were promised, touched or not.
const HUGETLB_RESERVED: Controller = Controller {
    name: b"hugetlb",
    mount: b"/sys/fs/cgroup/hugetlb",
    first: Files {
        limit: b"/hugetlb.2MB.rsvd.limit_in_bytes",
        used: Some(b"/hugetlb.2MB.rsvd.usage_in_bytes"),
        cached: None,
    },
    second: Files {
        limit: b"/hugetlb.2MB.rsvd.max",
        used: Some(b"/hugetlb.2MB.rsvd.current"),
        cached: None,
    },
};

/// The lowest limit of memory in bytes; `u64::MAX` without a limit.
pub fn memory_limit() -> u64 {
    left(&MEMORY)
}

/// Bytes of memory that the groups leave now; `u64::MAX` without a limit.
pub fn memory_left() -> u64 {
    left(&MEMORY_LEFT)
}

/// The file of this process's group, in version 2, that tells of pressure on memory. The arrays are
/// room for texts.
pub fn pressure_file<'a>(text: &mut [u8], room: &'a mut [u8]) -> Option<&'a CStr> {
    let groups = file::read(b"/proc/self/cgroup", text)?;
    let mut lines = groups.split(|&byte| byte == b'\n');
    let group = lines.find_map(|line| line.strip_prefix(b"0::"))?;
    let group = group.strip_suffix(b"/").unwrap_or(group);
    Some(path_of([SECOND[0], group, b"/memory.pressure"], room)?.0)
}

/// Bytes of hugetlb pages of 2 MiB that the process may still take; `u64::MAX` without a limit.
pub fn hugetlb_left() -> u64 {
    left(&HUGETLB).min(left(&HUGETLB_RESERVED))
}

/// The bytes that the groups of this process leave it, by one controller; `u64::MAX` without a
/// limit.
fn left(controller: &Controller) -> u64 {
    file::with_room(|room| {
        let (text, path) = room.split_at_mut(room.len() / 2);
        let groups = file::read(b"/proc/self/cgroup", text).unwrap_or(&[]);
        least_of(groups, controller, path)
    })
}

/// The bytes that the groups of this text leave, by one controller. `room` is for paths.
fn least_of(groups: &[u8], controller: &Controller, room: &mut [u8]) -> u64 {
    let limits = groups.split(|&byte| byte == b'\n').filter_map(|line| {
        // A line has a number, the controllers and the path; in version 2 it has no controllers.
        let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let mut names = controllers.split(|&byte| byte == b',');
        if controllers.is_empty() {
            // The root of a whole tree has no limit: only a container's root is worth a look.
            let roots = SECOND.into_iter().take(if path == b"/" { 1 } else { 2 });
            roots
                .map(|root| least(root, &controller.second, path, room))
                .min()
        } else {
            names
                .any(|name| name == controller.name)
                .then(|| least(controller.mount, &controller.first, path, room))
        }
    });
    limits.min().unwrap_or(u64::MAX)
}

/// The fewest bytes that a group or one of the groups above it leaves.
fn least(root: &[u8], files: &Files, mut path: &[u8], room: &mut [u8]) -> u64 {
    let mut least = u64::MAX;
    loop {
        let group = path.strip_suffix(b"/").unwrap_or(path);
        if let Some(limit) = number_in([root, group, files.limit], room) {
            least = least.min(limit.saturating_sub(used_in(root, group, files, room)));
        }
        match group.iter().rposition(|&byte| byte == b'/') {
            Some(end) => path = &group[..end],
            None => return least,
        }
    }
}

/// The bytes that a group uses, but for what the kernel can drop of them.
fn used_in(root: &[u8], group: &[u8], files: &Files, room: &mut [u8]) -> u64 {
    let used = (files.used).and_then(|used| number_in([root, group, used], room));
    let cached = files.cached.and_then(|(name, figure)| {
        let (path, text) = path_of([root, group, name], room)?;
        file::field(file::read_at(path, text)?, figure)
    });
    (used.unwrap_or(0)).saturating_sub(cached.unwrap_or(0) as u64)
}

/// The number in the file whose path has these parts; `None` if there is no such file, or if it
/// says "max".
fn number_in(parts: [&[u8]; 3], room: &mut [u8]) -> Option<u64> {
    let mut buffer = [0; 32];
    let text = file::read_at(path_of(parts, room)?.0, &mut buffer)?;
    core::str::from_utf8(text).ok()?.trim_end().parse().ok()
}

/// The path that has these parts, and the room behind it.
fn path_of<'a>(parts: [&[u8]; 3], room: &'a mut [u8]) -> Option<(&'a CStr, &'a mut [u8])> {
    let mut len = 0;
    for part in parts {
        room.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    *room.get_mut(len)? = 0;
    let (path, rest) = room.split_at_mut(len + 1);
    Some((CStr::from_bytes_with_nul(path).ok()?, rest))
}
