//! The two ioctls of a flash chip that have no safe wrapper anywhere: unlock and erase (include/uapi/mtd/mtd-abi.h).
//! What kind of chip it is, sysfs tells without one.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};

/// `struct erase_info_user`.
#[repr(C)]
struct EraseInfo {
    start: u32,
    length: u32,
}

/// Erases `length` bytes at `start` to 0xff; both are multiples of the chip's sector size.
pub(super) fn erase(mtd: &File, start: u64, length: u64) -> io::Result<()> {
    let too_far = |_| io::Error::new(io::ErrorKind::InvalidInput, "beyond 4 GiB of flash");
    let info = || -> io::Result<EraseInfo> {
        Ok(EraseInfo {
            start: u32::try_from(start).map_err(too_far)?,
            length: u32::try_from(length).map_err(too_far)?,
        })
    };
    // Few chips lock their sectors, and the others say that they cannot.
    // SAFETY: MEMUNLOCK (_IOW('M', 6, struct erase_info_user)) reads that structure, which lives until it returns.
    match unsafe { ioctl(mtd, Setter::<{ opcode::write::<EraseInfo>(b'M', 6) }, _>::new(info()?)) } {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    // SAFETY: MEMERASE (_IOW('M', 2, struct erase_info_user)) reads that structure, which lives until it returns.
    unsafe { ioctl(mtd, Setter::<{ opcode::write::<EraseInfo>(b'M', 2) }, _>::new(info()?))? };
    Ok(())
}
