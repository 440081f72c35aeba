//! The unix socket by which commands and other processes find the broker of a data folder.
//!
//! Whoever may open the socket (mode 0600 in a folder of mode 0700) is the folder's owner, so there is no token. It serves
//! the REST interface and `POST /stdio`, which becomes a stream of MCP messages (RFC 9110, section 7.8).

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{HttpParts, answers, api, spread};
use crate::ids::{Principal, fingerprint};

const FILE: &str = "broker.sock";

/// The address of a unix socket has room for 108 bytes, its end included.
const PATH_BYTES_MAX: usize = 100;

/// The socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("could not use the socket {path}")]
pub struct SocketError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Where the socket of a data folder is: in it, or, where that path is too long, in the folder for temporary files.
#[must_use]
pub fn path(data_folder: &Path) -> PathBuf {
    let inside = data_folder.join(FILE);
    if inside.as_os_str().len() <= PATH_BYTES_MAX {
        return inside;
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    folder.join(format!("mcp-broker-{}.sock", fingerprint(&data_folder.display().to_string(), 16)))
}

/// Listens on the socket. Only the holder of the data folder's lock may: what is there already is a leftover.
///
/// # Errors
///
/// When the socket cannot be made.
pub fn listen(data_folder: &Path) -> Result<UnixListener, SocketError> {
    let path = path(data_folder);
    let wrong = |source| SocketError { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(wrong)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    Ok(listener)
}

/// Connects to the broker of a data folder.
///
/// # Errors
///
/// When none listens.
pub async fn connect(data_folder: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path(data_folder)).await
}

/// Serves the socket until `stopping`.
pub async fn serve(listener: UnixListener, parts: HttpParts, stopping: CancellationToken) {
    let router = router(&parts);
    spread::serve(listener, router, parts.tools.tasks(), stopping).await;
}

/// What the socket offers; also what a command uses that has the data folder to itself.
pub fn router(parts: &HttpParts) -> Router {
    Router::new()
        .nest("/v1", api::router(parts.api.clone()))
        .merge(super::stdio::router(parts.clone()))
        .layer(from_fn_with_state(parts.tools.tasks().unanswered().clone(), answers::count))
        .layer(from_fn(as_local))
}

async fn as_local(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Principal::Local);
    next.run(request).await
}
