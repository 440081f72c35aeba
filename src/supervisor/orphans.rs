//! Finding processes by the label in their environment, and ending them.
//!
//! Every server that runs as a process carries `MCP_BROKER_INSTANCE=<data folder>/<session>/<server>/<instance>`, and what
//! it starts inherits it. So the broker can end what an instance left behind, and, at its start, what a broker before it on
//! the same data folder left behind because it was killed. On systems without `/proc` nothing is found.

use rustix::process::{Pid, Signal, getpgid, getpid, kill_process, kill_process_group};

/// The environment variable with the label.
pub const VARIABLE: &str = "MCP_BROKER_INSTANCE";

/// A process that forks while it is being ended is looked for again, so often.
const PASSES_MAX: usize = 5;

/// Ends every process whose label begins with `label`, with its process group. Says how many there were.
pub(crate) fn kill_labelled(label: &str) -> usize {
    let mut killed = 0;
    for _pass in 0..PASSES_MAX {
        let found = labelled(label);
        if found.is_empty() {
            break;
        }
        killed += found.len();
        for pid in found {
            kill(pid);
        }
    }
    killed
}

/// Every process whose label begins with `label`.
#[must_use]
pub fn labelled(label: &str) -> Vec<Pid> {
    let wanted = format!("{VARIABLE}={label}").into_bytes();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| carries(*pid, &wanted))
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != getpid())
        .collect()
}

fn carries(pid: i32, wanted: &[u8]) -> bool {
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(wanted)))
}

/// Ends a process and its group, unless that group is the broker's own.
fn kill(pid: Pid) {
    let own = getpgid(None).ok();
    match getpgid(Some(pid)) {
        Ok(group) if Some(group) != own => {
            let _ = kill_process_group(group, Signal::KILL);
        }
        _ => {}
    }
    let _ = kill_process(pid, Signal::KILL);
}
