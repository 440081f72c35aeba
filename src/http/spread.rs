//! Connections, each of them served on one shard from its beginning to its end.

use std::{io, net};

use axum::{Router, serve::Listener};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Tasks;

/// A stream that can be taken from one runtime to another.
pub(super) trait Portable: Sized {
    type Packed: Send + 'static;

    fn pack(self) -> io::Result<Self::Packed>;
    fn unpack(packed: Self::Packed) -> io::Result<Self>;
}

impl Portable for TcpStream {
    type Packed = net::TcpStream;

    fn pack(self) -> io::Result<Self::Packed> {
        self.into_std()
    }

    fn unpack(packed: Self::Packed) -> io::Result<Self> {
        Self::from_std(packed)
    }
}

impl Portable for UnixStream {
    type Packed = std::os::unix::net::UnixStream;

    fn pack(self) -> io::Result<Self::Packed> {
        self.into_std()
    }

    fn unpack(packed: Self::Packed) -> io::Result<Self> {
        Self::from_std(packed)
    }
}

/// Serves whoever comes until `stopping`, and those that are connected until they are answered.
pub(super) async fn serve<L>(mut listener: L, router: Router, tasks: &Tasks, stopping: CancellationToken)
where
    L: Listener<Io: Portable>,
{
    let (mut shards, mut serving) = (Vec::new(), Vec::new());
    for shard in tasks.shards().iter() {
        // Each holds a descriptor, so there is a bound; and a shard that is behind is not to keep the others from theirs.
        let (sender, handed) = mpsc::unbounded_channel();
        let (router, stopping) = (router.clone(), stopping.clone());
        let service = async move {
            let served =
                axum::serve(Handed::<L::Io>(handed), router).with_graceful_shutdown(stopping.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "connections are no longer served");
            }
        };
        shards.push(sender);
        serving.push(tasks.spawn_on(shard, service));
    }
    for shard in shards.iter().cycle() {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => break,
        };
        match stream.pack() {
            Ok(packed) => {
                // A service that has ended unasked is not to be missed.
                if shard.send(packed).is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "a connection was lost before it was served"),
        }
    }
    drop(listener);
    for service in serving {
        let _ = service.await;
    }
}

/// Connections that were accepted elsewhere.
struct Handed<S: Portable>(mpsc::UnboundedReceiver<S::Packed>);

impl<S> Listener for Handed<S>
where
    S: Portable + tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    type Io = S;
    type Addr = ();

    async fn accept(&mut self) -> (S, ()) {
        while let Some(packed) = self.0.recv().await {
            match S::unpack(packed) {
                Ok(stream) => return (stream, ()),
                Err(error) => tracing::warn!(%error, "a connection was lost before it was served"),
            }
        }
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
