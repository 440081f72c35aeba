//! The log: to standard error, because standard output belongs to the protocol.
//!
//! `--log` (or `MCP_BROKER_LOG`) takes `tracing`'s filters. rmcp writes whole messages at its lower levels, arguments and
//! all, and calls every client that hangs up an error, so it is kept quiet unless it is named.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts logging. What is wrong with the filter is said and ignored.
pub fn start(filter: Option<&str>, format: LogFormat) {
    let wanted = filter.unwrap_or("info");
    let filter = EnvFilter::builder().parse_lossy(if wanted.contains("rmcp") {
        wanted.to_owned()
    } else {
        format!("{wanted},rmcp=error,rmcp::service=off,sse_stream=warn,hyper=warn,tantivy=warn")
    });
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry
            .with(fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false))
            .try_init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(stderr)).try_init(),
    };
    drop(started);
}
