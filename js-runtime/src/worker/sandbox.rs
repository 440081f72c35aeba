//! The lock: what the worker may ask of the kernel once it has booted, and how much.
//!
//! On Linux a filter of system calls (seccomp) allows reading and writing what is open, memory, time and sleeping. A file,
//! a socket, a process, a signal to anybody else: the kernel ends the worker. The filter cannot be taken off again, and
//! nothing that is started would be without it (no new privileges). Limits of the kernel bound memory, time on a CPU, and
//! the number of files and processes. Other systems have the limits only.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// What the program needs beside the engine's heap.
#[cfg(not(feature = "v8"))]
const BESIDE_HEAP_BYTES: u64 = 192 << 20;
/// V8's compilers, and room to collect garbage in. What it only reserves is not counted.
#[cfg(feature = "v8")]
const BESIDE_HEAP_BYTES: u64 = 512 << 20;

/// What holds a worker on this machine, and what does not because the kernel lacks it.
#[must_use]
pub fn offered() -> Vec<(&'static str, bool)> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    vec![
        ("limits of memory, time, files and core dumps", true),
        ("an empty environment and no open files", true),
        ("no new privileges", cfg!(target_os = "linux")),
        ("a filter of system calls (seccomp)", actions.split_whitespace().any(|action| action == "kill_process")),
    ]
}

/// Locks this process in, for good.
///
/// # Errors
///
/// When the kernel does not do it. Then nothing of a script may run.
pub fn lock(heap_bytes: u64, cpu_seconds: u64) -> io::Result<()> {
    let limit = |resource, value: u64| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(io::Error::from)
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Data, heap_bytes.saturating_add(BESIDE_HEAP_BYTES))?;
    // At the first the kernel says so (SIGXCPU), at the second it ends the process.
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds.saturating_add(1)) })?;
    #[cfg(target_os = "linux")]
    filter::apply()?;
    Ok(())
}

#[cfg(target_os = "linux")]
mod filter {
    use std::{collections::BTreeMap, io};

    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };

    /// Always allowed: reading and writing what is open, memory, time, waiting, ending.
    const ALLOWED: [i64; 30] = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_futex,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_ctl,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_madvise,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_gettimeofday,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getrandom,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_getrusage,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_rseq,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    /// What only older processors' kernels have.
    #[cfg(target_arch = "x86_64")]
    const ALSO_ALLOWED: [i64; 2] = [libc::SYS_epoll_wait, libc::SYS_time];
    #[cfg(not(target_arch = "x86_64"))]
    const ALSO_ALLOWED: [i64; 0] = [];

    pub(super) fn apply() -> io::Result<()> {
        let program = program().map_err(io::Error::other)?;
        // Sets no-new-privileges as well, and covers every thread there is.
        seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
    }

    fn program() -> Result<BpfProgram, seccompiler::BackendError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.iter().chain(&ALSO_ALLOWED).map(|call| (*call, Vec::new())).collect();
        // Signals to itself: how a program that is out of memory ends.
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![equals(0, own)?])?]);
        // Whether a descriptor is open: what a debug build asks before it closes one.
        let is_open = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 1)?;
        rules.insert(libc::SYS_fcntl, vec![SeccompRule::new(vec![is_open])?]);
        // Memory of its own, and none that is made executable: the engine interprets. V8 compiles.
        let no_file = || SeccompCondition::new(4, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(u32::MAX));
        let not_executable = || {
            let executable = 4;
            SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)
        };
        if cfg!(feature = "v8") {
            rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![no_file()?])?]);
            rules.insert(libc::SYS_mprotect, Vec::new());
            rules.insert(libc::SYS_pkey_mprotect, Vec::new());
        } else {
            rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![no_file()?, not_executable()?])?]);
            rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![not_executable()?])?]);
        }
        let architecture = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?.try_into()
    }

    fn equals(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
    }
}
