//! `make bench`: what the broker costs, measured beside the same thing without it.
//!
//! Every figure is a pair taken in turn, A B A B …, in one run, so that a machine that changes its speed changes both. The
//! clients are as thin as can be (a line written and a line read; one kept-alive HTTP connection), so that what is measured
//! is not theirs. Nothing is asserted: budgets are printed beside the figures for a person to judge.
//!
//! Names of parts as arguments run these parts only: `cargo bench --bench load -- latency search`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures are what it is for")]
#![expect(unreachable_pub, reason = "its modules are seen by nobody else")]

mod broker;
mod clients;
mod containers;
mod figures;
mod latency;
mod memory;
mod scripts;
mod search;
mod start;
mod store;
mod throughput;

use figures::Report;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    runtime.block_on(async {
        if wants("latency") {
            latency::run(&mut report).await?;
        }
        if wants("throughput") {
            throughput::run(&mut report).await?;
        }
        if wants("memory") {
            memory::run(&mut report).await?;
        }
        if wants("search") {
            search::run(&mut report).await?;
        }
        if wants("scripts") {
            scripts::run(&mut report).await?;
        }
        if wants("store") {
            store::run(&mut report).await?;
        }
        if wants("start") {
            start::run(&mut report).await?;
        }
        if wants("containers") {
            containers::run(&mut report).await?;
        }
        anyhow::Ok(())
    })?;
    report.print();
    Ok(())
}
