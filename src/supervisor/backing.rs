//! What a connection over byte streams stands on: a process, a container, or what runs a container for each call.

use std::time::Duration;

use tokio::{
    io::{AsyncWrite, ReadHalf, SimplexStream},
    process::ChildStdout,
};
use tokio_util::either::Either;

use super::{docker::Container, per_call::Runner, process, process::Process, tail::Tail};

/// A server's output.
pub(crate) type Output = Either<ChildStdout, ReadHalf<SimplexStream>>;

/// A server's output and input.
pub(crate) type Streams = (Output, Box<dyn AsyncWrite + Send + Unpin>);

pub(crate) enum Backing {
    Process(Process),
    Container(Container),
    PerCall(Runner),
}

impl Backing {
    pub(crate) fn tail(&self) -> &Tail {
        match self {
            Self::Process(process) => process.tail(),
            Self::Container(container) => container.tail(),
            Self::PerCall(runner) => runner.tail(),
        }
    }

    /// Waits for the end, for at most `limit`, and says how it ended.
    pub(crate) async fn exited(&mut self, limit: Duration) -> Option<String> {
        match self {
            Self::Process(process) => process.exited(limit).await.map(|status| process::describe(Some(status))),
            Self::Container(container) => container.exited(limit).await,
            Self::PerCall(_) => None,
        }
    }

    /// Ends what runs, whose input is closed already, and removes what it leaves. Says how it ended.
    pub(crate) async fn stop(self, grace: Duration) -> String {
        match self {
            Self::Process(process) => process::describe(process.stop(grace).await),
            Self::Container(container) => container.stop(grace).await,
            Self::PerCall(runner) => runner.stop(grace).await,
        }
    }
}
