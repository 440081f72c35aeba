//! The one binary.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    share_heaps();
    mcp_broker::cli::run(mcp_broker::cli::Cli::parse())
}

/// Has threads share heaps. glibc gives them as many as eight for each core, and what was freed in one is kept for it: what
/// was needed to make the index, say.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "nothing safe calls mallopt(3), and a variable of the environment would be too late")]
fn share_heaps() {
    const HEAPS_MAX: libc::c_int = 4;
    // SAFETY: it takes two numbers, and there is no other thread yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_heaps() {}
