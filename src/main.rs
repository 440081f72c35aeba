//! The one binary.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    mcp_broker::memory::keep_small();
    mcp_broker::cli::run(mcp_broker::cli::Cli::parse())
}
