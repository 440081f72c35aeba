//! What the allocator keeps of memory that nobody uses.
//!
//! glibc gives threads as many as eight heaps for each core, keeps what was freed in each for it, and once a large buffer was
//! freed keeps such buffers too: all that was needed to make the index, say, for as long as the broker runs. Other systems'
//! allocators are left as they are.

/// Has threads share heaps, and large buffers given back when they are freed. To be called first, while there is one thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "nothing safe calls mallopt(3), and a variable of the environment would be too late")]
pub fn keep_small() {
    const HEAPS_MAX: libc::c_int = 4;
    /// Buffers of this size are mapped each by itself. It is glibc's own number, which is not raised once it is set.
    const MAPPED_BYTES_MIN: libc::c_int = 128 * 1024;
    /// How much may be free at the end of a heap.
    const FREE_BYTES_MAX: libc::c_int = 512 * 1024;
    // SAFETY: each takes two numbers, and there is no other thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_BYTES_MAX);
    };
}

/// Gives back what is free in the middle of heaps, a page at a time. It takes milliseconds, in which others wait for memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "nothing safe calls malloc_trim(3)")]
pub(crate) fn give_back() {
    // SAFETY: it takes a number, and locks each heap that it looks at.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_small() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}
