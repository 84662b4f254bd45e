//! What the allocator is told.
#![allow(unsafe_code)]

/// A buffer of so many bytes is given back to the system as soon as it is dropped.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 128 * 1024;

/// Has large buffers given back. By itself glibc does that only until the first such buffer was dropped: then it holds
/// buffers of that size in its heap, where what lies between them keeps their room. Other allocators are as they should be.
pub fn give_back_large() {
    // SAFETY: mallopt changes a number of the allocator's, under its lock.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}
