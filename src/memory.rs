//! What is kept of memory that nobody uses.
//!
//! glibc gives threads as many as eight heaps for each core, keeps what was freed in each for it, and once a large buffer was
//! freed keeps such buffers too: all that was needed to make the index, say, for as long as the broker runs. The program's own
//! file is mapped as it is read, and what only the start needed stays mapped likewise, as long as the machine has memory. Other
//! systems are left as they are.

use std::time::Duration;

use tokio::sync::watch;

/// How often it is asked whether there was a call. Nobody uses a broker that was not called between two times, a minute after
/// the last call at the latest.
const EVERY: Duration = Duration::from_secs(30);

/// Gives memory back when there was no call for a minute, as long as calls may come: `calls` changes with each.
pub(crate) async fn tend(calls: watch::Receiver<()>) {
    whenever_quiet(calls, async || tokio::time::sleep(EVERY).await, give_back).await;
}

/// Calls `then` once for each time in which `a_while` has passed without a call.
async fn whenever_quiet(mut calls: watch::Receiver<()>, mut a_while: impl AsyncFnMut(), mut then: impl FnMut()) {
    loop {
        calls.mark_unchanged();
        a_while().await;
        if calls.has_changed().unwrap_or_default() {
            continue;
        }
        then();
        if calls.changed().await.is_err() {
            return;
        }
    }
}

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

/// Gives back what is free in the middle of heaps, a page at a time, and what is mapped of the program's own file: what is
/// still in use of that is mapped again as it is used, from the system's cache. It takes milliseconds, in which others wait
/// for memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "nothing safe calls malloc_trim(3) and dl_iterate_phdr(3)")]
pub(crate) fn give_back() {
    // SAFETY: the first takes a number, and locks each heap that it looks at. The second calls what it is given, with what
    // that expects.
    unsafe {
        libc::malloc_trim(0);
        libc::dl_iterate_phdr(Some(unmap_what_is_read), std::ptr::null_mut());
    };
}

/// Is called with the program first, and asks for no library after it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the loader's table is a pointer and a length, and madvise(2) takes an address")]
unsafe extern "C" fn unmap_what_is_read(
    program: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    const ENOUGH: libc::c_int = 1;
    let page = rustix::param::page_size();
    // SAFETY: the loader's table and the program's headers are there for as long as it runs.
    let (base, segments) = unsafe {
        let program = &*program;
        (program.dlpi_addr, std::slice::from_raw_parts(program.dlpi_phdr, usize::from(program.dlpi_phnum)))
    };
    for segment in
        segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_W == 0)
    {
        let start = (base + segment.p_vaddr) as usize;
        let end = (start + segment.p_memsz as usize) / page * page;
        let start = start.next_multiple_of(page);
        // SAFETY: whole pages of one segment that nothing writes: they are what the file says, whenever they are read.
        unsafe { libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_DONTNEED) };
    }
    ENOUGH
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_small() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn it_is_told_once_when_a_while_has_passed_without_a_call() {
        let (called, calls) = watch::channel(());
        let (passed, mut whiles) = mpsc::channel(1);
        let (told, mut quiet) = mpsc::unbounded_channel();
        let a_while = async || whiles.recv().await.unwrap_or_default();
        let telling = whenever_quiet(calls, a_while, move || told.send(()).unwrap());
        let calling = async move {
            for _ in 0..3 {
                passed.reserve().await.unwrap();
                called.send_replace(());
                passed.send(()).await.unwrap();
            }
            assert!(quiet.is_empty());
            passed.send(()).await.unwrap();
            quiet.recv().await.unwrap();
            called.send_replace(());
            passed.send(()).await.unwrap();
            quiet.recv().await.unwrap();
            assert!(quiet.is_empty());
        };
        tokio::join!(telling, calling);
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn what_is_read_of_the_program_is_given_back_and_still_there() {
        let mapped = || -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
        };
        let before = mapped();
        give_back();
        let after = mapped();
        assert!(after < before, "{after} KiB after {before} KiB");
    }
}
