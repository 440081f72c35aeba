//! Networks: one for each session that has a container on one, made for the first of them and removed after the last.
//!
//! An engine has room for a few dozen networks only, so none is kept for a session that merely exists.

use std::{collections::HashMap, sync::Arc};

use bollard::{
    errors::Error as ApiError,
    models::{NetworkCreateRequest, NetworkDisconnectRequest},
    query_parameters::InspectNetworkOptions,
};

use super::{DockerError, Engine, failed};
use crate::ids::SessionId;

/// How many containers use each network. Held while one is made or removed.
#[derive(Default)]
pub(super) struct Networks(tokio::sync::Mutex<HashMap<String, usize>>);

/// Keeps a network there. The last one that is dropped removes it.
pub(super) struct NetworkUse {
    engine: Arc<Engine>,
    name: String,
}

impl Drop for NetworkUse {
    fn drop(&mut self) {
        let (engine, name) = (self.engine.clone(), std::mem::take(&mut self.name));
        drop(self.engine.tasks.spawn(async move { engine.leave(&name).await }));
    }
}

impl Engine {
    /// What the network of a session's containers is called.
    pub(super) fn network_name(&self, session: Option<&SessionId>) -> String {
        self.name(session, "")
    }

    /// The network that a session's containers share with each other and with nobody else's.
    pub(super) async fn network(self: &Arc<Self>, session: Option<&SessionId>) -> Result<NetworkUse, DockerError> {
        let name = self.network_name(session);
        // An engine lets two networks have one name, so only one of us at a time looks and makes.
        let mut users = self.networks.0.lock().await;
        self.make_network(&name, session).await?;
        *users.entry(name.clone()).or_default() += 1;
        Ok(NetworkUse { engine: self.clone(), name })
    }

    async fn make_network(&self, name: &str, session: Option<&SessionId>) -> Result<(), DockerError> {
        let docker = self.docker().await?;
        match docker.inspect_network(name, None::<InspectNetworkOptions>).await {
            Ok(_) => return Ok(()),
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(source) => return Err(DockerError::Api { what: "look for the session's network", source }),
        }
        let request =
            NetworkCreateRequest { name: name.to_owned(), labels: Some(self.labels(session)), ..Default::default() };
        match docker.create_network(request).await {
            Ok(_) => Ok(()),
            Err(ApiError::DockerResponseServerError { message, .. }) if message.contains("address pool") => {
                Err(DockerError::NoAddresses)
            }
            Err(source) => Err(DockerError::Api { what: "make a network for the session", source }),
        }
    }

    async fn leave(&self, name: &str) {
        let mut users = self.networks.0.lock().await;
        let Some(count) = users.get_mut(name) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        users.remove(name);
        // Why it could not is in the log.
        let _ = self.remove_network(name, &[]).await;
    }

    /// Removes a network that `containers` were on, by name.
    ///
    /// An engine that was told to remove a container while it started it may keep its place in the network, which then can
    /// be given up by the container's name only.
    pub(super) async fn remove_network(&self, network: &str, containers: &[&str]) -> Result<(), DockerError> {
        let docker = self.docker().await?;
        let mut removed = docker.remove_network(network).await;
        if matches!(removed, Err(ApiError::DockerResponseServerError { status_code: 403, .. })) {
            for name in containers {
                let container = name.trim_start_matches('/').to_owned();
                let request = NetworkDisconnectRequest { container, force: Some(true) };
                let _ = docker.disconnect_network(network, request).await;
            }
            removed = docker.remove_network(network).await;
        }
        match removed {
            Ok(()) | Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, network, "a network was not removed");
                Err(failed("remove a network")(error))
            }
        }
    }
}
