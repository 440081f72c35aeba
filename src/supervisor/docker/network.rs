//! Networks: each session that has a container on one has its own, for as long as it has such a container.
//!
//! To make one takes an engine a third as long as to start a container, so one that a session has left is kept for the next
//! (empty, it holds nothing of the session before), and one is made ahead where none is left. An engine has room for a few
//! dozen networks only: there is one spare network at most, and one that nobody has taken for a while is removed. What
//! cannot be removed is tried again when a container is started, once a minute at most.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error as ApiError,
    models::{NetworkCreateRequest, NetworkDisconnectRequest},
    query_parameters::{InspectContainerOptions, InspectNetworkOptions},
};
use tokio::sync::OnceCell;

use super::{DockerError, Engine, failed};
use crate::{ids::SessionId, lifecycle::Count};

/// How long after a session got its network one is made ahead: not while the engine starts what is wanted now.
const AHEAD_AFTER: Duration = Duration::from_secs(1);

/// How long a spare network is kept that no session takes.
const SPARE_FOR: Duration = Duration::from_secs(300);

/// Networks that sessions are on, the one that is spare, and those that could not be removed.
#[derive(Default)]
pub(super) struct Networks {
    state: Mutex<State>,
    /// Those that are being made ahead.
    making: Count,
}

#[derive(Default)]
struct State {
    taken: BTreeMap<Option<SessionId>, Taken>,
    spare: Option<Arc<Network>>,
    /// Whether one is about to be made ahead.
    ahead: bool,
    undone: Vec<String>,
}

struct Taken {
    network: Arc<Network>,
    users: usize,
}

struct Network {
    name: String,
    made: OnceCell<()>,
}

/// Keeps a session's network its own. When the last one is dropped, the network is another session's to have.
pub(super) struct NetworkUse {
    engine: Arc<Engine>,
    session: Option<SessionId>,
    network: Arc<Network>,
}

impl NetworkUse {
    pub(super) fn name(&self) -> &str {
        &self.network.name
    }

    /// Completes when the engine has the network.
    pub(super) async fn made(&self) -> Result<(), DockerError> {
        let make = || self.engine.make_network(&self.network.name);
        self.network.made.get_or_try_init(make).await.copied()
    }
}

impl Drop for NetworkUse {
    fn drop(&mut self) {
        let mut state = self.engine.networks.state();
        let Some(taken) = state.taken.get_mut(&self.session) else { return };
        taken.users -= 1;
        if taken.users > 0 {
            return;
        }
        state.taken.remove(&self.session);
        let (engine, network) = (self.engine.clone(), self.network.clone());
        drop(self.engine.tasks.spawn(async move { engine.leave(network).await }));
    }
}

impl Networks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when none is being made ahead.
    pub(super) async fn none_in_the_making(&self) {
        self.making.none().await;
    }

    /// What was to be made ahead is made now. Says whether there is a spare one already.
    fn no_more_ahead(&self) -> bool {
        let mut state = self.state();
        state.ahead = false;
        state.spare.is_some()
    }

    fn keep(&self, network: &Arc<Network>) -> bool {
        let mut state = self.state();
        let wanted = state.spare.is_none();
        if wanted {
            state.spare = Some(network.clone());
        }
        wanted
    }

    /// Gives up the spare network, if it still is this one.
    fn take_back(&self, network: &Arc<Network>) -> bool {
        self.state().spare.take_if(|spare| Arc::ptr_eq(spare, network)).is_some()
    }
}

impl Engine {
    /// The network that a session's containers share with each other and with nobody else's. It may have to be made.
    pub(super) fn network(self: &Arc<Self>, session: Option<&SessionId>) -> NetworkUse {
        let mut state = self.networks.state();
        let State { taken, spare, ahead, .. } = &mut *state;
        let taken = taken.entry(session.cloned()).or_insert_with(|| {
            if !std::mem::replace(ahead, true) {
                drop(self.tasks.spawn(self.clone().make_ahead()));
            }
            Taken { network: spare.take().unwrap_or_else(|| Arc::new(self.another())), users: 0 }
        });
        taken.users += 1;
        NetworkUse { engine: self.clone(), session: session.cloned(), network: taken.network.clone() }
    }

    fn another(&self) -> Network {
        let name = format!("mcp-broker-{}-{}", self.folder, uuid::Uuid::now_v7().simple());
        Network { name, made: OnceCell::new() }
    }

    /// Makes sure that the next session finds a network.
    async fn make_ahead(self: Arc<Self>) {
        let stopping = self.tasks.stopping_token();
        tokio::select! {
            () = tokio::time::sleep(AHEAD_AFTER) => {}
            () = stopping.cancelled() => return,
        }
        // Who stops the broker waits for this one, or this sees that it stops.
        let _making = self.networks.making.one_more();
        if self.networks.no_more_ahead() || self.tasks.is_stopping() {
            return;
        }
        let network = Arc::new(self.another());
        match self.make_network(&network.name).await {
            Ok(()) => self.leave(network).await,
            Err(error) => {
                tracing::debug!(%error, "no network was made for the next session");
                // The engine may have made it, and not been able to say so.
                self.remove_network_or_remember(&network.name).await;
            }
        }
    }

    async fn make_network(&self, name: &str) -> Result<(), DockerError> {
        let docker = self.docker().await?;
        // One that was made ahead may be gone: an engine is told to remove networks that nothing uses.
        match docker.inspect_network(name, None::<InspectNetworkOptions>).await {
            Ok(_) => return Ok(()),
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(source) => return Err(DockerError::Api { what: "look for the session's network", source }),
        }
        let request =
            NetworkCreateRequest { name: name.to_owned(), labels: Some(self.own_labels()), ..Default::default() };
        match docker.create_network(request).await {
            Ok(_) => Ok(()),
            Err(ApiError::DockerResponseServerError { message, .. }) if message.contains("address pool") => {
                Err(DockerError::NoAddresses)
            }
            Err(source) => Err(DockerError::Api { what: "make a network for the session", source }),
        }
    }

    /// Keeps a network that no session has for the next one, or removes it.
    async fn leave(self: Arc<Self>, network: Arc<Network>) {
        // What is left then is removed as a whole.
        if self.tasks.is_stopping() {
            return;
        }
        // Made or not is for the next session to see again.
        let network = Arc::new(Network { name: network.name.clone(), made: OnceCell::new() });
        // A container that could not be removed may be about to join it.
        let may_stay = self.undone().is_empty() && self.is_empty(&network.name).await;
        if !may_stay || !self.networks.keep(&network) {
            self.remove_network_or_remember(&network.name).await;
            return;
        }
        let engine = self.clone();
        drop(self.tasks.spawn(async move { engine.give_up(network, SPARE_FOR).await }));
    }

    /// Removes a spare network that no session has taken by then.
    async fn give_up(&self, network: Arc<Network>, after: Duration) {
        let stopping = self.tasks.stopping_token();
        tokio::select! {
            () = tokio::time::sleep(after) => {}
            () = stopping.cancelled() => return,
        }
        if self.networks.take_back(&network) {
            self.remove_network_or_remember(&network.name).await;
        }
    }

    /// Whether the engine has the network, and no container on it.
    async fn is_empty(&self, name: &str) -> bool {
        let Ok(docker) = self.docker().await else { return false };
        let inspected = docker.inspect_network(name, None::<InspectNetworkOptions>).await;
        inspected.is_ok_and(|network| network.containers.is_some_and(|on_it| on_it.is_empty()))
    }

    async fn remove_network_or_remember(&self, name: &str) {
        // Why it could not is in the log.
        if self.remove_network(name).await.is_err() {
            self.networks.state().undone.push(name.to_owned());
        }
    }

    pub(super) fn any_undone_network(&self) -> bool {
        !self.networks.state().undone.is_empty()
    }

    /// Removes networks that could not be removed before, until the engine does not answer.
    pub(super) async fn remove_undone_networks(&self) {
        let mut undone = std::mem::take(&mut self.networks.state().undone).into_iter();
        while let Some(name) = undone.next() {
            let Err(error) = self.remove_network(&name).await else { continue };
            let mut state = self.networks.state();
            state.undone.push(name);
            if let DockerError::Unreachable { .. } | DockerError::None = self.plainly(error) {
                state.undone.extend(undone);
                return;
            }
        }
    }

    /// Removes a network.
    ///
    /// An engine that was told to remove a container while it started it may keep its place in the network, which then can
    /// be given up by the container's name only.
    pub(super) async fn remove_network(&self, network: &str) -> Result<(), DockerError> {
        let docker = self.docker().await?;
        let mut removed = docker.remove_network(network).await;
        let mut nothing_on_it = false;
        if matches!(removed, Err(ApiError::DockerResponseServerError { status_code: 403, .. })) {
            nothing_on_it = disconnect_what_is_gone(docker, network).await;
            removed = docker.remove_network(network).await;
        }
        match removed {
            Ok(()) | Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => {
                if nothing_on_it {
                    // It has lost count: moby/moby, issue 42119.
                    tracing::warn!(%error, network, "a network was not removed, though the engine names nothing on it: restart the engine");
                } else {
                    tracing::warn!(%error, network, "a network was not removed");
                }
                Err(failed("remove a network")(error))
            }
        }
    }
}

/// Gives up the places in a network of containers that the engine does not have any more. Says whether no other is left.
async fn disconnect_what_is_gone(docker: &Docker, network: &str) -> bool {
    let Ok(inspected) = docker.inspect_network(network, None::<InspectNetworkOptions>).await else { return false };
    let mut nothing_on_it = true;
    for (id, place) in inspected.containers.unwrap_or_default() {
        let container = docker.inspect_container(&id, None::<InspectContainerOptions>).await;
        let gone = matches!(container, Err(ApiError::DockerResponseServerError { status_code: 404, .. }));
        nothing_on_it &= gone;
        if gone {
            let request = NetworkDisconnectRequest { container: place.name.unwrap_or(id), force: Some(true) };
            // If it fails, so does the removal of the network, which says why.
            let _ = docker.disconnect_network(network, request).await;
        }
    }
    nothing_on_it
}

#[cfg(test)]
mod tests;
