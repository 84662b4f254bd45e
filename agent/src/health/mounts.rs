//! File systems on disks, from `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
//!
//! Read here and not through sysinfo for two reasons: it would call statvfs on network file systems, which hangs
//! when their server is gone, and it takes read-only from the mount. Only the superblock's own options tell a
//! disk that the kernel has stopped writing to from a mount that systemd made read-only for our sandbox.

use std::collections::BTreeMap;
use std::path::Path;

/// A machine with more mounts than fit is no endpoint.
const FILE_BYTES: u64 = 256 * 1024;

/// File systems that are full and read-only by their nature.
const IMAGES: [&str; 4] = ["squashfs", "erofs", "iso9660", "cramfs"];

/// A file system on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: String,
    pub(super) file_system: String,
    pub(super) read_only: bool,
}

/// What is mounted now.
pub(super) fn read() -> Vec<Mount> {
    let bytes = vigil_durable::read_bounded(Path::new("/proc/self/mountinfo"), FILE_BYTES);
    parse(&String::from_utf8_lossy(&bytes.ok().flatten().unwrap_or_default()))
}

/// One for each device; of several mounts of a device, the whole file system before a bind mount of a part, then
/// the shortest path.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    let mut devices: BTreeMap<String, (bool, usize, Mount)> = BTreeMap::new();
    for (device, root, mount) in text.lines().filter_map(parse_line) {
        let rank = (root != "/", mount.path.len());
        match devices.get(&device) {
            Some((part, length, _)) if (*part, *length) <= rank => {}
            _ => drop(devices.insert(device, (rank.0, rank.1, mount))),
        }
    }
    let mut mounts: Vec<Mount> = devices.into_values().map(|(_, _, mount)| mount).collect();
    mounts.sort_by(|a, b| a.path.cmp(&b.path));
    mounts.truncate(super::LIST);
    mounts
}

fn parse_line(line: &str) -> Option<(String, &str, Mount)> {
    let (mounted, origin) = line.split_once(" - ")?;
    let mut mounted = mounted.split_whitespace().skip(3);
    let (root, path) = (mounted.next()?, mounted.next()?);
    let mut origin = origin.split_whitespace();
    let (file_system, source, options) = (origin.next()?, origin.next()?, origin.next()?);
    let on_disk = source.starts_with("/dev/") || source.starts_with("ubi");
    if !on_disk || IMAGES.contains(&file_system) || !path.starts_with('/') {
        return None;
    }
    let read_only = options.split(',').any(|option| option == "ro");
    let mount = Mount { path: unescape(path), file_system: file_system.to_owned(), read_only };
    Some((source.to_owned(), root, mount))
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOUNTINFO: &str = "\
22 27 0:20 / /proc rw,nosuid - proc proc rw
27 1 179:2 / / ro,relatime - ext4 /dev/mmcblk0p2 rw,errors=remount-ro
30 27 0:25 / /run rw - tmpfs tmpfs rw,size=100k
31 27 179:4 /var /var rw,relatime shared:5 master:2 - ext4 /dev/mmcblk0p4 ro
32 27 179:4 / /data\\040disk rw - ext4 /dev/mmcblk0p4 ro
33 27 0:99 / /mnt/nas rw - nfs4 nas:/export rw
34 27 7:0 / /snap ro - squashfs /dev/loop0 ro
35 27 179:2 /etc /srv rw - ext4 /dev/mmcblk0p2 rw
";

    #[test]
    fn each_disk_is_listed_once_with_the_superblocks_read_only_flag() {
        let mount = |path: &str, read_only| Mount {
            path: path.to_owned(),
            file_system: "ext4".to_owned(),
            read_only,
        };
        assert_eq!(parse(MOUNTINFO), [mount("/", false), mount("/data disk", true)]);
    }

    #[test]
    fn truncated_lines_are_passed_over() {
        for end in 0..MOUNTINFO.len() {
            parse(&MOUNTINFO[..end]);
        }
        assert!(parse("22 27 179:2 / / rw - ext4").is_empty());
    }

    #[test]
    fn a_flood_of_mounts_is_bounded() {
        let line = |n| format!("1 1 8:{n} / /m{n} rw - ext4 /dev/sd{n} rw");
        let flood = (0..1000).map(line).collect::<Vec<_>>().join("\n");
        assert_eq!(parse(&flood).len(), crate::health::LIST);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "[ -~\n\\\\]{0,300}") {
            parse(&text);
        }
    }
}
