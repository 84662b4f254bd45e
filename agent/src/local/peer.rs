//! Who is at the other end of a Unix socket, as the kernel fixed it when the peer connected.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A peer's user and all its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// The peer of a connected socket.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Self {
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
            groups: groups::supplementary(socket.as_fd().as_raw_fd())?,
        })
    }
}

/// The number of a group that is given by name or by number; none if this system does not have it.
pub fn group_number(group: &str) -> Option<u32> {
    group.parse().ok().or_else(|| groups::by_name(group))
}

/// What rustix has no safe call for.
#[allow(unsafe_code)]
mod groups {
    use std::ffi::CString;
    use std::io;
    use std::os::fd::RawFd;

    /// Linux's NGROUPS_MAX.
    const MOST: usize = 65_536;

    pub(super) fn supplementary(socket: RawFd) -> io::Result<Vec<u32>> {
        let mut groups: Vec<u32> = vec![0; 64];
        loop {
            let mut bytes = (groups.len() * size_of::<u32>()) as libc::socklen_t;
            // SAFETY: the pointer is to `bytes` writable bytes, aligned for gid_t (u32), and the kernel writes at
            // most that many, putting the number it wrote or needs into `bytes`.
            let result = unsafe {
                libc::getsockopt(
                    socket,
                    libc::SOL_SOCKET,
                    libc::SO_PEERGROUPS,
                    groups.as_mut_ptr().cast(),
                    &raw mut bytes,
                )
            };
            let count = bytes as usize / size_of::<u32>();
            if result == 0 {
                groups.truncate(count);
                return Ok(groups);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ERANGE) if count > groups.len() && count <= MOST => groups.resize(count, 0),
                // A kernel before 4.13 cannot say, and QEMU's user emulation has room for one group only and does not
                // say how many there are. Then the primary group alone counts: who is in by another one is kept out.
                Some(libc::ENOPROTOOPT | libc::ERANGE) => return Ok(Vec::new()),
                _ => return Err(error),
            }
        }
    }

    pub(super) fn by_name(name: &str) -> Option<u32> {
        let name = CString::new(name).ok()?;
        let mut buffer = vec![0; 16 * 1024];
        // SAFETY: group is plain data for which all zeros is a valid value.
        let mut group: libc::group = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::group = std::ptr::null_mut();
        // SAFETY: every pointer is to a live value of the type that getgrnam_r expects, and `buffer` has the length
        // that is given; `group` borrows from `buffer`, which outlives the use below.
        let result = unsafe {
            libc::getgrnam_r(name.as_ptr(), &raw mut group, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        (result == 0 && !found.is_null()).then_some(group.gr_gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_who_connected() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&here).unwrap();
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        let mut own: Vec<u32> =
            rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        let mut seen = peer.groups;
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
    }

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        assert_eq!(group_number("root"), Some(0));
        assert_eq!(group_number("4711"), Some(4711));
        assert_eq!(group_number("no-such-group"), None);
    }
}
